//! `mount`: the guest's tree and its raw volumes, read-only, for as long as the command runs.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::{Context, bail};
use export_fuse::Tree;
use filesystem::FileSystem;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use storage::{NodeKind, Storage};

use crate::cli::Status;
use crate::cli::args::{Common, Mount};
use crate::cli::input::Disks;
use crate::examine;

pub(crate) fn run(common: &Common, args: &Mount) -> anyhow::Result<Status> {
    let disks = Disks::open(common, std::slice::from_ref(&args.image.image))?;
    let examination = examine(&disks.devices(), &disks.keys, &[]);
    let mut entries = std::fs::read_dir(&args.directory)
        .with_context(|| format!("cannot mount on {}", args.directory.display()))?;
    if entries.next().is_some() {
        bail!("{} is not empty", args.directory.display());
    }
    let volumes = volumes(&examination.storage);
    let guest = examination.guests.into_iter().next();
    let what =
        guest.as_ref().map_or_else(|| "no installed system".to_owned(), |guest| guest.name().to_owned());
    let fs = guest.map(|guest| Arc::new(guest.tree) as Arc<dyn FileSystem>);
    // Before the mount, so that no signal finds it without a handler.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let mut mounted = export_fuse::mount(Tree { fs, volumes }, &args.directory)
        .with_context(|| format!("cannot mount on {} (is fuse3 installed?)", args.directory.display()))?;
    writeln!(
        io::stdout().lock(),
        "{}: {what} below fs, raw volumes below volumes; end with Ctrl-C or `fusermount3 -u {}`",
        args.directory.display(),
        args.directory.display()
    )?;
    let mut unmounter = mounted.unmounter();
    let handle = signals.handle();
    let waiting = std::thread::spawn(move || {
        for _ in signals.forever() {
            match unmounter.unmount() {
                Ok(()) => break,
                Err(error) => drop(writeln!(io::stderr(), "guestmend: still in use: {error}")),
            }
        }
    });
    let served = mounted.serve();
    handle.close();
    // The thread only waits for signals; it cannot have failed in a way that matters now.
    drop(waiting.join());
    served?;
    Ok(Status::Clean)
}

/// `disk0`, `disk0-p1`, `centos/root`: a file cannot be a directory too.
fn volumes(storage: &Storage) -> Vec<(String, blockdev::Device)> {
    storage
        .iter()
        .filter_map(|(_, node)| {
            let device = node.device.clone()?;
            // A partition of an array stands beside the array, as one of a disk does.
            let path = match node.kind {
                NodeKind::Partition(_) if node.path.starts_with("md/") => {
                    let (array, number) = node.path.rsplit_once('/')?;
                    format!("{array}-{number}")
                }
                NodeKind::Disk(_) | NodeKind::Partition(_) => node.path.replace('/', "-"),
                NodeKind::LogicalVolume { .. } | NodeKind::Array { .. } | NodeKind::Decrypted { .. } => {
                    node.path.clone()
                }
            };
            Some((path, device))
        })
        .collect()
}
