//! x
use crate::disk::Disk;
use filesystem::Timestamp;
use ondisk::{Error, Result};
pub(crate) fn replace(_: &Disk, _: u32, _: &[u8], _: Timestamp) -> Result<()> {
    Err(Error::unsupported("x", "y"))
}
