//! Django and doorward with one database, both running: `together.py` has the claims.
//!
//! Real processes, real TLS, and Django as it is installed by everybody: pip, in an environment under `target/`. Without
//! an index for pip the test fails and says so.

use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn what_one_side_does_the_other_knows() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/django");
    let prepared = Command::new(here.join("prepare")).stderr(Stdio::inherit()).output().unwrap();
    assert!(prepared.status.success(), "there is no Django to test with; see above");
    let python = String::from_utf8(prepared.stdout).unwrap();
    let together = Command::new(python.trim())
        .arg(here.join("together.py"))
        .arg(env!("CARGO_BIN_EXE_doorward"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&together.stdout), String::from_utf8_lossy(&together.stderr));
    println!("{out}\n{err}");
    assert!(together.status.success(), "a claim does not hold; see above");
    // It cannot pass by having claimed nothing.
    assert!(out.lines().filter(|line| line.starts_with("ok ")).count() >= 19, "claims are missing");
}
