//! `ls`, `cat`, `stat`, `find`, `cp-out`: look inside, as the guest sees its tree or as one volume has it.

mod cat;
mod copy;
mod find;
mod list;
mod stat;
mod view;

pub(crate) use cat::cat;
pub(crate) use copy::cp_out;
pub(crate) use find::find;
pub(crate) use list::ls;
pub(crate) use stat::stat;
