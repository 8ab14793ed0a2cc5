//! `cat`.

use std::io::{self, Write};

use anyhow::bail;
use filesystem::FileKind;
use filesystem::path::{PathError, resolve};

use super::view::View;
use crate::cli::Status;
use crate::cli::args::{Common, Look};

/// Bytes that are read at once.
const PIECE: usize = 1 << 18;

pub(crate) fn cat(common: &Common, args: &Look) -> anyhow::Result<Status> {
    let view = View::open(common, &args.place)?;
    let tree = view.tree();
    let inode = resolve(tree, args.path.as_bytes())?;
    if tree.metadata(inode)?.kind != FileKind::Regular {
        bail!("{}: not a regular file", args.path);
    }
    let mut out = io::stdout().lock();
    let mut buf = vec![0; PIECE];
    let mut at = 0;
    loop {
        let count = tree
            .read_at(inode, &mut buf, at)
            .map_err(|cause| PathError::Fs { path: args.path.clone(), cause })?;
        if count == 0 {
            break;
        }
        out.write_all(&buf[..count])?;
        at += count as u64;
    }
    out.flush()?;
    Ok(Status::Clean)
}
