//! Locks on image files, as QEMU takes them.
//!
//! QEMU `block/file-posix.c`, "image locking". Open-file-description locks on single bytes: byte `100 + p` says that
//! the holder uses permission `p`, byte `200 + p` that it suffers nobody else to use it. All are shared locks; a
//! conflict is found by asking whether the byte is locked by someone else.

use std::fs::File;
use std::io;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

const USES: i64 = 100;
const SUFFERS_NO_OTHER: i64 = 200;

/// How often, and how long apart, a lock in the way is looked at again.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Numbers of QEMU's permissions.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// Locks `file` for a writer; the lock lasts until the file is closed.
///
/// # Errors
/// [`io::ErrorKind::ResourceBusy`] when a running machine or another tool uses the file in a way that does not
/// go with writing; any error of the host, such as a file system without locks.
pub(crate) fn for_writing(file: &File) -> io::Result<()> {
    let used = [CONSISTENT_READ, WRITE, RESIZE];
    let refused = [WRITE, RESIZE];
    for byte in
        used.map(|permission| USES + permission).into_iter().chain(refused.map(|p| SUFFERS_NO_OTHER + p))
    {
        fcntl(file, FcntlArg::F_OFD_SETLK(&byte_lock(libc::F_RDLCK, byte))).map_err(busy)?;
    }
    // Only now, so that of two that start at once at least one sees the other.
    let conflicts = used.map(|p| SUFFERS_NO_OTHER + p).into_iter().chain(refused.map(|p| USES + p));
    for byte in conflicts {
        if stays_locked(file, byte)? {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "in use by a running virtual machine or another tool",
            ));
        }
    }
    Ok(())
}

/// Whether someone else holds `file` open for writing, by QEMU's locks.
///
/// # Errors
/// Any error of the host, such as a file system without locks.
pub(crate) fn is_being_written(file: &File) -> io::Result<bool> {
    is_locked(file, USES + WRITE)
}

/// Whether the byte is locked by someone who does not let go within a moment. A process that this one starts holds its
/// locks until it has become another program, and `qemu-img info` is soon done too.
fn stays_locked(file: &File, byte: i64) -> io::Result<bool> {
    for _ in 0..TRIES {
        if !is_locked(file, byte)? {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    is_locked(file, byte)
}

fn is_locked(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = byte_lock(libc::F_WRLCK, byte);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn byte_lock(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        // Required to be 0 for locks of an open file description.
        l_pid: 0,
    }
}

fn busy(error: nix::Error) -> io::Error {
    match error {
        nix::Error::EAGAIN | nix::Error::EACCES => {
            io::Error::new(io::ErrorKind::ResourceBusy, "locked by another tool")
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_exclude_each_other_and_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, [0; 512]).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        assert!(!is_being_written(&second).unwrap());
        for_writing(&first).unwrap();
        assert!(is_being_written(&second).unwrap());
        assert!(!is_being_written(&first).unwrap(), "one's own lock is no conflict");
        assert_eq!(for_writing(&second).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(second);
        drop(first);
        for_writing(&open()).unwrap();
    }
}
