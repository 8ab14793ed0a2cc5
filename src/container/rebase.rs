//! Naming another parent, without touching what the image holds.

use std::path::Path;

use anyhow::{Context, bail};
use blockdev::BlockDeviceMut;
use image::{FolderGate, Gate, Options, ParentLink, Request, Role, Staging};

/// What a rebase changes, before it is committed.
#[derive(Debug)]
pub struct Rebased {
    /// How the image named its parent.
    pub old: Option<ParentLink>,
    /// How it will.
    pub new: Option<ParentLink>,
}

/// Makes the overlays of `staging` name `parent`, a path as the image is to store it, and verifies that the chain
/// opens.
///
/// # Errors
/// The format has no parents, the name does not fit, the gate or the identity refuses the new parent, or any error
/// of the host.
pub fn rebase(
    path: &Path,
    options: &Options<'_>,
    staging: &Staging,
    parent: &Path,
    gate: &FolderGate,
) -> anyhow::Result<Rebased> {
    let request = Request {
        role: Role::BackingFile,
        name: parent.as_os_str(),
        image: path,
        top: path,
        for_writing: false,
    };
    let allowed = gate.open(&request).with_context(|| format!("cannot take {}", parent.display()))?;
    let (below, error) = image::chain(&allowed.path, &Options::default(), gate);
    let format = match (below.first(), error) {
        (_, Some(error)) => return Err(error.into()),
        (None, None) => bail!("{} cannot be described", parent.display()),
        (Some(layer), None) => image::format_named(layer.format)?,
    };
    let options = Options { staging: Some(staging), ..*options };
    let (before, _) = image::chain(path, &options, gate);
    let old = before.into_iter().next().context("the image cannot be opened")?;
    let patches = image::rename_parent(path, &options, gate, parent.as_os_str().as_encoded_bytes(), format)?;
    let files = staging.files();
    let overlay = &files.first().context("nothing was opened")?.overlay;
    for patch in &patches {
        overlay.grow(patch.offset.saturating_add(patch.bytes.len() as u64))?;
        overlay.write_all_at(&patch.bytes, patch.offset)?;
    }
    let (after, error) = image::chain(path, &options, gate);
    if let Some(error) = error {
        return Err(anyhow::Error::from(error)
            .context("the image would not open with this parent; nothing was written"));
    }
    let new = after.into_iter().next().and_then(|layer| layer.parent);
    Ok(Rebased { old: old.parent, new })
}
