//! GRUB's interpreter over whole configurations, and beside `grub-emu`.

#[cfg(test)]
mod configurations;
#[cfg(test)]
mod emu;
