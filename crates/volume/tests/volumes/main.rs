//! Volumes that real kernels wrote, read by us.

#[cfg(test)]
mod partitions;
#[cfg(test)]
#[expect(dead_code, reason = "shared by tests that are not all here yet")]
mod support;
