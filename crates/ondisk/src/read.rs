//! Bounded reads: nothing is allocated for a length that the device cannot hold.

use blockdev::BlockDevice;
use zerocopy::FromBytes;

use crate::{Error, Result};

/// Lengths that are allocated without asking whether there is memory for them.
const SMALL: usize = 1 << 20;

/// The bytes `offset..offset + length` of `device`.
///
/// # Errors
/// [`Error::Io`] when the range does not lie within the device (checked before anything is allocated) or
/// cannot be read.
pub fn read_bytes(device: &dyn BlockDevice, offset: u64, length: usize) -> Result<Vec<u8>> {
    let failed = |source| Error::Io { offset, length: length as u64, source };
    blockdev::check_range(device.size(), offset, length as u64).map_err(failed)?;
    let mut bytes = Vec::new();
    if length <= SMALL {
        // Zeroed by the allocator; `resize` without optimisation goes byte by byte.
        bytes = vec![0; length];
    } else {
        bytes
            .try_reserve_exact(length)
            .map_err(|e| failed(std::io::Error::new(std::io::ErrorKind::OutOfMemory, e)))?;
        bytes.resize(length, 0);
    }
    device.read_exact_at(&mut bytes, offset).map_err(failed)?;
    Ok(bytes)
}

/// The raw layout `T` at byte `offset` of `device`.
///
/// # Errors
/// As [`read_bytes`].
pub fn read_value<T: FromBytes>(device: &dyn BlockDevice, offset: u64) -> Result<T> {
    let bytes = read_bytes(device, offset, size_of::<T>())?;
    Ok(T::read_from_bytes(&bytes)
        .unwrap_or_else(|_| unreachable!("the buffer was made as long as the layout")))
}
