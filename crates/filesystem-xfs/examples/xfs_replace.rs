//! `xfs_replace IMAGE PATH CONTENT`: replaces a file in an XFS image by the content of a host file, in place.
#![expect(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use blockdev::{BlockDeviceMut, FileDevice};
use filesystem::{Timestamp, path};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, file, content] = &arguments[..] else {
        return Err("usage: xfs_replace IMAGE PATH CONTENT".into());
    };
    let device = Arc::new(FileDevice::open_writable(Path::new(image))?);
    let opened = (filesystem_xfs::FORMAT.open)(device.clone())?;
    let fs = &*opened.value;
    let inode = path::resolve(fs, file.as_bytes())?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now = Timestamp { seconds: i64::try_from(since.as_secs())?, nanoseconds: since.subsec_nanos() };
    let writable = fs.writable().ok_or("the image is read-only")?;
    match writable.replace(inode, &std::fs::read(content)?, now) {
        Ok(()) => println!("ok"),
        Err(error) => println!("refused: {error}"),
    }
    device.flush()?;
    Ok(())
}
