//! x
use blockdev::Device;
use filesystem::Replayed;
use ondisk::Result;
pub(crate) fn replay(device: Device) -> Result<Replayed> {
    Ok(Replayed { device, transactions: 0 })
}
