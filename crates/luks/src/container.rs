//! An encrypted device: its header in both copies, and the way to its data.

use std::sync::Arc;

use blockdev::Device;
use ondisk::{Corrupt, Error, Parsed, Result};

use crate::header2::{self, Copy};
use crate::kdf::{Digest, Limits};
use crate::metadata::{self, Metadata, Segment};
use crate::unlock::{volume_key, work};
use crate::{Decrypted, Header, KeySlot, Locked, Secret, SectorCipher};

/// An encrypted device, closed.
#[derive(Debug, Clone)]
pub struct Container {
    /// 1 or 2.
    pub version: u16,
    /// As text.
    pub uuid: String,
    /// Version 2 only.
    pub label: Option<String>,
    /// Version 2 only; what a label is to users, this is to tools.
    pub subsystem: Option<String>,
    /// How the data is encrypted, as headers spell it: `aes-xts-plain64`; empty where that cannot be known.
    pub encryption: String,
    /// Bytes in a sector of the data: 512, 1024, 2048 or 4096.
    pub sector_size: u32,
    /// First byte of the data.
    pub offset: u64,
    /// Bytes of the data.
    pub size: u64,
    /// Those in use that make sense, in the order in which they are tried.
    pub key_slots: Vec<KeySlot>,
    /// The header's copies: one in version 1, two in version 2.
    pub copies: Vec<HeaderCopy>,
    /// Why the data cannot be read, whatever the key.
    pub obstacle: Option<String>,
    data: Option<(Digest, Segment)>,
}

/// One of the places where the header is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCopy {
    /// First byte.
    pub offset: u64,
    /// The higher is the newer; 0 in version 1.
    pub sequence_id: u64,
    /// Whether its contents are what is shown.
    pub is_used: bool,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Reads the header at the start of `device`; `None` where there is none.
///
/// # Errors
/// Damage that leaves neither copy; [`Error::Unsupported`] for another version or, in version 1, another hash.
pub fn read(device: &Device) -> Result<Option<Parsed<Container>>> {
    match header2::version(device.as_ref())? {
        None => Ok(None),
        Some(1) => version1(device).map(Some),
        Some(2) => version2(device).map(Some),
        Some(other) => Err(Error::unsupported("LUKS header", format!("version {other}"))),
    }
}

/// Reads the second copy of a version 2 header on a device whose first copy is gone; `None` where there is none.
///
/// # Errors
/// As [`read`].
pub fn read_secondary(device: &Device) -> Result<Option<Parsed<Container>>> {
    match header2::find_secondary(device.as_ref())? {
        None => Ok(None),
        Some(_) => version2(device).map(Some),
    }
}

fn version1(device: &Device) -> Result<Parsed<Container>> {
    let header = Header::read(device.as_ref(), 0)?;
    let mut problems = Vec::new();
    let segment = Segment {
        offset: header.payload_offset,
        size: None,
        sector_size: 512,
        iv_tweak: 0,
        cipher: header.cipher,
        mode: header.mode,
    };
    let obstacle = (header.payload_offset == 0).then(|| "a detached header".to_owned());
    if header.payload_offset >= device.size() {
        let expected = format!("below {}", device.size());
        problems
            .push(Corrupt::new("LUKS header", 0, "payload-offset", expected, header.payload_offset).into());
    }
    let copy = HeaderCopy { offset: 0, sequence_id: 0, is_used: true, problem: None };
    let value = Container {
        version: 1,
        uuid: header.uuid,
        label: None,
        subsystem: None,
        encryption: format!("{}-{}", segment.cipher, segment.mode),
        sector_size: 512,
        offset: segment.offset,
        size: device.size().saturating_sub(segment.offset) & !511,
        key_slots: header.key_slots,
        copies: vec![copy],
        obstacle,
        data: Some((header.digest, segment)),
    };
    Ok(Parsed { value, problems })
}

