//! Virtual appliances in one file: a tar archive of a description and its disks, read in place.
//!
//! DMTF DSP0243 (OVF 2.1) and POSIX.1-2017 (ustar, pax). The description says which members are disks; each is opened
//! as its own format. Nothing outside the archive is ever opened for one of its members, and nothing is written.

mod archive;
mod check;
mod manifest;
mod open;
mod ovf;
mod tar;
mod xml;

pub use open::members;

pub(crate) use archive::Member;
pub(crate) use open::FORMAT;
