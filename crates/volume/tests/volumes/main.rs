//! Volumes that real kernels wrote, read by us.

#[cfg(test)]
mod support;
