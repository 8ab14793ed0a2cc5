//! From overlays in memory to files: the qcow2 overlay, the commit with its journal, the undo.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use blockdev::{BlockDevice, BlockDeviceMut, FileDevice, Overlay};
use image::qcow2::{Backing, CreateOptions, Extension, Header, create};
use image::{DenyAll, Gate, Mode, Options, OwnContent, Request, Role, Staging};
use repair::journal::{self, State, Target};

/// The header extension in which an overlay of `fix` records what it stands on: "gmnd".
const EXTENSION: u32 = 0x676d_6e64;

/// Writes the changed ranges of `overlay` to a new qcow2 file at `out`, with `image` as its backing file.
///
/// The file appears under its name only when it is whole and durable. `format` is QEMU's name of the image's.
///
/// # Errors
/// `out` exists, or any error of the host.
pub fn write_overlay(overlay: &Overlay, image: &Path, format: &str, out: &Path) -> anyhow::Result<()> {
    if out.symlink_metadata().is_ok() {
        bail!("{} exists already; choose another name with --overlay, or discard it", out.display());
    }
    let folder = folder_of(out);
    let backing = Backing { name: backing_name(image, folder)?, format: Some(format.to_owned()) };
    let extension = Extension { kind: EXTENSION, data: identity(image)? };
    let options = CreateOptions {
        backing: Some(backing),
        extensions: vec![extension],
        ..CreateOptions::new(overlay.size())
    };
    write_new(out, |temporary| {
        let file = Arc::new(FileDevice::create_new(temporary)?);
        share_as(image, temporary)?;
        fill(&file, &options, overlay)
    })
}

/// Lets `write` make a file under a temporary name beside `out`; `out` appears when that is whole and durable.
///
/// # Errors
/// Any error of `write` or of the host; nothing is left then.
fn write_new(out: &Path, write: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let temporary = with_suffix(out, ".part");
    // A leftover of a run that was cut short holds nothing that anyone refers to.
    if temporary.symlink_metadata().is_ok() {
        std::fs::remove_file(&temporary)?;
    }
    let result = write(&temporary).and_then(|()| {
        std::fs::File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, out)?;
        sync_folder(folder_of(out))?;
        Ok(())
    });
    if result.is_err() {
        drop(std::fs::remove_file(&temporary));
    }
    result
}

fn fill(file: &Arc<FileDevice>, options: &CreateOptions, overlay: &Overlay) -> anyhow::Result<()> {
    create(file.as_ref(), options)?;
    // What lies around a changed page in its cluster comes from the disk that was examined.
    let options = Options {
        format: Some("qcow2"),
        mode: Mode::ReadWrite,
        below: Some(overlay.base()),
        ..Options::default()
    };
    let opened = image::open_device(file.clone(), None, &options, &DenyAll)?;
    copy_changes(overlay, blockdev::writable(&opened.device)?)
}

/// Copies the changed ranges to another device of the same size.
fn copy_changes(overlay: &Overlay, to: &dyn BlockDeviceMut) -> anyhow::Result<()> {
    for range in overlay.changed() {
        copy_range(overlay, to, range)?;
    }
    to.flush()?;
    Ok(())
}

