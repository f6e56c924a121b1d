//! Copies of look-ups, so that a request that was seen before asks nobody.
//!
//! What is cached are facts (who does this credential belong to, what is known of the user), never decisions:
//! rules, throttles and checks of the request run every time.

pub mod change;
pub mod coherence;
pub mod in_use;
pub mod local;
pub mod redis;
pub mod touched;
pub mod users;
pub mod uses;
