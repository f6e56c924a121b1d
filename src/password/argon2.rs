//! Argon2 of any variant: the costs we are willing to pay, and the memory for it.

use argon2::{Algorithm, Argon2, Block, Params, Version};

/// Costs above these are not paid: enough for the 64 MiB of RFC 9106 §4 and Django's 100 MiB with 8 lanes.
const MEMORY_KIB_MAX: u32 = 128 * 1024;
const PASSES_MAX: u32 = 8;
const LANES_MAX: u32 = 16;
/// Memory (KiB) that a thread keeps: that of our own hashes.
const KEPT_KIB: usize = 19 * 1024;

/// What one thread keeps from password to password: 19 MiB once Argon2 was used.
#[derive(Default)]
pub(super) struct Memory {
    blocks: Vec<Block>,
}

impl Memory {
    /// `None` if there is no memory.
    fn kept(&mut self, blocks: usize) -> Option<&mut [Block]> {
        if self.blocks.is_empty() {
            self.blocks.try_reserve_exact(KEPT_KIB).ok()?;
            self.blocks.resize(KEPT_KIB, Block::new());
        }
        self.blocks.get_mut(..blocks)
    }
}

/// Costs within the limits, and which Argon2 it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Costs {
    pub(super) variant: Algorithm,
    pub(super) version: Version,
    pub(super) memory_kib: u32,
    pub(super) passes: u32,
    pub(super) lanes: u32,
}

impl Costs {
    /// `None` if a cost is above its limit.
    pub(super) fn limited(self) -> Option<Self> {
        let is_within =
            self.memory_kib <= MEMORY_KIB_MAX && self.passes <= PASSES_MAX && self.lanes <= LANES_MAX;
        is_within.then_some(self)
    }

    /// `None` if Argon2 does not have such costs or lengths, or there is no memory.
    pub(super) fn compute(
        self,
        memory: &mut Memory,
        password: &[u8],
        salt: &[u8],
        output: &mut [u8],
    ) -> Option<()> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(output.len())).ok()?;
        let needed = params.block_count();
        let argon2 = Argon2::new(self.variant, self.version, params);
        match memory.kept(needed) {
            Some(blocks) => argon2.hash_password_into_with_memory(password, salt, output, blocks).ok(),
            // More than our own: memory of its own, given back at once.
            None => argon2.hash_password_into(password, salt, output).ok(),
        }
    }
}
