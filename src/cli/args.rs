//! The arguments, and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use filesystem::FileKind;
use storage::{Bus, Firmware};

use crate::container::mend::Wanted;
use crate::machine::DiskOrder;

/// See why a virtual machine will not boot, and mend its disk image: without root, without starting anything.
#[derive(Debug, Parser)]
#[command(name = "guestmend", version, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 clean, 1 something was found, 2 could not tell.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// How to print the result.
    #[arg(long, global = true, value_enum, default_value = "human")]
    pub(crate) output: Output,
    /// Take the images to be in this format instead of guessing it.
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Also open files below this folder that an image names (backing files, extents). May be repeated.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) allow_path: Vec<PathBuf>,
    /// Show this internal snapshot of an image instead of its present state.
    #[arg(long, global = true, value_name = "NAME|ID")]
    pub(crate) snapshot: Option<String>,
    /// The disk to take from an archive that holds several (OVA), by its file name.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) member: Option<String>,
    /// A file that holds the passphrase of encrypted images and devices; `-` is standard input. A line break at its
    /// end is not part of it. May be repeated: all are tried.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) passphrase_file: Vec<PathBuf>,
    /// An open file descriptor to read a passphrase from, likewise.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) passphrase_fd: Vec<u32>,
    /// A key file, taken byte for byte, as crypttab(5) names them. May be repeated.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Vec<PathBuf>,
    /// Ask for a passphrase on the terminal.
    #[arg(long, global = true)]
    pub(crate) ask_passphrase: bool,
    /// The memory that a key slot (Argon2) may ask for.
    #[arg(long, global = true, value_name = "MIB", default_value_t = 1024)]
    pub(crate) key_memory: u32,
    /// Read on although a parent changed after its child was made from it.
    #[arg(long, global = true)]
    pub(crate) accept_changed_parent: bool,
    /// When to colour: only on a terminal, always, or never. NO_COLOR is honoured.
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub(crate) color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Human,
    /// One JSON document; its schema is docs/json.md.
    Json,
    /// One JSON document a line.
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what is wrong, where, and why. Several images are the disks of one machine.
    Check(Images),
    /// Follow the boot on other hardware, and say how it would end.
    Simulate(Simulate),
    /// Show every change as a diff, apply it to an overlay, examine the result, keep it if all is better.
    Fix(Fix),
    /// Write what an overlay of `fix` holds into the image below it; `undo` takes it back.
    Commit(Overlay),
    /// Delete an overlay that `fix` made.
    Discard(Overlay),
    /// Take back the last commit, or finish one that was cut short.
    Undo(Image),
    /// Show disks, partitions, volumes, file systems and installed systems.
    Inspect(Inspect),
    /// Print the manual page of a rule.
    Explain(Explain),
    /// List a directory as the guest sees it.
    Ls(Look),
    /// Print a file as the guest sees it.
    Cat(Look),
    /// Say everything of a file: owner, times, extended attributes, SELinux label.
    Stat(Look),
    /// List the paths below a directory, by name and kind.
    Find(Find),
    /// Copy a file or a tree out of the guest; what is sparse stays sparse.
    CpOut(CopyOut),
    /// Mount the guest's tree and its raw volumes read-only, without root (FUSE).
    Mount(Mount),
    /// The container around the disk: what it is, whether it is sound, what it stands on.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Check many images, each also with a disk more and on other buses; one line each.
    Preflight(Preflight),
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// The disks of one machine, in the order of its hardware. With a definition: files that stand for its disks of the
    /// same names.
    #[arg(required_unless_present_any = ["domain", "vmx"], value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
    /// Take the machine from this libvirt domain (`virsh dumpxml --inactive`): disks, buses, order, firmware.
    #[arg(long, value_name = "XML", conflicts_with = "vmx")]
    pub(crate) domain: Option<PathBuf>,
    /// Take the machine from this VMware configuration.
    #[arg(long, value_name = "VMX")]
    pub(crate) vmx: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) images: Images,
    /// Search the disks for partitions that no table names any more, and propose a table.
    #[arg(long, conflicts_with = "metadata_history")]
    pub(crate) lost_partitions: bool,
    /// List every version of LVM2 metadata that is still there: in the metadata areas, and among the guest's backups.
    #[arg(long)]
    pub(crate) metadata_history: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    #[command(flatten)]
    pub(crate) images: Images,
    /// `+N`: N further disks enumerated first; `1,0`: the given disks in this order. May be repeated.
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true)]
    pub(crate) disk_order: Vec<DiskOrder>,
    /// The bus of the disks: virtio-blk, virtio-scsi, sata, ide, nvme, pvscsi, lsi, lsisas, lsi53c895a, megasas, buslogic,
    /// hyperv, xen. May be repeated.
    #[arg(long, value_name = "BUS")]
    pub(crate) bus: Vec<Bus>,
    /// What starts the machine: bios, uefi (with no boot entries of its own). Default: what the disks are made for. May be
    /// repeated.
    #[arg(long, value_name = "FIRMWARE")]
    pub(crate) firmware: Vec<Firmware>,
    /// As a copy, whose disks have other serial numbers.
    #[arg(long = "clone")]
    pub(crate) is_clone: bool,
    /// Every bus with BIOS and UEFI, in the order given, with a further disk first, as a copy, and without each of several
    /// disks; as one table. `--bus` and `--firmware` narrow it down.
    #[arg(long, conflicts_with = "disk_order")]
    pub(crate) matrix: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fix {
    #[command(flatten)]
    pub(crate) images: Images,
    /// Only fixes of this rule.
    #[arg(long, value_name = "ID")]
    pub(crate) rule: Option<String>,
    /// Take suggested fixes too, not only safe ones.
    #[arg(long)]
    pub(crate) suggested: bool,
    /// Where to put the overlay (default: IMAGE with `.fixed.qcow2` for its extension, beside it).
    #[arg(long, value_name = "OUT", conflicts_with_all = ["in_place", "dry_run"])]
    pub(crate) overlay: Option<PathBuf>,
    /// Write into the image itself, with an undo journal beside it.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) in_place: bool,
    /// Show the changes and what they would lead to; write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Overlay {
    /// The overlay that `fix` wrote.
    #[arg(value_name = "OVERLAY")]
    pub(crate) overlay: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Image {
    /// The image.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Say what the file is: format, sizes, features, snapshots.
    Info(Image),
    /// Examine every structure of the container; exit 1 when something is wrong.
    Check(ImageCheck),
    /// Draw what the image stands on, what is missing, and what could stand in for it.
    Chain(Image),
    /// Name another parent, without touching what the image holds.
    Rebase(ImageRebase),
    /// Write the disk into a new container.
    Convert(ImageConvert),
    /// List which file holds which part of the disk.
    Map(Image),
}

#[derive(Debug, Args)]
pub(crate) struct ImageCheck {
    #[command(flatten)]
    pub(crate) image: Image,
    /// Repair what is certain: on an overlay, examined again, then written with an undo journal beside it.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) repair: Option<Repair>,
    /// Show what a repair would do; write nothing.
    #[arg(long, requires = "repair")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Repair {
    /// Only space that nothing uses.
    Leaks,
    /// Everything that is certain.
    All,
}

#[derive(Debug, Args)]
pub(crate) struct ImageRebase {
    #[command(flatten)]
    pub(crate) image: Image,
    /// The parent, as the image is to store it: relative to the image's folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) parent: PathBuf,
    /// Only the name is written; that the content fits is your word.
    #[arg(long, required = true)]
    pub(crate) unsafe_metadata_only: bool,
    /// Show the change; write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImageConvert {
    /// The image to read.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// The file to write, which must not exist.
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// The format to write (default: what the name of OUT says).
    #[arg(long, value_name = "FORMAT")]
    pub(crate) to: Option<String>,
    /// The kind within the format, by QEMU's name: `dynamic`, `fixed`, `monolithicSparse`, `streamOptimized`, …
    #[arg(long, value_name = "NAME")]
    pub(crate) subformat: Option<String>,
    /// Bytes in a cluster, grain or block.
    #[arg(long, value_name = "BYTES")]
    pub(crate) cluster_size: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The id of a rule; without it, all rules are listed.
    #[arg(value_name = "RULE")]
    pub(crate) rule: Option<String>,
}

/// Where to look: the system of a machine, or one of its volumes.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The image.
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// A further disk of the machine. May be repeated.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) disk: Vec<PathBuf>,
    /// Look into this volume (`disk0/p1`, `centos/root`) instead of the system's joined tree.
    #[arg(long, value_name = "VOLUME")]
    pub(crate) volume: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Look {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Path in the guest; symlinks are followed inside the guest.
    #[arg(value_name = "PATH", default_value = "/")]
    pub(crate) path: String,
}

#[derive(Debug, Args)]
pub(crate) struct CopyOut {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Path in the guest; symlinks are followed inside the guest.
    #[arg(value_name = "PATH")]
    pub(crate) path: String,
    /// Where to: a file or folder that does not exist, or a folder to copy into.
    #[arg(value_name = "TARGET")]
    pub(crate) target: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Find {
    #[command(flatten)]
    pub(crate) look: Look,
    /// Only names like this: `*` stands for anything, `?` for one character.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) name: Option<String>,
    /// Only files of this kind.
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
}

/// A kind of file, as `find` is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[value(alias = "f")]
    File,
    #[value(alias = "d")]
    Directory,
    #[value(alias = "l")]
    Link,
    /// Devices, pipes, sockets.
    Special,
}

impl Kind {
    pub(crate) fn takes(self, kind: FileKind) -> bool {
        match kind {
            FileKind::Regular => self == Self::File,
            FileKind::Directory => self == Self::Directory,
            FileKind::Symlink => self == Self::Link,
            _ => self == Self::Special,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Mount {
    #[command(flatten)]
    pub(crate) image: Image,
    /// An empty directory.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Preflight {
    /// Images, each a machine of its own, and folders of them.
    #[arg(required = true, value_name = "IMAGE|DIR")]
    pub(crate) paths: Vec<PathBuf>,
    /// How many images to check at once (default: one for each processor).
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<std::num::NonZero<usize>>,
}

impl From<Repair> for Wanted {
    fn from(repair: Repair) -> Self {
        match repair {
            Repair::Leaks => Self::Leaks,
            Repair::All => Self::All,
        }
    }
}
