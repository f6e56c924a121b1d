//! The rules of coherence, by name, so that the simulation can leave one out and show what it was for.
//!
//! The server runs [`Sound`], where all of them hold; what the others are is decided when the program is compiled.

use std::fmt::Debug;

/// Which rules hold.
pub trait Rules: Debug + Send + Sync + 'static {
    /// What a message or a reading names is dropped.
    const CHANGES_DROP: bool = true;
    /// A proof counts from when it was asked for, not from when it came.
    const PROOF_AS_OF_ASKING: bool = true;
    /// What is in doubt is not proved by what proves the rest.
    const DOUBT_OUTLASTS_PROOFS: bool = true;
    /// While what is in use is asked for after a change that nobody named, nothing is proved.
    const CONFIRMING_STOPS_PROOFS: bool = true;
    /// An entry is believed for the bound after its proof, and no longer.
    const BELIEF_ENDS: bool = true;
    /// An entry is stale for `stale_while_unreachable` after its proof, and no longer.
    const STALE_ENDS: bool = true;
    /// What is stale is used only while the store cannot be asked.
    const STALE_WHILE_AWAY: bool = true;
    /// A fill that a change overtook is refused.
    const OVERTAKEN_FILLS_REFUSED: bool = true;
    /// An answer that took longer than the bound is asked for again.
    const SLOW_ANSWERS_REFUSED: bool = true;
    /// The stream proves nothing until the store was read after it was opened.
    const STREAM_NEEDS_READING: bool = true;
    /// The stream proves nothing while a number is known to be missing.
    const MISSING_NUMBERS_STOP: bool = true;
    /// A publisher's gap, or a message that cannot be trusted, empties trust in the stream.
    const GAPS_EMPTY_TRUST: bool = true;
    /// Without a word of the store the stream carries belief on for `stale_while_unreachable`, and no longer.
    const CARRYING_ENDS: bool = true;
    /// A reading that lacks rows voids everything.
    const LOST_ROWS_VOID: bool = true;
    /// A shared value that is older than a change of its credential or user is a miss.
    const OLD_VALUES_REFUSED: bool = true;
    /// A shared value is as fresh as this replica's proof, not as its reading.
    const VALUES_AS_OF_PROOF: bool = true;
    /// What a reading names is dropped even if the stream told of that number: a store that went back gave it out again.
    const READINGS_ALWAYS_DROP: bool = true;
    /// A shared value that was read before the store was found to have gone back is a miss.
    const LOST_PAST_REFUSED: bool = true;
    /// Nobody who is known waits for a store that hangs.
    const HANGING_STORE_SPARED: bool = true;
    /// A store that answered a look-up a moment ago does not hang, whatever its readings say.
    const ANSWERS_END_SPARING: bool = true;
    /// Who cannot tell the others waits for the bound before acknowledging.
    const UNTOLD_WAITS: bool = true;
}

/// All rules hold.
#[derive(Debug)]
pub struct Sound;

impl Rules for Sound {}
