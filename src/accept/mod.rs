//! Accept: from sockets to requests with one reading.
//!
//! hyper is the server: writing our own would save little and take on the risk of request smuggling. Here are
//! its limits, and what stands before and after it: certificates, connections, and the sanitising of heads.

pub mod activity;
pub mod body;
pub mod connection;
pub mod head;
pub mod inherited;
pub mod limits;
pub mod listener;
pub mod peer;
pub mod server;
pub mod stream;
pub mod tls;
