//! A Linux kernel as boot loaders load it: its header, its version, and whether all of it is there.
//!
//! Linux `Documentation/arch/x86/boot.rst`. Little-endian. The real-mode part ends `setup_sects` + 1 sectors of 512 bytes into the
//! file; `syssize` units of 16 bytes follow.

/// Bytes from the start of a file that [`KernelImage::parse`] wants, fewer where the file ends before.
pub const HEAD: usize = 68 << 10;

const SECTOR: u64 = 512;
/// Sectors of the real-mode part where the header says 0.
const OLD_SETUP_SECTORS: u8 = 4;

/// What a kernel's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelImage {
    /// What it is.
    pub kind: KernelKind,
    /// What `uname -r` will say: `6.1.0-18-amd64`.
    pub release: Option<String>,
    /// Bytes that the file must have at least.
    pub size: u64,
    /// Whether it can be started as an EFI program.
    pub has_efi_stub: bool,
    /// Whether it is for 64-bit processors.
    pub is_64_bit: bool,
}

/// The kinds of kernel files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelKind {
    /// x86: bzImage, loaded at 1 MiB.
    BzImage,
    /// x86: zImage, or a header older than 2.0.
    ZImage,
    /// ARM64 `Image`, which is not compressed.
    Arm64,
}

/// Why a file is no kernel that can be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// The beginning is there and not the rest.
    #[error("the kernel ends after {found} of {expected} bytes")]
    Truncated {
        /// Bytes in the file.
        found: u64,
        /// Bytes that its header asks for.
        expected: u64,
    },
    /// Something else.
    #[error("the file is not a kernel")]
    NotAKernel,
}

impl KernelImage {
    /// Judges a file of `file_size` bytes by its first [`HEAD`] bytes.
    ///
    /// # Errors
    /// [`KernelError`]: what keeps a boot loader or a processor from starting it.
    pub fn parse(head: &[u8], file_size: u64) -> Result<Self, KernelError> {
        if file_size == 0 {
            return Err(KernelError::Empty);
        }
        let image = match head.get(0x1fe..0x200) {
            Some([0x55, 0xaa]) => Self::x86(head),
            _ => Self::arm64(head),
        };
        let image = image.ok_or(KernelError::NotAKernel)?;
        if file_size < image.size {
            return Err(KernelError::Truncated { found: file_size, expected: image.size });
        }
        Ok(image)
    }

    fn x86(head: &[u8]) -> Option<Self> {
        let is_new = head.get(0x202..0x206)? == b"HdrS";
        let version = if is_new { u16_at(head, 0x206)? } else { 0 };
        let sectors = match *head.get(0x1f1)? {
            0 => OLD_SETUP_SECTORS,
            sectors => sectors,
        };
        let setup = (u64::from(sectors) + 1) * SECTOR;
        // Before 2.04 only 16 bits of the size were there.
        let units = if version >= 0x204 { u32_at(head, 0x1f4)? } else { u32::from(u16_at(head, 0x1f4)?) };
        let is_high = version >= 0x200 && head.get(0x211)? & 1 != 0;
        let load_flags = if version >= 0x20c { u16_at(head, 0x236)? } else { 0 };
        let text = match u16_at(head, 0x20e)? {
            0 => None,
            pointer if version >= 0x200 => head.get(0x200 + usize::from(pointer)..),
            _ => None,
        };
        Some(Self {
            kind: if is_high { KernelKind::BzImage } else { KernelKind::ZImage },
            release: text.and_then(release),
            size: setup + u64::from(units) * 16,
            has_efi_stub: head.starts_with(b"MZ"),
            is_64_bit: load_flags & 1 != 0,
        })
    }

    fn arm64(head: &[u8]) -> Option<Self> {
        if head.get(0x38..0x3c)? != b"ARM\x64" {
            return None;
        }
        let size = u64::from_le_bytes(head.get(0x10..0x18)?.try_into().ok()?);
        // The size in memory counts what is zero at first, too: the file may be shorter by that.
        let is_sane = size > 0;
        is_sane.then(|| Self {
            kind: KernelKind::Arm64,
            release: None,
            size: 0x40,
            has_efi_stub: head.starts_with(b"MZ"),
            is_64_bit: true,
        })
    }
}

/// The first word of a text that ends with NUL.
fn release(text: &[u8]) -> Option<String> {
    let word: Vec<u8> = text.iter().copied().take(256).take_while(u8::is_ascii_graphic).collect();
    String::from_utf8(word).ok().filter(|word| !word.is_empty())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a Debian kernel, 4 setup sectors and 1 MiB behind them.
    fn kernel() -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[..2].copy_from_slice(b"MZ");
        head[0x1f1] = 4;
        head[0x1f4..0x1f8].copy_from_slice(&0x1_0000_u32.to_le_bytes());
        head[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        head[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        head[0x211] = 1;
        head[0x236] = 0x3f;
        head[0x300..0x318].copy_from_slice(b"6.1.0-18-amd64 (debian)\0");
        head
    }

    const SIZE: u64 = 5 * 512 + 0x10_0000;

    #[test]
    fn a_kernel() {
        let image = KernelImage::parse(&kernel(), SIZE).unwrap();
        assert_eq!(image.kind, KernelKind::BzImage);
        assert_eq!(image.release.as_deref(), Some("6.1.0-18-amd64"));
        assert_eq!((image.size, image.has_efi_stub, image.is_64_bit), (SIZE, true, true));
    }

    #[test]
    fn no_kernels() {
        assert_eq!(KernelImage::parse(&[], 0), Err(KernelError::Empty));
        assert_eq!(KernelImage::parse(&[0; 4096], 4096), Err(KernelError::NotAKernel));
        assert_eq!(KernelImage::parse(b"short", 5), Err(KernelError::NotAKernel));
        let cut = KernelImage::parse(&kernel(), SIZE - 1);
        assert_eq!(cut, Err(KernelError::Truncated { found: SIZE - 1, expected: SIZE }));
        let mut wrong = kernel();
        wrong[0x1fe] = 0;
        assert_eq!(KernelImage::parse(&wrong, SIZE), Err(KernelError::NotAKernel));
    }

    #[test]
    fn a_version_outside_of_the_file_is_none() {
        let mut head = kernel();
        head[0x20e..0x210].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(KernelImage::parse(&head, SIZE).unwrap().release, None);
        head.truncate(0x250);
        assert_eq!(KernelImage::parse(&head, SIZE).unwrap().release, None);
    }
}
