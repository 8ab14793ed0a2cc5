//! The JSON text of a LUKS version 2 header: key slots, segments, digests.
//!
//! LUKS2 On-Disk Format Specification 1.1.3, §3. Numbers of 64 bits are strings of decimal digits; binary values are
//! Base64.

use base64ct::{Base64, Encoding};
use ondisk::{Corrupt, Error, Result};
use serde_json::Value;

use crate::kdf::{Digest, Kdf};
use crate::slot::KeySlot;
use crate::{Hash, slot};

const STRUCTURE: &str = "LUKS2 metadata";

/// More slots than any tool makes (32).
const MAX_SLOTS: usize = 64;

/// Salts and digests are some tens of bytes.
const MAX_BINARY: usize = 1024;

/// The encrypted part of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    /// Bytes; `None` is up to the end of the device.
    pub(crate) size: Option<u64>,
    pub(crate) sector_size: u32,
    /// Added to the number of every sector, in units of 512 bytes.
    pub(crate) iv_tweak: u64,
    pub(crate) cipher: String,
    pub(crate) mode: String,
}

/// What the text says, as far as it is needed to read the data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) segment: Option<Segment>,
    pub(crate) digest: Option<Digest>,
    pub(crate) slots: Vec<KeySlot>,
    /// Why the data cannot be read, whatever the key.
    pub(crate) obstacle: Option<String>,
}

/// Reads the text; `header` is the size of one copy of the header, `device` that of the device, `at` the first byte of
/// the text.
///
/// # Errors
/// The text is no JSON object, or its segment or digest makes no sense. A slot that makes no sense is left out and
/// named in `problems`.
pub(crate) fn parse(
    json: &[u8],
    at: u64,
    header: u64,
    device: u64,
    problems: &mut Vec<Error>,
) -> Result<Metadata> {
    let corrupt = |field, expected: &str, found: String| -> Error {
        Corrupt::new(STRUCTURE, at, field, expected, found).into()
    };
    let root: Value =
        serde_json::from_slice(json).map_err(|error| corrupt("text", "JSON", error.to_string()))?;
    if !root.is_object() {
        return Err(corrupt("text", "an object", kind(&root).into()));
    }
    let mut metadata = Metadata { obstacle: obstacle(&root), ..Metadata::default() };
    let Some((number, segment)) = data_segment(&root, &mut metadata.obstacle) else { return Ok(metadata) };
    if let Some(obstacle) = segment_obstacle(segment) {
        metadata.obstacle.get_or_insert(obstacle);
        return Ok(metadata);
    }
    let segment = read_segment(segment)
        .ok_or_else(|| corrupt("segments", "offset, size, encryption", number.clone()))?;
    let end = segment.offset.checked_add(segment.size.unwrap_or(0));
    if segment.offset < header || end.is_none_or(|end| end > device) {
        let expected = format!("within {header}..{device}");
        return Err(corrupt("segments", &expected, format!("{} + {:?}", segment.offset, segment.size)));
    }
    metadata.segment = Some(segment);
    // A digest says which slots hold the key of which segments.
    let digests = root.get("digests").and_then(Value::as_object);
    let digest = digests.into_iter().flatten().find(|(_, digest)| lists(digest, "segments", &number));
    let Some((name, digest)) = digest else {
        return Err(corrupt("digests", "one for the segment", format!("none for {number}")));
    };
    let proof = read_digest(digest);
    metadata.digest = Some(
        proof.ok_or_else(|| corrupt("digests", "type pbkdf2 with hash, salt, iterations", name.clone()))?,
    );
    let slots = root.get("keyslots").and_then(Value::as_object);
    for (name, slot) in slots.into_iter().flatten().take(MAX_SLOTS) {
        if !lists(digest, "keyslots", name) {
            continue;
        }
        match read_slot(name, slot, header, device) {
            Ok(slot) => metadata.slots.push(slot),
            Err(reason) => problems.push(corrupt(
                "keyslots",
                "a slot that can be used",
                format!("slot {name}: {reason}"),
            )),
        }
    }
    // Slots that must not be used unless asked for come last.
    metadata
        .slots
        .sort_by_key(|slot| (slot.priority == 0, u8::MAX.saturating_sub(slot.priority), slot.number));
    Ok(metadata)
}

/// What forbids reading as a whole.
fn obstacle(root: &Value) -> Option<String> {
    let mandatory = root.pointer("/config/requirements/mandatory").and_then(Value::as_array)?;
    // An offline re-encryption marks its state nowhere else; the online one says more in its segments.
    let named: Vec<&str> = mandatory.iter().filter_map(Value::as_str).collect();
    (!named.is_empty()).then(|| format!("the header requires {}", named.join(", ")))
}

/// The one segment that is the device's data.
fn data_segment<'a>(root: &'a Value, obstacle: &mut Option<String>) -> Option<(String, &'a Value)> {
    let all = root.get("segments").and_then(Value::as_object);
    let mut data = all.into_iter().flatten().filter(|(_, segment)| {
        // Backup segments describe the state before or after a re-encryption.
        !flags(segment).any(|flag| flag.starts_with("backup-"))
    });
    let first = data.next().map(|(number, segment)| (number.clone(), segment));
    if first.is_none() {
        obstacle.get_or_insert_with(|| "the header describes no data".into());
    } else if data.next().is_some() {
        obstacle.get_or_insert_with(|| "several data segments".into());
        return None;
    }
    first
}

