//! Encodings against what Django says of them (`tests/vectors/passwords.jsonl`), and against whatever else a column
//! may hold.

use super::*;
use crate::password::argon2::Memory;
use crate::password::check::Check;
use crate::secret::Secret;
use proptest::prelude::*;
use serde::Deserialize;

const MD5: Allowed = Allowed { md5: true };

/// One answer of Django's, written by `tests/vectors/passwords.py`.
#[derive(Deserialize)]
struct Vector {
    password: String,
    encoded: String,
    matches: bool,
    rehash: Option<bool>,
    about: String,
}

fn vectors() -> Vec<Vector> {
    let text = include_str!("../../../tests/vectors/passwords.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn parse(text: impl AsRef<[u8]>) -> Option<Encoded> {
    Encoded::parse(&Secret::new(text.as_ref()), MD5)
}

#[test]
fn every_answer_is_djangos() {
    let mut memory = Memory::default();
    let vectors = vectors();
    let passing = vectors.iter().filter(|vector| vector.matches).count();
    assert!(vectors.len() > 300 && passing > 100, "{passing} of {}", vectors.len());
    for Vector { password, encoded, matches, rehash, about } in &vectors {
        let stored = Secret::new(encoded.as_str());
        let found = parse(encoded).is_some_and(|parsed| parsed.matches(&mut memory, password.as_bytes()));
        // Django's argon2 is C, for which the text ends there; nobody has stored that.
        let is_refused = encoded.ends_with('\0');
        // What is not Django's, but our own.
        let is_own = encoded.starts_with("$argon2id$");
        assert_eq!(found, *matches && !is_refused || is_own, "{about}: {encoded:?} of {password:?}");
        if let Some(rehash) = rehash {
            assert_eq!(needs_rehash(&stored), *rehash, "{about}: {encoded:?}");
        }
    }
}

#[test]
fn md5_is_nobodys_unless_allowed() {
    let encoded = Secret::new(*b"md5$dIqTM2tW4k8zmqJ6Mj3Ov2$e00094dee4b9106cf5e8b8eecbd5ba49");
    assert!(Encoded::parse(&encoded, Allowed::default()).is_none());
    assert!(Encoded::parse(&encoded, MD5).is_some());
}

#[test]
fn costs_above_a_limit_are_not_read() {
    let (of_32, of_20, of_64) =
        ("o42gMAj04Dgl/Bknu2kwY207d2Fu0z+y9fyYQ+ig2u4=", "CBMQlabqMt/73O4UnZqcFAcmryM=", "A".repeat(86));
    let bcrypt = "jm4usEW0oWaSTdRAumyDfuNxEEBBmZT8FMRYlbhwzP9xiL2ZhyhOe";
    let argon2 = "NDgyTUlZMEpEU2ZtcDlua0kwMGpSaw$bJYSzNQENlXo6Ey2XVz/hESjYl3y7OQYl32qLGPK68g";
    for (encoded, usable) in [
        (format!("pbkdf2_sha256$10000000$salt${of_32}"), true),
        (format!("pbkdf2_sha256$10000001$salt${of_32}"), false),
        (format!("pbkdf2_sha256$4294967297$salt${of_32}"), false),
        (format!("pbkdf2_sha1$10000000$salt${of_20}"), true),
        (format!("pbkdf2_sha1$10000001$salt${of_20}"), false),
        (format!("pbkdf2_sha1$1$salt${of_32}"), false),
        (format!("bcrypt$$2b$16${bcrypt}"), true),
        (format!("bcrypt$$2b$17${bcrypt}"), false),
        (format!("bcrypt_sha256$$2b$31${bcrypt}"), false),
        (format!("argon2$argon2i$v=19$m=131072,t=8,p=16${argon2}"), true),
        (format!("argon2$argon2i$v=19$m=131073,t=8,p=16${argon2}"), false),
        (format!("argon2$argon2id$v=19$m=102400,t=9,p=8${argon2}"), false),
        (format!("argon2$argon2id$v=19$m=102400,t=2,p=17${argon2}"), false),
        // 128 times 8 times (N + 2 + p): up to 128 MiB.
        (format!("scrypt$65536$salt$8$5${of_64}=="), true),
        (format!("scrypt$131072$salt$8$1${of_64}=="), false),
        (format!("scrypt$16384$salt$8$32${of_64}=="), true),
        (format!("scrypt$16384$salt$8$33${of_64}=="), false),
        (format!("scrypt$2$salt$1000000$1${of_64}=="), false),
        (format!("scrypt$2$salt$1$2097152${of_64}=="), false),
        (format!("scrypt$2147483648$salt$4294967295$4294967295${of_64}=="), false),
        (format!("scrypt$32768$salt$1$1${of_64}=="), true),
        (format!("scrypt$65536$salt$1$1${of_64}=="), false),
        (format!("pbkdf2_sha256$1${}${of_32}", "s".repeat(400)), true),
        (format!("pbkdf2_sha256$1${}${of_32}", "s".repeat(500)), false),
    ] {
        assert_eq!(parse(&encoded).is_some(), usable, "{encoded}");
    }
}

#[test]
fn a_hash_of_few_bytes_is_not_read() {
    for output in ["", "AA", "AAAA", "AAAAAAAAAAAA"] {
        assert!(
            parse(format!("argon2$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ${output}")).is_none(),
            "{output}"
        );
    }
}

#[test]
fn bytes_that_are_no_text_are_not_read() {
    assert!(parse(b"md5$\xff$e00094dee4b9106cf5e8b8eecbd5ba49").is_none());
}

#[test]
fn every_algorithm_of_a_real_database_is_checked() {
    let mut memory = Memory::default();
    let check = Check { allowed: MD5, ..Check::default() };
    for (password, encoded) in [
        (
            "argon2-pass-1",
            "argon2$argon2id$v=19$m=102400,t=2,p=8$NDgyTUlZMEpEU2ZtcDlua0kwMGpSaw$\
             bJYSzNQENlXo6Ey2XVz/hESjYl3y7OQYl32qLGPK68g",
        ),
        ("bcryptsha-pass-1", "bcrypt_sha256$$2b$12$jm4usEW0oWaSTdRAumyDfuNxEEBBmZT8FMRYlbhwzP9xiL2ZhyhOe"),
        ("bcrypt-pass-1", "bcrypt$$2b$12$TK3aMEVHONChE1OAUJ2MdOcRKoVwyaOWj3Hlat6kqid.0Ux8ldJ9G"),
        (
            "scrypt-pass-1",
            "scrypt$16384$5EEvCrxHlatnI9lhHV3DYK$8$5$\
             pkg2PKf5Vm+mu2PiFCPu++JTSGxRYQofUX0u35W5H751O1WA6lNCvk2sOu4dW09xxud/JuhmZQZsP1wxbwTK9A==",
        ),
        ("sha1-pass-1", "pbkdf2_sha1$150000$saltsaltsaltsaltsaltsa$CBMQlabqMt/73O4UnZqcFAcmryM="),
        ("old-pass-1", "pbkdf2_sha256$260000$oldsaltoldsalt1$Mx8oj1HwxVUidQBXMozn3exvZXEqnkNUwXrzxo5IynI="),
        ("md5-pass-1", "md5$dIqTM2tW4k8zmqJ6Mj3Ov2$e00094dee4b9106cf5e8b8eecbd5ba49"),
    ] {
        let encoded = Secret::new(encoded);
        assert!(check.verify(&mut memory, password.as_bytes(), Some(&encoded)), "{password}");
        assert!(!check.verify(&mut memory, b"wrong", Some(&encoded)), "{password}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(parse(bytes));
    }

    /// Near enough to an encoding to come further.
    #[test]
    fn any_fields_are_read_without_panic(
        name in "pbkdf2_sha256|pbkdf2_sha1|argon2|bcrypt_sha256|bcrypt|scrypt|md5|",
        fields in proptest::collection::vec("[0-9]{1,11}|[A-Za-z0-9+/.]{0,90}={0,2}|2b|argon2id?|v=[0-9]{1,3}|m=[0-9]{1,9},t=[0-9],p=[0-9]{1,3}|\\PC{0,40}", 0..8),
    ) {
        drop(parse(format!("{name}${}", fields.join("$"))));
    }

    /// A character of a good encoding changed, gone or added: if it is read at all, its costs are within the limits,
    /// and the password matches no longer.
    #[test]
    fn a_bent_encoding_never_matches(
        choice in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        with in proptest::option::of(any::<char>()),
        adds in any::<bool>(),
    ) {
        let cheap = ["pbkdf2_sha256$3$", "pbkdf2_sha1$3$", "md5$"];
        let vectors = vectors();
        let good: Vec<&Vector> = vectors
            .iter()
            .filter(|vector| vector.about == "its own" && cheap.iter().any(|head| vector.encoded.starts_with(head)))
            .collect();
        let vector = choice.get(&good);
        let mut chars: Vec<char> = vector.encoded.chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..at + usize::from(!adds), with);
        let bent: String = chars.into_iter().collect();
        prop_assume!(bent != vector.encoded);
        if let Some(parsed) = parse(&bent) {
            prop_assert!(!parsed.matches(&mut Memory::default(), vector.password.as_bytes()), "{bent}");
        }
    }
}
