//! Volumes that real kernels wrote, read by us.

#[cfg(test)]
mod lvm2;
#[cfg(test)]
mod lvm2_history;
#[cfg(test)]
mod lvm2_hostile;
#[cfg(test)]
mod md;
#[cfg(test)]
mod partitions;
#[cfg(test)]
mod support;
