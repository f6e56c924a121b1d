//! One check, and what is done for those whose password is never right.
//!
//! A hash that cannot be used is answered like an unknown user: after as much work as a usable one takes, so that
//! time does not tell which users exist (CWE-208).

use crate::password::argon2::Memory;
use crate::password::encoded::{Allowed, Encoded, Work};
use crate::password::own;
use crate::secret::Secret;
use std::hint::black_box;

/// Salt of the work done for unknown users; nothing is ever compared with its result. 16 bytes, as bcrypt wants.
const DUMMY_SALT: [u8; 16] = *b"nobody has this.";
/// Bytes computed for unknown users: what most algorithms have, and for none of them more work than another length.
const DUMMY_BYTES: usize = 20;

/// How passwords are checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    pub(super) allowed: Allowed,
    /// Done for unknown users.
    pub(super) nobody: Work,
}

impl Default for Check {
    fn default() -> Self {
        Self { allowed: Allowed::default(), nobody: Work::Argon2(own::COSTS) }
    }
}

impl Check {
    /// Whether `encoded` is of this password. `None`: nobody's password, which takes as long.
    pub(super) fn verify(&self, memory: &mut Memory, password: &[u8], encoded: Option<&Secret>) -> bool {
        let Some(encoded) = encoded.and_then(|encoded| Encoded::parse(encoded, self.allowed)) else {
            burn(self.nobody, memory, password);
            return false;
        };
        let matches = encoded.matches(memory, password);
        if !matches && let Some(rest) = encoded.work.rest_of(self.nobody) {
            burn(rest, memory, password);
        }
        matches
    }

    /// The work that most of these take, of those that can be used at all.
    pub(super) fn most_common(&self, sample: &[Secret]) -> Option<Work> {
        let mut counted: Vec<(Work, usize)> = Vec::new();
        for encoded in sample.iter().filter_map(|encoded| Encoded::parse(encoded, self.allowed)) {
            match counted.iter_mut().find(|(work, _)| *work == encoded.work) {
                Some((_, count)) => *count += 1,
                None => counted.push((encoded.work, 1)),
            }
        }
        counted.into_iter().max_by_key(|(_, count)| *count).map(|(work, _)| work)
    }
}

fn burn(work: Work, memory: &mut Memory, password: &[u8]) {
    let mut output = [0; DUMMY_BYTES];
    black_box(work.compute(memory, password, &DUMMY_SALT, &mut output));
    black_box(output);
}

impl Work {
    /// What a wrong password of an old hash has to burn besides, so that it takes as long as nobody's: Django's
    /// `harden_runtime`, for PBKDF2 only as there.
    fn rest_of(self, nobody: Self) -> Option<Self> {
        match (self, nobody) {
            (Self::Pbkdf2(paid), Self::Pbkdf2(nobody)) => nobody.beyond(paid).map(Self::Pbkdf2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::argon2;
    use crate::password::django::pbkdf2::{self, Digest};
    use std::num::NonZeroU32;

    const OUTPUT: &str = "o42gMAj04Dgl/Bknu2kwY207d2Fu0z+y9fyYQ+ig2u4=";

    fn pbkdf2(iterations: u32) -> Work {
        let iterations = NonZeroU32::new(iterations).unwrap();
        Work::Pbkdf2(pbkdf2::Costs { digest: Digest::Sha256, iterations })
    }

    fn sample(encoded: &[&str]) -> Vec<Secret> {
        encoded.iter().map(|encoded| Secret::new(*encoded)).collect()
    }

    #[test]
    fn most_common_is_by_algorithm_and_costs_of_those_that_are_usable() {
        let common = |encoded: &[&str]| Check::default().most_common(&sample(encoded));
        let [old, new] = [3, 4].map(|n| format!("pbkdf2_sha256${n}$salt${OUTPUT}"));
        let own = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let md5 = "md5$salt$e00094dee4b9106cf5e8b8eecbd5ba49";
        assert_eq!(common(&[&old, &new, own, &new]), Some(pbkdf2(4)));
        assert_eq!(common(&[&old, &old, &new]), Some(pbkdf2(3)));
        assert_eq!(common(&["!a", "!b", "!c", "", "", md5, md5, "x$y", &old]), Some(pbkdf2(3)));
        assert_eq!(common(&[own]), Some(Work::Argon2(argon2::Costs { memory_kib: 65536, ..own::COSTS })));
        assert_eq!(common(&["!a", "", md5]), None);
        let check = Check { allowed: Allowed { md5: true }, ..Check::default() };
        assert_eq!(check.most_common(&sample(&[md5])), Some(Work::Md5));
    }

    #[test]
    fn a_wrong_password_of_fewer_iterations_pays_the_rest() {
        assert_eq!(pbkdf2(3).rest_of(pbkdf2(10)), Some(pbkdf2(7)));
        assert_eq!(pbkdf2(10).rest_of(pbkdf2(10)), None);
        assert_eq!(pbkdf2(11).rest_of(pbkdf2(10)), None);
        assert_eq!(pbkdf2(3).rest_of(Work::Md5), None);
        let sha1 = Work::Pbkdf2(pbkdf2::Costs { digest: Digest::Sha1, iterations: NonZeroU32::MIN });
        assert_eq!(sha1.rest_of(pbkdf2(10)), None);
    }

    /// CPU time of this thread (ns): other tests run beside this one.
    fn cpu(check: Check, password: &[u8], encoded: Option<&str>) -> i64 {
        let now = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            time.tv_sec * 1_000_000_000 + time.tv_nsec
        };
        let encoded = encoded.map(Secret::new);
        let mut memory = Memory::default();
        // The first fills the memory that is kept.
        let mut times = [0; 4].map(|_| {
            let began = now();
            assert!(!check.verify(&mut memory, password, encoded.as_ref()));
            now() - began
        });
        times.sort_unstable();
        times[1]
    }

    #[test]
    fn whoever_has_no_usable_hash_takes_as_long_as_most() {
        let bcrypt = "jm4usEW0oWaSTdRAumyDfuNxEEBBmZT8FMRYlbhwzP9xiL2ZhyhOe";
        let scrypt = "A".repeat(86);
        let long = [b'a'; 73];
        for most in [
            format!("pbkdf2_sha256$60000$salt${OUTPUT}"),
            "pbkdf2_sha1$60000$salt$CBMQlabqMt/73O4UnZqcFAcmryM=".to_owned(),
            format!("bcrypt$$2b$07${bcrypt}"),
            format!("bcrypt_sha256$$2b$07${bcrypt}"),
            format!("scrypt$4096$salt$8$1${scrypt}=="),
            "argon2$argon2id$v=19$m=4096,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
                .to_owned(),
        ] {
            let work = Check::default().most_common(&sample(&[&most])).unwrap();
            let check = Check { nobody: work, ..Check::default() };
            for password in [b"wrong".as_slice(), &long] {
                let usable = cpu(check, password, Some(&most));
                for nobody in [None, Some("!x"), Some(""), Some("pbkdf2_sha256$10000001$salt$x"), Some("x")] {
                    let took = cpu(check, password, nobody);
                    // Each is milliseconds; a way that does no work takes microseconds.
                    let is_near = took > usable / 3 && took < usable * 3;
                    assert!(is_near && usable > 1_000_000, "{most}, {nobody:?}: {took} to {usable} ns");
                }
            }
        }
    }
}
