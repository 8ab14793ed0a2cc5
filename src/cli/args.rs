//! The arguments, and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use storage::Bus;

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
    Inspect(Images),
    /// Print the manual page of a rule.
    Explain(Explain),
    /// List a directory as the guest sees it.
    Ls(Look),
    /// Print a file as the guest sees it.
    Cat(Look),
    /// Mount the guest's tree and its raw volumes read-only, without root (FUSE).
    Mount(Mount),
    /// Check many images, each also with a disk more and on other buses; one line each.
    Preflight(Preflight),
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// The disks of one machine, in the order of its hardware.
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    #[command(flatten)]
    pub(crate) images: Images,
    /// `+N`: N further disks enumerated first; `1,0`: the given disks in this order. May be repeated.
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true)]
    pub(crate) disk_order: Vec<DiskOrder>,
    /// The bus of the disks: virtio-blk, virtio-scsi, sata, ide, nvme, xen. May be repeated.
    #[arg(long, value_name = "BUS")]
    pub(crate) bus: Vec<Bus>,
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

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The id of a rule; without it, all rules are listed.
    #[arg(value_name = "RULE")]
    pub(crate) rule: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Look {
    /// The image, and the path in the guest.
    #[command(flatten)]
    pub(crate) image: Image,
    /// Path in the guest; symlinks are followed inside the guest.
    #[arg(value_name = "PATH", default_value = "/")]
    pub(crate) path: String,
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
