//! Linux md: software RAID that describes itself in a superblock on each member.
//!
//! Facts from md(4), `include/uapi/linux/raid/md_p.h`, `drivers/md` and mdadm's `Assemble.c`. Sizes are bytes here,
//! whatever unit the superblock counts in.

mod array;
mod assemble;
mod bad_blocks;
mod build;
mod journal;
mod level;
mod member;
mod superblock;
mod superblock0;
mod superblock1;

pub use array::{Array, ArrayMember, State};
pub use assemble::assemble;
pub use member::{Identity, Member, read_member};
pub use superblock::{Features, Role, Superblock, Version};
