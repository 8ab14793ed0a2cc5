//! From overlays in memory to files: the qcow2 overlay, the commit with its journal, the undo.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use blockdev::{BlockDevice, BlockDeviceMut, Device, FileDevice, Overlay};
use image::Gate;
use image::qcow2::{Backing, Extension, Options, Qcow2, create};
use repair::journal::{self, State};

/// The header extension in which an overlay of `fix` records what it stands on: "gmnd".
const EXTENSION: u32 = 0x676d_6e64;

/// Writes the changed ranges of `overlay` to a new qcow2 file at `out`, with `image` as its backing file.
///
/// The file appears under its name only when it is whole and durable.
///
/// # Errors
/// `out` exists, or any error of the host.
pub fn write_overlay(overlay: &Overlay, image: &Path, format: &str, out: &Path) -> anyhow::Result<()> {
    if out.symlink_metadata().is_ok() {
        bail!("{} exists already; choose another name with --overlay, or discard it", out.display());
    }
    let folder = folder_of(out);
    let backing = backing_name(image, folder)?;
    let temporary = with_suffix(out, ".part");
    // A leftover of a run that was cut short holds nothing that anyone refers to.
    if temporary.symlink_metadata().is_ok() {
        std::fs::remove_file(&temporary)?;
    }
    let file = Arc::new(
        FileDevice::create_new(&temporary).with_context(|| format!("cannot write {}", out.display()))?,
    );
    share_as(image, &temporary)?;
    let options = Options {
        size: overlay.size(),
        backing: Some(Backing { name: backing, format: format.into() }),
        extensions: vec![Extension { kind: EXTENSION, data: identity(image)? }],
    };
    let result = fill(&file, &options, overlay).and_then(|()| {
        std::fs::rename(&temporary, out)?;
        sync_folder(folder)?;
        Ok(())
    });
    if result.is_err() {
        drop(std::fs::remove_file(&temporary));
    }
    result
}

fn fill(file: &Arc<FileDevice>, options: &Options, overlay: &Overlay) -> anyhow::Result<()> {
    create(file.as_ref(), options)?;
    let mut image = Qcow2::open(file.clone())?.value;
    // What lies around a changed page in its cluster comes from the disk that was examined.
    image.set_backing(overlay.base().clone());
    copy_changes(overlay, &image)?;
    file.file().sync_all()?;
    Ok(())
}

/// Copies the changed ranges to another device of the same size.
fn copy_changes(overlay: &Overlay, to: &dyn BlockDeviceMut) -> anyhow::Result<()> {
    for range in overlay.changed() {
        copy_range(overlay, to, range)?;
    }
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
    use std::os::unix::ffi::OsStrExt;
    let image = image.canonicalize()?;
    let folder = folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?;
    let name = match (image.parent(), image.file_name()) {
        (Some(parent), Some(name)) if parent == folder => name,
        _ => image.as_os_str(),
    };
    Ok(name.as_bytes().to_vec())
}

