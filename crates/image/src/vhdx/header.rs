//! VHDX header: which state of the file is the present one, and whether its log must be replayed.
//!
//! MS-VHDX §2.2.2. Little-endian; offsets and lengths are bytes. There are two copies. The valid one with the
//! higher sequence number counts, and the other is overwritten, so that a torn write loses nothing.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Result, crc32c, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::geometry::{HEADER_SECTION, MIB, SECTOR_SIZE};
use super::guid::stored;

/// Where the copies lie.
pub(super) const OFFSETS: [u64; 2] = [64 << 10, 128 << 10];

pub(super) const STRUCTURE: &str = "VHDX header";

/// The header as stored, without the reserved bytes up to 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    /// 0x00 `head`.
    signature: [u8; 4],
    /// 0x04 CRC-32C over 4 KiB, with this field zero.
    checksum: le::U32,
    /// 0x08 the higher one counts.
    sequence_number: le::U64,
    /// 0x10 another one after each opening for writing.
    file_write_guid: [u8; 16],
    /// 0x20 another one after each change of the disk; a child records it.
    data_write_guid: [u8; 16],
    /// 0x30 that of all valid log entries; zero while there are none.
    log_guid: [u8; 16],
    /// 0x40 0.
    log_version: le::U16,
    /// 0x42 1.
    version: le::U16,
    /// 0x44 a multiple of 1 MiB.
    log_length: le::U32,
    /// 0x48 a multiple of 1 MiB.
    log_offset: le::U64,
}
const _: () = assert!(size_of::<RawHeader>() == 80);

/// A header whose checksum fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) file_write: Guid,
    pub(super) data_write: Guid,
    /// Nil while the log is empty.
    pub(super) log_guid: Guid,
    pub(super) log_version: u16,
    pub(super) log_offset: u64,
    pub(super) log_length: u64,
}

impl Header {
    /// Judges the 4 KiB at byte `at`.
    pub(super) fn decode(bytes: &[u8; SECTOR_SIZE], at: u64) -> Result<Self> {
        let (raw, _) = RawHeader::read_from_prefix(bytes)
            .unwrap_or_else(|_| unreachable!("the layout is shorter than 4 KiB"));
        if raw.signature != *b"head" {
            let found = format_args!("{:02x?}", raw.signature).to_string();
            return Err(Corrupt::new(STRUCTURE, at, "Signature", "`head`", found).into());
        }
        let computed = checksum(*bytes);
        if computed != raw.checksum.get() {
            return Err(Corrupt::checksum(STRUCTURE, at, computed, raw.checksum.get()).into());
        }
        if raw.version.get() != 1 {
            return Err(Error::unsupported(STRUCTURE, format!("version {}", raw.version)));
        }
        Ok(Self {
            sequence: raw.sequence_number.get(),
            file_write: Guid::from_mixed_endian(raw.file_write_guid),
            data_write: Guid::from_mixed_endian(raw.data_write_guid),
            log_guid: Guid::from_mixed_endian(raw.log_guid),
            log_version: raw.log_version.get(),
            log_offset: raw.log_offset.get(),
            log_length: raw.log_length.get().into(),
        })
    }

    /// The 4 KiB of this header.
    pub(super) fn encode(&self) -> [u8; SECTOR_SIZE] {
        let mut raw = RawHeader {
            signature: *b"head",
            checksum: 0.into(),
            sequence_number: self.sequence.into(),
            file_write_guid: stored(self.file_write),
            data_write_guid: stored(self.data_write),
            log_guid: stored(self.log_guid),
            log_version: self.log_version.into(),
            version: 1.into(),
            // It was decoded from 32 bits, or is 1 MiB.
            log_length: u32::try_from(self.log_length).unwrap_or(u32::MAX).into(),
            log_offset: self.log_offset.into(),
        };
        raw.checksum = checksum(padded(&raw)).into();
        padded(&raw)
    }

    /// Whether the log holds changes that may not be in place yet.
    pub(super) fn is_log_active(&self) -> bool {
        !self.log_guid.is_nil()
    }

    /// Judges the place of the log in a file of `file_size` bytes.
    pub(super) fn check_log(&self, at: u64, file_size: u64) -> std::result::Result<(), Corrupt> {
        let Self { log_offset, log_length, .. } = *self;
        if !log_offset.is_multiple_of(MIB) || log_offset < HEADER_SECTION {
            let expected = "a multiple of 1 MiB behind the first";
            return Err(Corrupt::new(STRUCTURE, at, "LogOffset", expected, format_args!("{log_offset:#x}")));
        }
        let ends_in_file = log_offset.checked_add(log_length).is_some_and(|end| end <= file_size);
        if !log_length.is_multiple_of(MIB) || log_length == 0 || !ends_in_file {
            let expected = format_args!("a multiple of 1 MiB that ends before {file_size:#x}").to_string();
            return Err(Corrupt::new(STRUCTURE, at, "LogLength", expected, format_args!("{log_length:#x}")));
        }
        Ok(())
    }
}

fn padded(raw: &RawHeader) -> [u8; SECTOR_SIZE] {
    let mut bytes = [0; SECTOR_SIZE];
    bytes.iter_mut().zip(raw.as_bytes()).for_each(|(to, from)| *to = *from);
    bytes
}

fn checksum(mut bytes: [u8; SECTOR_SIZE]) -> u32 {
    if let Some(field) = bytes.get_mut(4..8) {
        field.fill(0);
    }
    crc32c(&bytes)
}

