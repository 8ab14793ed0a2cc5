//! Another backing file for an image: its name in the header, and the extension that states its format.

use ondisk::read_bytes;
use zerocopy::{FromBytes, IntoBytes};

use super::geometry::length_of;
use super::header::{MAX_BACKING_NAME, RawHeader, encode_extensions, extension, feature};
use super::{Extension, Header};
use crate::open::Source;
use crate::{ImageFormat, Patch, Result};

/// One patch of the first cluster: header fields, extensions, name.
pub(super) fn rename_parent(source: &Source, name: &[u8], format: &ImageFormat) -> Result<Vec<Patch>> {
    let failed = source.failed("qcow2");
    let header = Header::read(&*source.device).map_err(&failed)?.value;
    let refused = |reason: &str| source.not_renamable(name, reason);
    if header.extension(extension::DATA_FILE).is_some()
        && header.autoclear_features & feature::RAW_DATA_FILE != 0
    {
        return Err(refused("its data file is the whole disk"));
    }
    let start = read_bytes(&*source.device, 0, size_of::<RawHeader>()).map_err(&failed)?;
    let mut raw = RawHeader::read_from_bytes(&start).map_err(|_| refused("its header is too short"))?;
    let header_length = if header.version == 2 { 72 } else { u64::from(raw.header_length.get()) };
    let mut extensions: Vec<Extension> = Vec::new();
    extensions
        .push(Extension { kind: extension::BACKING_FORMAT, data: format.qemu_name.as_bytes().to_vec() });
    extensions
        .extend(header.extensions.iter().filter(|known| known.kind != extension::BACKING_FORMAT).cloned());
    let area = encode_extensions(&extensions);
    let name_offset = header_length.saturating_add(length_of(&area));
    let end = name_offset.saturating_add(length_of(name));
    if end > header.cluster_size() || length_of(name) > u64::from(MAX_BACKING_NAME) {
        return Err(refused("the name does not fit into the first cluster"));
    }
    raw.backing_file_offset = name_offset.into();
    raw.backing_file_size = u32::try_from(name.len()).unwrap_or(0).into();
    // Fields beyond the stored length belong to the extensions.
    let fields = usize::try_from(header_length).unwrap_or(usize::MAX).min(size_of::<RawHeader>());
    let mut bytes = raw.as_bytes().get(..fields).unwrap_or_default().to_vec();
    if length_of(&bytes) < header_length {
        let rest = usize::try_from(header_length).unwrap_or(usize::MAX);
        let whole = read_bytes(&*source.device, 0, rest).map_err(&failed)?;
        bytes.extend_from_slice(whole.get(fields..).unwrap_or_default());
    }
    bytes.extend_from_slice(&area);
    bytes.extend_from_slice(name);
    // Old names and extensions behind the new ones must not be taken for any.
    let old_end = header.backing.as_ref().map_or(0, |backing| {
        let offset = u64::from_be_bytes(*start.get(8..16).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 8]));
        offset.saturating_add(length_of(&backing.name))
    });
    let length = usize::try_from(old_end.min(header.cluster_size())).unwrap_or(0).max(bytes.len());
    bytes.resize(length, 0);
    Ok(vec![Patch { file: 0, offset: 0, bytes }])
}
