//! The schemes, one file each.

pub mod basic;
pub mod remote_user;
pub mod session;
pub mod token;