/// Both copies, each with its verdict.
#[derive(Debug)]
pub(super) struct Headers {
    pub(super) copies: [Result<Header>; 2],
}

impl Headers {
    /// Reads both copies. A copy that the file is too short for is damaged, and no error of the host.
    pub(super) fn read(device: &dyn BlockDevice) -> Result<Self> {
        let copy = |at: u64| -> Result<Result<Header>> {
            let length = device.size().saturating_sub(at);
            if length < 4096 {
                return Ok(Err(
                    Corrupt::new(STRUCTURE, at, "length", "4096 bytes in the file", length).into()
                ));
            }
            let mut sector = [0; SECTOR_SIZE];
            let failed = |source| Error::Io { offset: at, length: 4096, source };
            device.read_exact_at(&mut sector, at).map_err(failed)?;
            Ok(Header::decode(&sector, at))
        };
        let [first, second] = OFFSETS;
        Ok(Self { copies: [copy(first)?, copy(second)?] })
    }

    /// The number of the copy that counts, and its content.
    ///
    /// # Errors
    /// Damage when there is none, which names what is wrong with each.
    pub(super) fn current(&self) -> Result<(usize, Header)> {
        let [at, _] = OFFSETS;
        match &self.copies {
            [Ok(first), Ok(second)] if first.sequence < second.sequence => Ok((1, *second)),
            // Disk2vhd writes two that are alike.
            [Ok(first), Ok(second)] if first.sequence == second.sequence && first != second => {
                let expected = "another one in each of two headers that differ";
                Err(Corrupt::new(STRUCTURE, at, "SequenceNumber", expected, first.sequence).into())
            }
            [Ok(first), _] => Ok((0, *first)),
            [Err(_), Ok(second)] => Ok((1, *second)),
            [Err(Error::Unsupported { structure, feature }), Err(_)]
            | [Err(_), Err(Error::Unsupported { structure, feature })] => {
                Err(Error::unsupported(structure, feature))
            }
            [Err(first), Err(second)] => Err(Corrupt::new(
                STRUCTURE,
                at,
                "copies",
                "one that is valid",
                format_args!("{first}; {second}"),
            )
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;

    fn header(sequence: u64) -> Header {
        Header {
            sequence,
            file_write: Guid([1; 16]),
            data_write: Guid([2; 16]),
            log_guid: Guid::NIL,
            log_version: 0,
            log_offset: MIB,
            log_length: MIB,
        }
    }

    fn current(copies: [&[u8]; 2]) -> String {
        let mut bytes = vec![0; 256 << 10];
        for (at, copy) in OFFSETS.iter().zip(copies) {
            bytes[*at as usize..][..copy.len()].copy_from_slice(copy);
        }
        match Headers::read(&MemoryDevice::new(bytes)).unwrap().current() {
            Ok((number, header)) => format!("copy {number}, sequence {}", header.sequence),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn encoding_and_decoding_agree() {
        let header = header(7);
        assert_eq!(Header::decode(&header.encode(), 0).unwrap(), header);
    }

    #[test]
    fn the_higher_valid_sequence_counts() {
        let [old, new] = [6, 7].map(|sequence| header(sequence).encode());
        assert_eq!(current([&old, &new]), "copy 1, sequence 7");
        assert_eq!(current([&new, &old]), "copy 0, sequence 7");
        assert_eq!(current([&new, &new]), "copy 0, sequence 7");
        let mut torn = new;
        torn[100] = 1;
        assert_eq!(current([&old, &torn]), "copy 0, sequence 6");
        assert_eq!(current([&torn, &old]), "copy 1, sequence 6");
        let other = Header { log_guid: Guid([3; 16]), ..header(7) }.encode();
        let said = current([&new, &other]);
        assert!(said.contains("SequenceNumber is 7"), "{said}");
        let said = current([&torn, &[]]);
        assert!(said.contains("checksum") && said.contains("Signature"), "{said}");
        let mut version = Header::encode(&header(9));
        version[66] = 2;
        let sum = checksum(version);
        version[4..8].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(current([&version, &[]]), "VHDX header: version 2 is not supported");
        assert_eq!(current([&version, &old]), "copy 1, sequence 6");
    }

    #[test]
    fn a_short_file_has_no_second_copy() {
        let mut bytes = vec![0; 64 << 10];
        bytes.extend_from_slice(&header(3).encode());
        let headers = Headers::read(&MemoryDevice::new(bytes)).unwrap();
        assert_eq!(headers.current().unwrap().0, 0);
        assert!(headers.copies[1].is_err());
    }

    #[test]
    fn the_log_lies_in_the_file_behind_the_headers() {
        let check = |log_offset, log_length| {
            Header { log_offset, log_length, ..header(1) }.check_log(0, 3 * MIB).map_err(|error| error.field)
        };
        assert_eq!(check(MIB, MIB), Ok(()));
        assert_eq!(check(2 * MIB, MIB), Ok(()));
        assert_eq!(check(0, MIB), Err("LogOffset"));
        assert_eq!(check(MIB + 4096, MIB), Err("LogOffset"));
        assert_eq!(check(MIB, 0), Err("LogLength"));
        assert_eq!(check(2 * MIB, 2 * MIB), Err("LogLength"));
        assert_eq!(check(u64::MAX - MIB + 1, MIB), Err("LogLength"));
    }
}
