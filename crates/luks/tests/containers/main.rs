//! Encrypted devices that the kernel, cryptsetup and qemu-img wrote, opened by us.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod judged;
#[cfg(test)]
mod support;
