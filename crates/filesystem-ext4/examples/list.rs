//! Lists an image, one file a line, in the form that `scripts/oracles/ext4.sh` makes of a kernel mount.
//!
//! `list [--replay] IMAGE [FIRST-BYTE]`

#![expect(clippy::print_stdout, reason = "printing is its purpose")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use filesystem::{FileKind, FileSystem, Inode};
use filesystem_ext4::FORMAT;
use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let replay = args.first().is_some_and(|arg| arg == "--replay");
    if replay {
        args.remove(0);
    }
    let image = args.first().ok_or("usage: list [--replay] IMAGE")?;
    let mut device: Device = Arc::new(FileDevice::open(Path::new(image))?);
    if replay {
        let replayed = (FORMAT.replay)(device)?;
        println!("# {} transactions", replayed.transactions);
        device = replayed.device;
    }
    let opened = (FORMAT.open)(device)?;
    for problem in &opened.problems {
        println!("# {problem}");
    }
    let fs = opened.value;
    let mut lines = Vec::new();
    let mut todo = vec![(Vec::new(), fs.root())];
    while let Some((path, inode)) = todo.pop() {
        lines.push(line(&*fs, &path, inode, &mut todo).unwrap_or_else(|e| format!("{}: {e}", escape(&path))));
    }
    lines.sort();
    println!("{}", lines.join("\n"));
    Ok(())
}

fn line(
    fs: &dyn FileSystem,
    path: &[u8],
    inode: Inode,
    todo: &mut Vec<(Vec<u8>, Inode)>,
) -> Result<String, Box<dyn Error>> {
    let metadata = fs.metadata(inode)?;
    let detail = match metadata.kind {
        FileKind::Directory => {
            for entry in fs.read_dir(inode)? {
                todo.push(([path, b"/", &entry.name].concat(), entry.inode));
            }
            String::new()
        }
        FileKind::Regular => hash(fs, inode, metadata.size)?,
        FileKind::Symlink => escape(&fs.read_link(inode)?),
        _ => format!("{},{}", metadata.device.0, metadata.device.1),
    };
    let mut xattrs = fs.xattrs(inode)?;
    xattrs.sort();
    let xattrs: Vec<String> = xattrs
        .iter()
        .map(|(name, value)| format!("{}={}", escape(name), hex(&Sha256::digest(value))))
        .collect();
    Ok(format!(
        "{}\t{}{:04o}\t{}\t{}\t{}\t{}\t{}\t{}.{:09}\t{detail}\t{}",
        escape(path),
        metadata.kind.letter(),
        metadata.permissions,
        metadata.uid,
        metadata.gid,
        metadata.links,
        metadata.size,
        metadata.allocated,
        metadata.modified.seconds,
        metadata.modified.nanoseconds,
        xattrs.join(" ")
    ))
}

/// SHA-256 of the content; of files of more than 8 GiB, of the first and the last MiB.
fn hash(fs: &dyn FileSystem, inode: Inode, size: u64) -> Result<String, Box<dyn Error>> {
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        match fs.read_at(inode, &mut buf, offset)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => {
                hasher.update(buf.get(..count).unwrap_or_default());
                offset = offset.saturating_add(u64::try_from(count)?);
                if size > 8 << 30 && offset == 1 << 20 {
                    offset = size.saturating_sub(1 << 20);
                }
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn escape(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        b'\\' => "\\5c".into(),
        0x21..=0x7e => char::from(*byte).to_string(),
        other => format!("\\{other:02x}"),
    };
    bytes.iter().map(escape).collect()
}
