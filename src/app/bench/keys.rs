//! The tokens of a run: made from their numbers, so that a million of them takes no memory, and from a random number of
//! the run, so that nobody else knows them.

use crate::identity::Digest;
use crate::secret::{NoRandomness, Secret};
use http::HeaderValue;
use std::num::NonZeroU32;

/// Larger than any number of tokens and a prime, so that its multiples are an order of all of them.
const STRIDE: u64 = 2_147_483_647;
const BYTES: usize = 40;
/// Random bytes of a run: nobody guesses a token that is in somebody's store.
const SEED_BYTES: usize = 16;
const KEYWORD: &[u8] = b"Token ";

/// The tokens.
#[derive(Debug)]
pub(in crate::app::bench) struct Keys {
    tokens: NonZeroU32,
    seed: Secret,
}

impl Keys {
    /// New ones.
    pub(in crate::app::bench) fn random(tokens: NonZeroU32) -> Result<Self, NoRandomness> {
        Ok(Self { tokens, seed: Secret::random_hex::<SEED_BYTES>("")? })
    }

    /// How many are in the store: those with the numbers from 0 on.
    pub(in crate::app::bench) fn tokens(&self) -> u32 {
        self.tokens.get()
    }

    /// The one that comes at this place of an order without neighbours; after all of them the first comes again.
    pub(in crate::app::bench) fn in_order(&self, place: u64) -> u64 {
        let tokens = u64::from(self.tokens.get());
        (place % tokens * STRIDE) % tokens
    }

    /// Any of those in the store; each as likely as the others.
    pub(in crate::app::bench) fn any(&self, place: u64) -> u64 {
        mix(place) % u64::from(self.tokens.get())
    }

    /// One that is not in the store, another one for each place.
    pub(in crate::app::bench) fn unknown(place: u64) -> u64 {
        place | 1 << 63
    }

    /// What the store knows of it.
    pub(in crate::app::bench) fn digest(&self, number: u64) -> Digest {
        Digest::of(&self.text(number))
    }

    /// `Token ` and the token, as a request has it.
    pub(in crate::app::bench) fn header(&self, number: u64) -> HeaderValue {
        let text = [KEYWORD, &self.text(number)].concat();
        // Letters, digits and a blank are a good value.
        let mut value = HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("Token"));
        value.set_sensitive(true);
        value
    }

    /// 40 hex digits, as DRF makes them.
    fn text(&self, number: u64) -> [u8; BYTES] {
        let digest = Digest::of(&[self.seed.expose(), &number.to_be_bytes()].concat());
        let mut text = [b'0'; BYTES];
        for (slots, byte) in text.chunks_mut(2).zip(digest.0) {
            for (slot, digit) in slots.iter_mut().zip([byte >> 4, byte & 15]) {
                *slot = digit + if digit < 10 { b'0' } else { b'a' - 10 };
            }
        }
        text
    }
}

/// `SplitMix64`: an order that looks like none.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn keys(tokens: u32) -> Keys {
        Keys::random(NonZeroU32::new(tokens).unwrap()).unwrap()
    }

    #[test]
    fn every_token_comes_once_in_the_order() {
        for tokens in [1, 2, 1000, 99_999] {
            let keys = keys(tokens);
            let order: HashSet<u64> = (0..u64::from(tokens)).map(|place| keys.in_order(place)).collect();
            assert_eq!(order.len(), tokens as usize);
            assert!(order.iter().all(|number| *number < u64::from(tokens)));
            assert_eq!(keys.in_order(u64::from(tokens)), keys.in_order(0));
        }
    }

    #[test]
    fn tokens_differ_from_each_other_and_from_run_to_run() {
        let numbers = (0..1000).chain((0..1000).map(Keys::unknown));
        let (one, other) = (keys(1000), keys(1000));
        let texts: HashSet<HeaderValue> = numbers.flat_map(|n| [one.header(n), other.header(n)]).collect();
        assert_eq!(texts.len(), 4000);
        let value = one.header(7);
        let text = value.to_str().unwrap().strip_prefix("Token ").unwrap();
        assert!(text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
        assert!(!format!("{value:?}").contains(text));
    }
}
