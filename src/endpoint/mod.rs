//! What doorward answers itself: credential endpoints. Each handler parses, makes one call, and answers.

pub mod body;
pub mod login_input;
pub mod obtain_token;
