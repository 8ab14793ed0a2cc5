//! Disks whose tables are gone.

#[cfg(test)]
mod search;