/// Gives a new file the permissions and, where we may, the owner of the image: it holds the guest's bytes too.
fn share_as(image: &Path, new: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let metadata = std::fs::metadata(image)?;
    if metadata.is_file() {
        std::fs::set_permissions(new, metadata.permissions())?;
        // Only root can give a file away; anybody else already owns what he makes.
        drop(chown(new, Some(metadata.uid()), Some(metadata.gid())));
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Writes the changed ranges of `overlay`, a view of the disk in `image`, into `image` itself.
///
/// The old bytes of the file are kept in the journal beside it. `gate` decides on the files that it stands on.
///
/// # Errors
/// A journal is there already, the image cannot be written, or any error of the host; what was cut short is
/// taken back by [`undo`].
pub fn commit_in_place(overlay: &Overlay, image: &Path, format: &str, gate: &dyn Gate) -> anyhow::Result<()> {
    let path = journal_path(image);
    if path.symlink_metadata().is_ok() {
        bail!(
            "{} is there from an earlier commit; take that back with `guestmend undo {}`, or delete the file if it \
             is to stay",
            path.display(),
            image.display()
        );
    }
    let file: Device = Arc::new(
        FileDevice::open_writable(image)
            .with_context(|| format!("cannot open {} for writing", image.display()))?,
    );
    let staged = stage(overlay, &file, image, format, gate)?;
    let journal_file = FileDevice::create_new(&path)?;
    share_as(image, &path)?;
    let result = journal::commit(&staged, blockdev::writable(&file)?, &journal_file);
    sync_folder(folder_of(image))?;
    result.with_context(|| {
        format!("the commit was cut short; `guestmend undo {}` takes it back", image.display())
    })
}

/// The container file as it will be, over the container file as it is.
///
/// # Errors
/// The format cannot be written, or any error of the host.
pub fn stage(
    overlay: &Overlay,
    file: &Device,
    image: &Path,
    format: &str,
    gate: &dyn Gate,
) -> anyhow::Result<Arc<Overlay>> {
    let staged = Arc::new(Overlay::new(file.clone()));
    match format {
        "raw" => copy_changes(overlay, staged.as_ref())?,
        "qcow2" => {
            let mut opened = Qcow2::open(staged.clone())?.value;
            if opened.backing_name().is_some() {
                // Reading through the chain as it stands gives the bytes around a changed page.
                opened.set_backing(backing_of(image, gate)?);
            }
            if opened.writable().is_none() {
                bail!("{}: the image is marked dirty or corrupt and is not written", image.display());
            }
            copy_changes(overlay, &opened)?;
        }
        other => bail!("{}: {other} images cannot be written yet", image.display()),
    }
    Ok(staged)
}

/// What the image stands on, opened through the gate.
fn backing_of(image: &Path, gate: &dyn Gate) -> anyhow::Result<Device> {
    let chain = image::open(image, Some("qcow2"), image::Mode::ReadOnly, gate)?;
    let below = chain.layers.get(1).context("the image names no backing file")?;
    let opened = image::open(&below.path, Some(below.format), image::Mode::ReadOnly, gate)?;
    Ok(opened.device)
}

/// Writes what the overlay file at `path` holds into the image below it, and removes the overlay.
///
/// # Errors
/// The file is no overlay, the image below changed since it was made, or as [`commit_in_place`].
pub fn commit_overlay(path: &Path, gate: &dyn Gate) -> anyhow::Result<PathBuf> {
    let opened = image::open(path, Some("qcow2"), image::Mode::ReadOnly, gate)?;
    let [leaf, base, ..] = opened.layers.as_slice() else {
        bail!("{} stands on no other image", path.display());
    };
    let qcow2 = leaf.qcow2.as_ref().context("not a qcow2 overlay")?;
    if let Some(recorded) = qcow2.header().extension(EXTENSION)
        && recorded != identity(&base.path)?
    {
        bail!("{} changed after {} was made from it; run `fix` again", base.path.display(), path.display());
    }
    let base_device = image::open(&base.path, Some(base.format), image::Mode::ReadOnly, gate)?.device;
    let changes = Overlay::new(base_device);
    for range in qcow2.allocated()? {
        let range = range.start..range.end.min(changes.size());
        copy_range(opened.device.as_ref(), &changes, range)?;
    }
    let (base_path, format) = (base.path.clone(), base.format);
    commit_in_place(&changes, &base_path, format, gate)?;
    std::fs::remove_file(path)?;
    Ok(base_path)
}

/// Deletes an overlay that `fix` made; any other file is refused.
///
/// # Errors
/// The file is no overlay of `fix`, or any error of the host.
pub fn discard(path: &Path) -> anyhow::Result<()> {
    let file = FileDevice::open(path)?;
    let opened = Qcow2::open(Arc::new(file)).with_context(|| format!("{} is no overlay", path.display()))?;
    if opened.value.header().extension(EXTENSION).is_none() {
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
/// There is no journal, the image changed after the commit, or any error of the host.
pub fn undo(image: &Path) -> anyhow::Result<Undone> {
    let path = journal_path(image);
    let journal_file =
        FileDevice::open(&path).with_context(|| format!("no commit to undo: {}", path.display()))?;
    let undone = match journal::state(&journal_file)? {
        State::Incomplete => Undone::Nothing,
        State::Prepared => Undone::CutCommit,
        State::Sealed => Undone::Commit,
    };
    if undone != Undone::Nothing {
        let file = FileDevice::open_writable(image)?;
        let size = journal::undo(&file, &journal_file)?;
        // A block device keeps its length; a file loses what the commit appended.
        if file.file().metadata()?.is_file() {
            file.file().set_len(size)?;
            file.file().sync_all()?;
        }
    }
    std::fs::remove_file(&path)?;
    sync_folder(folder_of(image))?;
    Ok(undone)
}
