//! Socket to requests.

pub mod body;
pub mod head;
pub mod peer;
