//! Why an image could not be opened.

use std::io;
use std::path::PathBuf;

use crate::{FORMATS, Refusal, Role};

/// What opening an image returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an image could not be opened. Each message is one line about its own level; the sources say the rest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host refused to open the file.
    #[error("cannot open {}", path.display())]
    Open {
        /// As the caller named it.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The file has no bytes at all.
    #[error("{image} is empty (0 bytes)")]
    Empty {
        /// The file.
        image: String,
    },
    /// The file holds less than one sector, so it is no disk in any format.
    #[error("{image} is not a disk image: {size} bytes are less than one sector")]
    TooSmall {
        /// The file.
        image: String,
        /// Its length in bytes.
        size: u64,
    },
    /// The caller, or an image, asked for a format that does not exist here.
    #[error("there is no image format `{name}`, only {}", names())]
    UnknownFormat {
        /// The name that was asked for.
        name: String,
    },
    /// The file does not start as the format that was asked for.
    #[error("{image} is not a {format} image")]
    WrongFormat {
        /// The file.
        image: String,
        /// The format that was asked for.
        format: &'static str,
    },
    /// The file is of this format but cannot be read: damage, an unknown feature, or the host.
    #[error("cannot read {image} as {format}")]
    Format {
        /// The file.
        image: String,
        /// Its format.
        format: &'static str,
        /// What is wrong.
        source: ondisk::Error,
    },
    /// The image can be read but must not be written.
    #[error("{image} must not be written: {reason}")]
    NotWritable {
        /// The file.
        image: String,
        /// Why.
        reason: String,
    },
    /// There is no internal snapshot of this name or identifier.
    #[error("{image} has no snapshot `{name}`")]
    NoSnapshot {
        /// The file.
        image: String,
        /// The name that was asked for.
        name: String,
    },
    /// An appliance holds several disks, or none, and the caller did not choose.
    #[error("{image} holds {}", several(names))]
    SeveralMembers {
        /// The archive.
        image: String,
        /// The disks by name.
        names: Vec<String>,
    },
    /// An appliance has no disk of this name.
    #[error("{image} has no disk `{name}`; it holds {}", several(names))]
    NoMember {
        /// The archive.
        image: String,
        /// The name that was asked for.
        name: String,
        /// The disks that it has.
        names: Vec<String>,
    },
    /// The gate did not open a file that the image names.
    #[error("{image} needs the {role} `{name}`, which is not opened")]
    Refused {
        /// The file that names the other one.
        image: String,
        /// What the other file is to it.
        role: Role,
        /// The name as stored, with unprintable bytes replaced.
        name: String,
        /// Why.
        source: Refusal,
    },
    /// A backing file without a stated format that looks like an image. Taking it for one would let the guest
    /// of a raw disk choose files of the host; taking it for raw would show the wrong bytes.
    #[error(
        "{image} does not state the format of its backing file `{name}`, whose content looks like {found}"
    )]
    UnstatedFormat {
        /// The file that names the other one.
        image: String,
        /// The name as stored, with unprintable bytes replaced.
        name: String,
        /// What the content looks like.
        found: &'static str,
    },
    /// The file below is not the one that the image was made from: what it holds no longer fits.
    #[error("{image} was made from a {parent} with {expected}, and it has {found} now")]
    ChangedParent {
        /// The child.
        image: String,
        /// The file below.
        parent: String,
        /// The identity that the child records.
        expected: String,
        /// The identity that the file below has.
        found: String,
    },
    /// A new image of this format cannot be what was asked for.
    #[error("cannot make this {format} image: {reason}")]
    NotCreatable {
        /// The format.
        format: &'static str,
        /// Why.
        reason: String,
    },
    /// The image cannot name the parent that was asked for.
    #[error("{image} cannot name `{name}` as its parent: {reason}")]
    NotRenamable {
        /// The file.
        image: String,
        /// The name that was asked for.
        name: String,
        /// Why.
        reason: String,
    },
    /// The image is encrypted and the passphrase is missing or wrong.
    #[error("{image} is encrypted: {reason}")]
    Locked {
        /// The file.
        image: String,
        /// What is missing.
        reason: String,
    },
    /// A file that is its own backing file, directly or through others.
    #[error("{image} needs the {role} `{name}`, which is already in use above it: the chain is a loop")]
    Loop {
        /// The file that closes the loop.
        image: String,
        /// What the other file is to it.
        role: Role,
        /// The name as stored, with unprintable bytes replaced.
        name: String,
    },
    /// More layers than any real chain has.
    #[error("{image} has more than {limit} layers below the first")]
    TooDeep {
        /// The last file that was reached.
        image: String,
        /// The bound.
        limit: usize,
    },
    /// A file below this one failed to open.
    #[error("the backing file of {image} is not usable")]
    Backing {
        /// The file that names the other one.
        image: String,
        /// What failed.
        source: Box<Error>,
    },
}

fn several(names: &[String]) -> String {
    match names {
        [] => "no disk".to_owned(),
        [name] => format!("the disk {name}"),
        names => format!("{} disks, of which one must be chosen: {}", names.len(), names.join(", ")),
    }
}

fn names() -> String {
    let names: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
    names.join(", ")
}