fn segment_obstacle(segment: &Value) -> Option<String> {
    let kind = segment.get("type").and_then(Value::as_str).unwrap_or("no type");
    if kind != "crypt" {
        return Some(format!("a segment of type {kind}"));
    }
    if let Some(integrity) = segment.get("integrity") {
        let name = integrity.get("type").and_then(Value::as_str).unwrap_or("unknown");
        return Some(format!("integrity protection ({name})"));
    }
    let flag = flags(segment).find(|flag| *flag == "in-reencryption")?;
    Some(format!("a segment with the flag {flag}"))
}

fn flags(segment: &Value) -> impl Iterator<Item = &str> {
    segment.get("flags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn read_segment(segment: &Value) -> Option<Segment> {
    let size = match segment.get("size").and_then(Value::as_str)? {
        "dynamic" => None,
        size => Some(size.parse().ok()?),
    };
    let (cipher, mode) = encryption(segment)?;
    Some(Segment {
        offset: number(segment, "offset")?,
        size,
        sector_size: u32::try_from(segment.get("sector_size").and_then(Value::as_u64)?).ok()?,
        iv_tweak: number(segment, "iv_tweak")?,
        cipher,
        mode,
    })
}

fn read_digest(digest: &Value) -> Option<Digest> {
    if digest.get("type").and_then(Value::as_str) != Some("pbkdf2") {
        return None;
    }
    let digest = Digest {
        hash: hash(digest)?,
        iterations: small(digest, "iterations").filter(|iterations| *iterations > 0)?,
        salt: binary(digest, "salt")?,
        value: binary(digest, "digest")?,
    };
    // A digest of a few bytes would be proved by any key.
    (digest.value.len() >= 16).then_some(digest)
}

fn read_slot(name: &str, slot: &Value, header: u64, device: u64) -> std::result::Result<KeySlot, String> {
    let missing = |field: &str| format!("no usable {field}");
    let kind = slot.get("type").and_then(Value::as_str).unwrap_or("no type");
    if kind != "luks2" {
        return Err(format!("type {kind}"));
    }
    let af = slot.get("af").ok_or_else(|| missing("af"))?;
    if af.get("type").and_then(Value::as_str) != Some("luks1") {
        return Err(missing("af"));
    }
    let area = slot.get("area").ok_or_else(|| missing("area"))?;
    let (area_cipher, area_mode) = encryption(area).ok_or_else(|| missing("area encryption"))?;
    let key_length = small(slot, "key_size").ok_or_else(|| missing("key_size"))?;
    let stripes = small(af, "stripes").ok_or_else(|| missing("stripes"))?;
    let found = KeySlot {
        number: name.parse().map_err(|_| missing("number"))?,
        priority: slot
            .get("priority")
            .and_then(Value::as_u64)
            .map_or(1, |priority| u8::from(priority > 0).saturating_add(u8::from(priority > 1))),
        kdf: slot.get("kdf").and_then(read_kdf).ok_or_else(|| missing("kdf"))?,
        key_length: usize::try_from(key_length).unwrap_or(usize::MAX),
        area_key_length: usize::try_from(small(area, "key_size").ok_or_else(|| missing("area key_size"))?)
            .unwrap_or(usize::MAX),
        stripes,
        stripe_hash: hash(af).ok_or_else(|| missing("af hash"))?,
        area_offset: number(area, "offset").ok_or_else(|| missing("area offset"))?,
        area_cipher,
        area_mode,
    };
    let size = number(area, "size").ok_or_else(|| missing("area size"))?;
    // Both copies of the header lie in front of the key slots.
    if found.area_offset < header.saturating_mul(2)
        || found.material_length().is_none_or(|length| length > size)
    {
        return Err(missing("area"));
    }
    slot::check(&found, device).ok_or_else(|| missing("area"))?;
    Ok(found)
}

fn read_kdf(kdf: &Value) -> Option<Kdf> {
    let salt = binary(kdf, "salt")?;
    match kdf.get("type").and_then(Value::as_str)? {
        "pbkdf2" => {
            let iterations = small(kdf, "iterations").filter(|iterations| *iterations > 0)?;
            Some(Kdf::Pbkdf2 { hash: hash(kdf)?, iterations, salt })
        }
        name @ ("argon2i" | "argon2id") => Some(Kdf::Argon2 {
            is_id: name == "argon2id",
            time: small(kdf, "time")?,
            memory: small(kdf, "memory")?,
            lanes: small(kdf, "cpus")?,
            salt,
        }),
        _ => None,
    }
}

fn lists(object: &Value, key: &str, name: &str) -> bool {
    let list = object.get(key).and_then(Value::as_array);
    list.is_some_and(|list| list.iter().any(|entry| entry.as_str() == Some(name)))
}

/// A number of 64 bits, which is a string.
fn number(object: &Value, key: &str) -> Option<u64> {
    object.get(key)?.as_str()?.parse().ok()
}

fn small(object: &Value, key: &str) -> Option<u32> {
    u32::try_from(object.get(key)?.as_u64()?).ok()
}

fn hash(object: &Value) -> Option<Hash> {
    Hash::named(object.get("hash")?.as_str()?)
}

fn binary(object: &Value, key: &str) -> Option<Vec<u8>> {
    let text = object.get(key)?.as_str()?;
    if text.len() > MAX_BINARY {
        return None;
    }
    Base64::decode_vec(text).ok().filter(|bytes| !bytes.is_empty())
}

/// `aes-xts-plain64`, cut behind the cipher.
fn encryption(object: &Value) -> Option<(String, String)> {
    let (cipher, mode) = object.get("encryption")?.as_str()?.split_once('-')?;
    Some((cipher.to_owned(), mode.to_owned()))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