fn version2(device: &Device) -> Result<Parsed<Container>> {
    let primary = Copy::read(device.as_ref(), 0);
    // A good first copy says where the second one is; else it is searched.
    let place = match &primary {
        Ok(copy) => copy.size,
        Err(_) => header2::find_secondary(device.as_ref())?.unwrap_or(header2::SIZES[0]),
    };
    let secondary = Copy::read(device.as_ref(), place);
    let mut problems = Vec::new();
    let mut copies = Vec::new();
    for (offset, copy) in [(0, &primary), (place, &secondary)] {
        copies.push(HeaderCopy {
            offset,
            sequence_id: copy.as_ref().map_or(0, |copy| copy.sequence_id),
            is_used: false,
            problem: copy.as_ref().err().map(ToString::to_string),
        });
    }
    let (first, second) = match (primary, secondary) {
        (Ok(primary), Ok(secondary)) if secondary.sequence_id > primary.sequence_id => {
            problems.push(stale(0, secondary.sequence_id, primary.sequence_id));
            ((1, secondary), Some((0, primary)))
        }
        (Ok(primary), Ok(secondary)) => {
            if primary.sequence_id > secondary.sequence_id {
                problems.push(stale(place, primary.sequence_id, secondary.sequence_id));
            } else if primary.json != secondary.json {
                let expected = "the same in both copies";
                problems.push(Corrupt::new("LUKS2 metadata", place, "text", expected, "two texts").into());
            }
            ((0, primary), Some((1, secondary)))
        }
        (Ok(primary), Err(error)) => {
            problems.push(error);
            ((0, primary), None)
        }
        (Err(error), Ok(secondary)) => {
            problems.push(error);
            ((1, secondary), None)
        }
        (Err(primary), Err(_)) => return Err(primary),
    };
    // The text of a copy may be useless though its checksum is right; then the other one may do.
    let mut last = None;
    for (index, copy) in [Some(first), second].into_iter().flatten() {
        let at = copies.get(index).map_or(0, |copy| copy.offset).saturating_add(4096);
        match metadata::parse(&copy.json, at, copy.size, device.size(), &mut problems) {
            Ok(metadata) => {
                if let Some(used) = copies.get_mut(index) {
                    used.is_used = true;
                }
                return Ok(Parsed { value: container2(copy, metadata, device, copies), problems });
            }
            Err(error) => {
                if let Some(copy) = copies.get_mut(index) {
                    copy.problem = Some(error.to_string());
                }
                problems.extend(last.replace(error));
            }
        }
    }
    Err(last.unwrap_or_else(|| Corrupt::new("LUKS2 metadata", 4096, "text", "metadata", "none").into()))
}

fn stale(at: u64, newest: u64, found: u64) -> Error {
    Corrupt::new("LUKS2 header", at, "seqid", newest, found).into()
}

fn container2(copy: Copy, metadata: Metadata, device: &Device, copies: Vec<HeaderCopy>) -> Container {
    let mut container = Container {
        version: 2,
        uuid: copy.uuid,
        label: copy.label,
        subsystem: copy.subsystem,
        encryption: String::new(),
        sector_size: 512,
        offset: 0,
        size: 0,
        key_slots: metadata.slots,
        copies,
        obstacle: metadata.obstacle,
        data: None,
    };
    if let Some(segment) = metadata.segment {
        let sector = u64::from(segment.sector_size.max(1));
        let size = segment.size.unwrap_or_else(|| device.size().saturating_sub(segment.offset));
        container.encryption = format!("{}-{}", segment.cipher, segment.mode);
        container.sector_size = segment.sector_size;
        container.offset = segment.offset;
        container.size = size.saturating_sub(size.checked_rem(sector).unwrap_or(0));
        container.data = metadata.digest.map(|digest| (digest, segment));
    }
    container
}

impl Container {
    /// Opens the data with `passphrase`; also says which key slot it was.
    ///
    /// # Errors
    /// [`Locked`].
    pub fn unlock(
        &self,
        device: &Device,
        passphrase: &[u8],
        limits: Limits,
    ) -> std::result::Result<(u32, Device), Locked> {
        let (slot, key) = self.volume_key(device, passphrase, limits)?;
        Ok((slot, self.open(device, &key)?))
    }

    /// What a wrong passphrase costs: iterations of PBKDF2, and KiB that Argon2 fills.
    pub fn work(&self) -> (u64, u64) {
        self.digest().map_or((0, 0), |digest| work(&self.key_slots, digest))
    }

    pub(crate) fn volume_key(
        &self,
        device: &Device,
        passphrase: &[u8],
        limits: Limits,
    ) -> std::result::Result<(u32, Secret), Locked> {
        let (digest, _) = self.data()?;
        volume_key(&self.key_slots, digest, device.as_ref(), 0, passphrase, limits)
    }

    /// What names the volume key among all others.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.data.as_ref().map(|(digest, _)| digest)
    }

    /// The data under its volume key.
    pub(crate) fn open(&self, device: &Device, key: &Secret) -> std::result::Result<Device, Locked> {
        let (_, segment) = self.data()?;
        let cipher = SectorCipher::new(&segment.cipher, &segment.mode, key)?;
        let sector_size = segment.sector_size;
        let cipher = cipher
            .with_sector_size(sector_size)
            .ok_or_else(|| Locked::Unsupported(format!("a sector of {sector_size} bytes")))?;
        let decrypted = Decrypted::new(device.clone(), self.offset, self.size, cipher, segment.iv_tweak);
        Ok(Arc::new(decrypted))
    }

    fn data(&self) -> std::result::Result<&(Digest, Segment), Locked> {
        if let Some(obstacle) = &self.obstacle {
            return Err(Locked::Unsupported(obstacle.clone()));
        }
        self.data.as_ref().ok_or_else(|| Locked::Unsupported("a header that describes no data".into()))
    }
}
