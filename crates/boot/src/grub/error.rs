//! GRUB's errors: a number that scripts see in `$?`, and a text that people see.

/// GRUB's error numbers, `include/grub/err.h`; those that a configuration can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A condition that does not hold; never printed.
    TestFailure = 1,
    /// A module that does not fit.
    BadModule = 2,
    /// No memory.
    OutOfMemory = 3,
    /// Not the expected type of file.
    BadFileType = 4,
    /// A file or a searched device is missing.
    FileNotFound = 5,
    /// A file cannot be read to its end.
    FileReadError = 6,
    /// A file name that cannot be one.
    BadFilename = 7,
    /// No file system that GRUB knows.
    UnknownFs = 8,
    /// A damaged file system.
    BadFs = 9,
    /// Not a number.
    BadNumber = 10,
    /// Too large.
    OutOfRange = 11,
    /// No such disk or partition.
    UnknownDevice = 12,
    /// Not the right kind of device.
    BadDevice = 13,
    /// A disk cannot be read.
    ReadError = 14,
    /// No such command.
    UnknownCommand = 16,
    /// A command that makes no sense.
    InvalidCommand = 17,
    /// Wrong arguments.
    BadArgument = 18,
    /// Not a kernel, or a damaged one.
    BadOs = 21,
    /// Nothing is loaded.
    NoKernel = 22,
    /// Not a font.
    BadFont = 23,
    /// GRUB cannot do this.
    NotImplementedYet = 24,
    /// Too many symbolic links.
    SymlinkLoop = 25,
    /// Compressed data that is damaged.
    BadCompressedData = 26,
    /// A menu entry that is none.
    Menu = 27,
    /// Denied.
    AccessDenied = 30,
    /// A wrong signature.
    BadSignature = 45,
}

/// An error as GRUB prints it: `error: TEXT.`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubError {
    /// The number.
    pub code: ErrorCode,
    /// The text, without `error: ` and the full stop.
    pub text: String,
}

impl GrubError {
    /// Any error.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// A file that is not there; `path` without its device.
    pub fn file_not_found(path: &[u8]) -> Self {
        let path = String::from_utf8_lossy(path);
        Self::new(ErrorCode::FileNotFound, format!("file `{path}' not found"))
    }

    /// A disk that is not there; `device` without parentheses, the partition included.
    pub fn disk_not_found(device: &str) -> Self {
        Self::new(ErrorCode::UnknownDevice, format!("disk `{device}' not found"))
    }

    /// A disk without this partition.
    pub fn no_such_partition() -> Self {
        Self::new(ErrorCode::UnknownDevice, "no such partition")
    }

    /// A device on which GRUB finds no file system.
    pub fn unknown_filesystem() -> Self {
        Self::new(ErrorCode::UnknownFs, "unknown filesystem")
    }

    /// A search that found nothing.
    pub fn no_such_device(key: &[u8]) -> Self {
        let key = String::from_utf8_lossy(key);
        Self::new(ErrorCode::FileNotFound, format!("no such device: {key}"))
    }

    /// A kernel that ends too early; `name` as the script wrote it.
    pub fn premature_end(name: &[u8]) -> Self {
        let name = String::from_utf8_lossy(name);
        Self::new(ErrorCode::BadOs, format!("premature end of file {name}"))
    }

    pub(super) fn bad_argument(text: &str) -> Self {
        Self::new(ErrorCode::BadArgument, text)
    }

    pub(super) fn kernel_first() -> Self {
        Self::bad_argument("you need to load the kernel first")
    }
}
