//! How the list of formats knows this one.

use blockdev::{BlockDevice, Device};
use filesystem::{FileSystem, Format, Identity, Opened};
use ondisk::Result;

use crate::features::incompat;
use crate::reader::Ext4;
use crate::recover;
use crate::superblock::{MAGIC, RawSuperblock};
use crate::units::{BlockSize, FsBlock};

/// ext2, ext3 and ext4; [`Identity::kind`] says which, as libblkid decides it.
pub static FORMAT: Format = Format { name: "ext4", probe, open, replay: recover::replay, set: None };

/// The magic number has only 16 bits, so revision and block size must make sense too. An external journal has
/// the same superblock, but is not a file system.
fn probe(device: &dyn BlockDevice) -> Result<Option<Identity>> {
    let Some(raw) = RawSuperblock::read(device)? else { return Ok(None) };
    let features = raw.features();
    let block_size = BlockSize::from_log(raw.s_log_block_size.get()).filter(|_| {
        raw.s_magic.get() == MAGIC
            && raw.s_rev_level.get() <= 1
            && !features.has_incompat(incompat::JOURNAL_DEV)
    });
    Ok(block_size.map(|block_size| Identity {
        kind: features.kind(),
        uuid: raw.uuid().map(|uuid| uuid.to_string()),
        label: raw.label(),
        size: block_size.offset_of(FsBlock(raw.blocks_count())),
    }))
}

fn open(device: Device) -> Result<Opened> {
    Ok(Ext4::open(device)?.map(|fs| {
        let boxed: Box<dyn FileSystem> = Box::new(fs);
        boxed
    }))
}
