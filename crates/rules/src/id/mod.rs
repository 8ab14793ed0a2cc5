//! Identities that several things claim.

pub mod duplicate;
