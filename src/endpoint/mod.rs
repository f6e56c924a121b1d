//! What doorward answers itself: credential endpoints. Each handler parses, makes one call, and answers.

pub mod body;
mod forged;
pub mod login;
pub mod login_input;
pub mod logout;
pub mod obtain_token;
mod page;
pub mod told;
pub mod whoami;
