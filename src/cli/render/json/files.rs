//! Files of a guest in JSON.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct StatJson {
    pub(crate) image: String,
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) inode: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Bytes on the device.
    pub(crate) allocated: u64,
    pub(crate) links: u32,
    /// Octal, four digits.
    pub(crate) mode: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970-01-01 00:00 UTC, as the next two.
    pub(crate) modified: i64,
    pub(crate) changed: i64,
    pub(crate) accessed: i64,
    /// Major and minor number of a device node.
    pub(crate) device: Option<[u32; 2]>,
    pub(crate) target: Option<String>,
    pub(crate) xattrs: Vec<XattrJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct XattrJson {
    pub(crate) name: String,
    /// Text, or `0x` and hexadecimal digits.
    pub(crate) value: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct FoundFiles {
    pub(crate) image: String,
    pub(crate) files: Vec<FoundFile>,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct FoundFile {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Copied {
    pub(crate) image: String,
    pub(crate) path: String,
    pub(crate) target: String,
    pub(crate) files: usize,
    pub(crate) problems: Vec<String>,
}