fn copy_range(
    from: &dyn BlockDevice,
    to: &dyn BlockDeviceMut,
    range: std::ops::Range<u64>,
) -> anyhow::Result<()> {
    let mut buf = vec![0; 1 << 16];
    let mut at = range.start;
    while at < range.end {
        let count = (range.end - at).min(buf.len() as u64) as usize;
        from.read_exact_at(&mut buf[..count], at)?;
        to.write_all_at(&buf[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

/// What an overlay records of the file below it, to notice that it changed: length and modification time.
fn identity(image: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(image)?;
    Ok(format!("v1 size={} mtime={}.{:09}", metadata.len(), metadata.mtime(), metadata.mtime_nsec())
        .into_bytes())
}

/// Where `fix` puts its overlay: `disk.fixed.qcow2` for `disk.vmdk`.
pub fn default_overlay(image: &Path) -> PathBuf {
    let stem = image.file_stem().unwrap_or(image.as_os_str());
    let mut name = stem.to_owned();
    name.push(".fixed.qcow2");
    image.with_file_name(name)
}

/// The journal of an image: `disk.qcow2.guestmend-undo`.
pub fn journal_path(image: &Path) -> PathBuf {
    with_suffix(image, ".guestmend-undo")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    PathBuf::from(name)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The plain name when both lie in one folder, so that they can be moved together; else the absolute path.
fn backing_name(image: &Path, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let image = image.canonicalize()?;
    let folder = folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?;
    let name = match (image.parent(), image.file_name()) {
        (Some(parent), Some(name)) if parent == folder => name,
        _ => image.as_os_str(),
    };
    Ok(name.as_bytes().to_vec())
}

/// Gives a new file the permissions and, where we may, the owner of the image: it holds the guest's bytes too.
pub(crate) fn share_as(image: &Path, new: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let metadata = std::fs::metadata(image)?;
    if metadata.is_file() {
        std::fs::set_permissions(new, metadata.permissions())?;
        // Only root can give a file away; anybody else already owns what he makes.
        drop(chown(new, Some(metadata.uid()), Some(metadata.gid())));
    }
    Ok(())
}

pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Writes the changed ranges of `overlay`, a view of the disk in `image`, into `image` itself.
///
/// The old bytes of its files are kept in the journal beside it. `gate` decides on the files that it names; of
/// `options` the format, the passphrase and the trust in parents count.
///
/// # Errors
/// A journal is there already, the image is in use or cannot be written, or any error of the host; what was cut
/// short is taken back by [`undo`].
pub fn commit_in_place(
    overlay: &Overlay,
    image: &Path,
    options: &Options<'_>,
    gate: &dyn Gate,
) -> anyhow::Result<()> {
    refuse_second_journal(image)?;
    let staging = Staging::for_commit();
    stage(overlay, &staging, image, options, gate)?;
    commit_staged(&staging, image)
}

/// Writes what was staged for the files of `image`, with the journal beside it.
///
/// # Errors
/// As [`commit_in_place`].
pub fn commit_staged(staging: &Staging, image: &Path) -> anyhow::Result<()> {
    refuse_second_journal(image)?;
    let path = journal_path(image);
    let folder = folder_of(image);
    let files = staging.files();
    let names: Vec<Vec<u8>> =
        files.iter().map(|file| backing_name(&file.path, folder)).collect::<anyhow::Result<_>>()?;
    let targets = files
        .iter()
        .zip(&names)
        .map(|(file, name)| {
            let target = blockdev::writable(file.overlay.base())?;
            Ok(Target { name, overlay: &file.overlay, file: target })
        })
        .collect::<io::Result<Vec<_>>>()?;
    let journal_file = FileDevice::create_new(&path)?;
    share_as(image, &path)?;
    // The journal's name must be as durable as its bytes before the first byte of the image changes.
    sync_folder(folder)?;
    let result = journal::commit(&targets, &journal_file);
    result.with_context(|| {
        format!("the commit was cut short; `guestmend undo {}` takes it back", image.display())
    })
}

fn refuse_second_journal(image: &Path) -> anyhow::Result<()> {
    let path = journal_path(image);
    if path.symlink_metadata().is_ok() {
        bail!(
            "{} is there from an earlier commit; take that back with `guestmend undo {}`, or delete the file if it \
             is to stay",
            path.display(),
            image.display()
        );
    }
    Ok(())
}

/// Applies the changed ranges of `overlay` to the image at `path`, over its files as they are in `staging`.
///
/// # Errors
/// The image cannot be written, or any error of the host.
pub fn stage(
    overlay: &Overlay,
    staging: &Staging,
    path: &Path,
    options: &Options<'_>,
    gate: &dyn Gate,
) -> anyhow::Result<()> {
    if options.snapshot.is_some() {
        bail!("{}: changes to a snapshot cannot be written into the present state", path.display());
    }
    let options = Options { staging: Some(staging), ..*options };
    let opened = image::open(path, &options, gate)?;
    copy_changes(overlay, blockdev::writable(&opened.device)?)
}

/// Writes what the overlay file at `path` holds into the image below it, and removes the overlay.
///
/// # Errors
/// The file is no overlay, the image below changed since it was made, or as [`commit_in_place`].
pub fn commit_overlay(path: &Path, options: &Options<'_>, gate: &dyn Gate) -> anyhow::Result<PathBuf> {
    let opened = image::open(path, &Options { format: Some("qcow2"), ..*options }, gate)?;
    let [leaf, base, ..] = opened.chain.as_slice() else {
        bail!("{} stands on no other image", path.display());
    };
    let base_path = base.path.clone().context("the image below has no name")?;
    let header = Header::read(&FileDevice::open(path)?)?.value;
    if let Some(recorded) = header.extension(EXTENSION)
        && recorded != identity(&base_path)?
    {
        bail!("{} changed after {} was made from it; run `fix` again", base_path.display(), path.display());
    }
    let below = base.disk.clone().context("the image below is not open")?;
    let own = leaf.disk.as_ref().context("the overlay is not open")?;
    let changes = Overlay::new(below);
    let mut at = 0;
    while at < own.size() {
        let run = own.own_run_at(at)?;
        let end = at.saturating_add(run.length);
        if run.content != OwnContent::Absent {
            copy_range(own.as_ref(), &changes, at..end.min(changes.size()))?;
        }
        at = end;
    }
    let options = Options { format: Some(base.format), ..*options };
    commit_in_place(&changes, &base_path, &options, gate)?;
    std::fs::remove_file(path)?;
    Ok(base_path)
}

/// Deletes an overlay that `fix` made; any other file is refused.
///
/// # Errors
/// The file is no overlay of `fix`, or any error of the host.
pub fn discard(path: &Path) -> anyhow::Result<()> {
    let header = Header::read(&FileDevice::open(path)?);
    let header = header.with_context(|| format!("{} is no overlay", path.display()))?.value;
    if header.extension(EXTENSION).is_none() {
        bail!("{} was not made by `guestmend fix` and is not deleted", path.display());
    }
    std::fs::remove_file(path)?;
    Ok(())
}

/// What [`undo`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// A whole commit was taken back.
    Commit,
    /// A commit that was cut short was taken back.
    CutCommit,
    /// A commit was cut before it touched the image; only its journal was removed.
    Nothing,
}

/// Takes back the last commit into `image`, whether it is whole or was cut short, and removes the journal.
///
/// # Errors
/// There is no journal, the image is in use or changed after the commit, or any error of the host.
pub fn undo(image: &Path, gate: &dyn Gate) -> anyhow::Result<Undone> {
    let path = journal_path(image);
    let journal_file =
        FileDevice::open(&path).with_context(|| format!("no commit to undo: {}", path.display()))?;
    let undone = match journal::state(&journal_file)? {
        State::Incomplete => Undone::Nothing,
        State::Prepared => Undone::CutCommit,
        State::Sealed => Undone::Commit,
    };
    if undone != Undone::Nothing {
        take_back(image, &journal_file, gate)?;
    }
    std::fs::remove_file(&path)?;
    sync_folder(folder_of(image))?;
    Ok(undone)
}

/// Puts the old bytes back into every file of the image. The first is the image itself; the others go through the
/// gate, for whoever can write into the folder can write a journal.
fn take_back(image: &Path, journal_file: &FileDevice, gate: &dyn Gate) -> anyhow::Result<()> {
    let known = journal::files(journal_file)?;
    let open =
        || FileDevice::open_writable(image).with_context(|| format!("cannot open {}", image.display()));
    let mut files = vec![open()?];
    for file in known.iter().skip(1) {
        let name = OsStr::from_bytes(&file.name);
        let request = Request { role: Role::Extent, name, image, top: image, for_writing: true };
        let opened = gate.open(&request).with_context(|| format!("cannot open {}", name.display()))?;
        files.push(opened.file);
    }
    let targets: Vec<&dyn BlockDeviceMut> = files.iter().map(|file| file as &dyn BlockDeviceMut).collect();
    journal::undo(&targets, journal_file)?;
    for (file, known) in files.iter().zip(&known) {
        // A block device keeps its length; a file loses what the commit appended.
        if file.file().metadata()?.is_file() {
            file.file().set_len(known.old_size)?;
            file.file().sync_all()?;
        }
    }
    Ok(())
}
