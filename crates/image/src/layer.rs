//! What a chain is made of: one file each, described, and asked for what it holds itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use blockdev::BlockDevice;

/// One file of a chain.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The file; `None` for a device that the caller opened without a name.
    pub path: Option<PathBuf>,
    /// The name of its format.
    pub format: &'static str,
    /// Length of the disk that it describes, in bytes.
    pub virtual_size: u64,
    /// Length of the file in bytes.
    pub file_size: u64,
    /// Other files that hold data of this layer.
    pub data_files: Vec<PathBuf>,
    /// Plain facts: version, cluster size, compression.
    pub features: Vec<String>,
    /// Facts that a person should know before relying on this file.
    pub notes: Vec<String>,
    /// Whether the file says of itself that it is damaged and must not be written, as a qcow2 image does by its corrupt bit. QEMU
    /// does not start a machine with it.
    pub is_marked_corrupt: bool,
    /// Whether guest data is encrypted in this file.
    pub is_encrypted: bool,
    /// Internal snapshots, for [`Options::snapshot`](crate::Options::snapshot).
    pub snapshots: Vec<Snapshot>,
    /// What a child records to know this file again: `CID 0badcafe`, `UUID …`. `None` where the format has
    /// nothing of the kind.
    pub identity: Option<String>,
    /// What this file says of the layer below it, whether or not that was found.
    pub parent: Option<ParentLink>,
    /// The disk from this layer downwards; `None` until it is open.
    pub disk: Option<Arc<dyn LayerDisk>>,
}

/// A state of the disk that is kept inside the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Unique identifier, most often a small number.
    pub id: String,
    /// The name that a person gave.
    pub name: String,
    /// When it was taken, in seconds since the Epoch.
    pub taken: u64,
    /// Length of the disk at that time, in bytes.
    pub virtual_size: u64,
    /// Length of the saved state of the running machine, in bytes; 0 for a snapshot of the disk alone.
    pub vm_state_size: u64,
}

/// How a file names the layer below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentLink {
    /// Names in the order in which they are tried, as bytes of a host path. Windows paths are already turned
    /// into names of siblings.
    pub names: Vec<Vec<u8>>,
    /// The format below, if stated or implied.
    pub format: Option<String>,
    /// The [`Layer::identity`] that the file below must have.
    pub identity: Option<String>,
}

/// The disk from one layer downwards, which can also say what this layer alone holds.
pub trait LayerDisk: BlockDevice {
    /// The run that starts at byte `offset` of the disk, by what this layer's own file says.
    ///
    /// At least one byte long, and within the disk; the next run may be of the same kind.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when `offset` is at or past the end; damage of the tables.
    fn own_run_at(&self, offset: u64) -> io::Result<OwnRun>;
}

/// Bytes of a disk with one kind of content in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnRun {
    /// Length in bytes, at least 1.
    pub length: u64,
    /// Where the bytes are.
    pub content: OwnContent,
}

/// Where the bytes of an [`OwnRun`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnContent {
    /// Not in this layer: the layer below decides, and zeros where there is none.
    Absent,
    /// Zeros, whatever lies below.
    Zero,
    /// Stored as they are, from byte `offset` of file `file` on: 0 is the image itself, `n` its
    /// [`data_files`](Layer::data_files)`[n - 1]`.
    Stored {
        /// The file.
        file: usize,
        /// Byte in that file.
        offset: u64,
    },
    /// In this layer, but not byte for byte: compressed or encrypted.
    Encoded,
}
