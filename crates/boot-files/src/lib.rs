//! What boot loaders and kernels load, taken apart.
//!
//! Nothing here does I/O of its own: bytes or a reader in, plain data out. Everything is bounded, for the files may be
//! damaged or hostile.

pub mod elf;
pub mod grub_core;
pub mod initramfs;
pub mod kernel_config;
pub mod kernel_image;
pub mod modules;
