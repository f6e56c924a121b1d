//! What a check of each of Django's encodings costs at Django 5.2's defaults, and what the same hash costs Python's
//! `hashlib` on the same machine, in turns within the same run.
//!
//!     nice cargo bench --bench password
//!
//! CPU time of the process, so that neighbours matter less; `python3` has to be there.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench: a panic is a failed run")]

use doorward::password::Passwords;
use doorward::secret::Secret;
use rustix::time::{ClockId, clock_gettime};
use std::num::NonZeroUsize;
use std::process::Command;
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;

/// An encoding of the word "password" or of any other, and the same in Python, if its library has it.
const CASES: [(&str, &str, Option<&str>); 5] = [
    (
        "pbkdf2_sha256, 1,000,000",
        "pbkdf2_sha256$1000000$x1PPe65bm6orUYFXw17k5f$o42gMAj04Dgl/Bknu2kwY207d2Fu0z+y9fyYQ+ig2u4=",
        Some("hashlib.pbkdf2_hmac('sha256', b'password', b'x1PPe65bm6orUYFXw17k5f', 1000000)"),
    ),
    (
        "pbkdf2_sha1, 1,000,000",
        "pbkdf2_sha1$1000000$x1PPe65bm6orUYFXw17k5f$CBMQlabqMt/73O4UnZqcFAcmryM=",
        Some("hashlib.pbkdf2_hmac('sha1', b'password', b'x1PPe65bm6orUYFXw17k5f', 1000000)"),
    ),
    (
        "scrypt, 16384, 8, 5",
        "scrypt$16384$5EEvCrxHlatnI9lhHV3DYK$8$5$pkg2PKf5Vm+mu2PiFCPu++JTSGxRYQofUX0u35W5H751O1WA6lNCvk2sOu4dW09xxud/JuhmZQZsP1wxbwTK9A==",
        Some("hashlib.scrypt(b'password', salt=b'5EEvCrxHlatnI9lhHV3DYK', n=16384, r=8, p=5, dklen=64)"),
    ),
    ("bcrypt_sha256, 12", "bcrypt_sha256$$2b$12$jm4usEW0oWaSTdRAumyDfuNxEEBBmZT8FMRYlbhwzP9xiL2ZhyhOe", None),
    (
        "argon2, 100 MiB, 2, 8",
        "argon2$argon2id$v=19$m=102400,t=2,p=8$NDgyTUlZMEpEU2ZtcDlua0kwMGpSaw$bJYSzNQENlXo6Ey2XVz/hESjYl3y7OQYl32qLGPK68g",
        None,
    ),
];

fn main() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let passwords = Passwords::new(NonZeroUsize::MIN, 1).unwrap();
    println!("Python with {}", python("import ssl; print(ssl.OPENSSL_VERSION)"));
    println!("{:<26} {:>9} {:>9} {:>6}  each round", "ms, median of 7", "doorward", "Python", "ratio");
    for (name, encoded, work) in CASES {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let our = verify(&runtime, &passwords, encoded);
            ours.push(our);
            if let Some(work) = work {
                let their = hashlib(work);
                theirs.push(their);
                ratios.push(our / their);
            }
        }
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let (ours, theirs, ratio) = (median(ours, 1), median(theirs, 1), median(ratios, 2));
        println!("{name:<26} {ours:>9} {theirs:>9} {ratio:>6}  {}", each.join(" "));
    }
}

/// CPU time (ms) of one check.
fn verify(runtime: &Runtime, passwords: &Passwords, encoded: &str) -> f64 {
    let began = cpu_ms();
    runtime.block_on(passwords.verify(Secret::new(*b"password"), Some(Secret::new(encoded)))).unwrap();
    cpu_ms() - began
}

#[expect(clippy::cast_precision_loss, reason = "a few seconds")]
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// CPU time (ms) of one call, without the interpreter's start.
fn hashlib(work: &str) -> f64 {
    let measured = format!(
        "import hashlib, time; began = time.process_time(); {work}; print((time.process_time() - began) * 1e3)"
    );
    python(&measured).parse().unwrap()
}

fn python(program: &str) -> String {
    let output = Command::new("python3").args(["-c", program]).output().unwrap();
    assert!(output.status.success(), "python3: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Nothing of nothing.
fn median(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).map(|value| format!("{value:.digits$}")).unwrap_or_default()
}
