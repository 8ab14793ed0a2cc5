//! The file system as it will be after the kernel's recovery.

use std::sync::Arc;

use blockdev::{Device, Overlay};
use filesystem::Replayed;
use ondisk::{Error, Result};

use super::finish;
use super::head::{self, Head, distance};
use super::record::Record;
use super::recovery::Recovery;
use super::ring::Ring;
use super::state::{is_settled, ring};
use super::transaction::{Assembler, Transaction};
use crate::superblock::Superblock;

/// The device after recovery, with a log that has nothing left to replay.
///
/// Refused where the kernel refuses too, and where what it would do next changes names or content.
pub(crate) fn replay(device: &Device) -> Result<Replayed> {
    let superblock = Superblock::read(&**device)?;
    let clean = || Ok(Replayed { device: device.clone(), transactions: 0 });
    let Some(log) = ring(&**device, &superblock) else {
        return Err(Error::unsupported("log", "an external log"));
    };
    let needs_crc = superblock.features.crc;
    let Some(head) = head::find(&log, needs_crc)? else { return clean() };
    if head.is_unmount || is_settled(&log, &head, needs_crc) {
        return clean();
    }
    if let Some(reason) = superblock.features.reason_against_recovery() {
        return Err(Error::unsupported("superblock", reason));
    }
    let overlay = Arc::new(Overlay::new(device.clone()));
    let mut recovery = Recovery::new(&superblock, overlay.clone());
    let tail = head::tail(&log, &head, needs_crc)?;
    walk(&log, &head, tail, &superblock, &mut |transaction| recovery.learn(&transaction))?;
    walk(&log, &head, tail, &superblock, &mut |transaction| recovery.apply(&transaction))?;
    recovery.finish()?;
    recovery.intents.check_invisible()?;
    // The superblock itself may have been in the log.
    let recovered = Superblock::read(&*overlay)?;
    if recovered.log != superblock.log {
        return Err(Error::unsupported("log", "recovery of a log that moves"));
    }
    finish::finish(&overlay, &recovered, &log, &head, &recovery.intents)?;
    let transactions = recovery.transactions;
    Ok(Replayed { device: overlay, transactions })
}

/// Gives all transactions that are committed between `tail` and the head to `each`, in order.
fn walk(
    log: &Ring<'_>,
    head: &Head,
    tail: u64,
    superblock: &Superblock,
    each: &mut dyn FnMut(Transaction) -> Result<()>,
) -> Result<()> {
    let mut assembler = Assembler::default();
    let mut block = tail;
    let mut left = if tail == head.block { 0 } else { distance(log, tail, head.block) };
    while left > 0 {
        let record = Record::read(log, block, superblock.features.crc)?;
        record.check_writer(log, superblock.uuid)?;
        assembler.add(&record, each)?;
        left = left.saturating_sub(record.header.blocks());
        block = log.wrap(record.end());
    }
    Ok(())
}
