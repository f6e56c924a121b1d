//! `doorward bench lookup`.

use crate::{HANG, Home};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::process::{Command, Output};
use std::sync::mpsc::channel;

const CASES: [&str; 5] = ["local-hit", "store-hit", "unknown-token", "unknown-token-again", "request"];
const SLOW_BUILD: &str =
    "warning: this doorward was built without optimisation and is many times slower: use --release\n";

/// The command, with a directory of its own for what goes away.
fn bench(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(&[&["bench", "lookup"], arguments].concat());
    fs::create_dir_all(home.path("tmp")).unwrap();
    command.env("TMPDIR", home.path("tmp"));
    command
}

/// The names in a directory of the home.
fn names(home: &Home, directory: &str) -> BTreeSet<OsString> {
    fs::read_dir(home.path(directory)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// What it wrote to standard output; all went well, and nothing is left behind.
fn good(home: &Home, output: Output) -> String {
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(errors, if cfg!(debug_assertions) { SLOW_BUILD } else { "" });
    assert_eq!(names(home, "tmp"), BTreeSet::new(), "the store is removed");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_json_says_is_complete_and_sane() {
    let home = Home::new();
    let said: Value =
        serde_json::from_str(&good(&home, bench(&home, &["--tokens", "300", "--json"]).output().unwrap()))
            .unwrap();
    assert_eq!(said["doorward"], env!("CARGO_PKG_VERSION"));
    assert_eq!(said["optimised"], !cfg!(debug_assertions));
    assert!(said["machine"]["cores"].as_u64().unwrap() >= 1);
    let store = &said["store"];
    assert_eq!(
        (&store["kind"], &store["tokens"], &store["users"]),
        (&"sqlite".into(), &300.into(), &3.into())
    );
    assert!(store["bytes"].as_u64().unwrap() > 300 * 32, "{store}");
    assert!(store["fill_seconds"].as_f64().unwrap() > 0.0, "{store}");
    assert!(said["clock_ns"].as_u64().unwrap() < 100_000, "{said}");
    let cases = said["cases"].as_array().unwrap();
    let named: Vec<&str> = cases.iter().map(|case| case["case"].as_str().unwrap()).collect();
    assert_eq!(named, CASES);
    for (case, samples) in cases.iter().zip([10_000, 1000, 1000, 8000, 1000]) {
        check(case, samples);
    }
    let median = |place: usize| cases[place]["ns"]["p50"].as_u64().unwrap();
    for (fast, slow) in [(0, 1), (3, 2), (0, 4)] {
        assert!(median(fast) < median(slow), "{} {}", cases[fast], cases[slow]);
    }
}

/// One case, with so many samples.
fn check(case: &Value, samples: u64) {
    assert_eq!(case["samples"], samples, "{case}");
    assert!(case["strays"].as_u64().unwrap() <= samples / 4, "{case}");
    assert_eq!(case["connections"].is_null(), case["case"] != "request", "{case}");
    let time =
        |key: &str| case["ns"].get(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key}: {case}"));
    let times = ["p50", "p90", "p99", "p99.9", "max"].map(time);
    assert!(times[0] > 0.0 && times.is_sorted(), "{case}");
    assert!(time("mean") > 0.0 && time("mean") <= time("max"), "{case}");
    let (seconds, rate) = (case["seconds"].as_f64().unwrap(), case["per_second"].as_f64().unwrap());
    let count = u32::try_from(samples).unwrap();
    assert!(seconds > 0.0 && (rate * seconds / f64::from(count) - 1.0).abs() < 1e-6, "{case}");
    if case["connections"].is_null() {
        // One after the other: the mean is the share of the time, to three digits.
        assert!((time("mean") * rate / 1e9 - 1.0).abs() < 0.01, "{case}");
    }
}

#[test]
fn a_table_and_a_plot_are_made_for_people() {
    let home = Home::new();
    fs::write(home.path("plot.svg"), "an older plot").unwrap();
    let text = good(&home, bench(&home, &["--tokens", "20", "--plot", "plot.svg"]).output().unwrap());
    let table: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.starts_with("CASE "))
        .take_while(|line| !line.is_empty())
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
    assert_eq!(table[0], ["CASE", "SAMPLES", "MEAN", "P50", "P90", "P99", "P99.9", "MAX", "PER SECOND"]);
    let rows: Vec<&str> = table[1..].iter().map(|row| row[0]).collect();
    assert_eq!(rows, CASES, "{text}");
    for row in &table[1..] {
        assert_eq!(row.len(), 9, "{text}");
        let units = [" ns", " µs", " ms", " s"];
        assert!(row[2..8].iter().all(|time| units.iter().any(|unit| time.ends_with(unit))), "{text}");
    }
    for part in ["doorward ", " core", "20 tokens of 1 user", "MiB", "loopback", "kept open"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }

    let svg = fs::read_to_string(home.path("plot.svg")).unwrap();
    let plot = roxmltree::Document::parse(&svg).unwrap();
    assert_eq!(plot.root_element().tag_name().name(), "svg");
    let texts: Vec<&str> = plot.descendants().filter_map(|node| node.text()).map(str::trim).collect();
    for label in CASES.iter().chain(&["time", "90 %", "99.9 %", "1 ms"]) {
        assert!(texts.contains(label), "{label}: {texts:?}");
    }
    let lines = plot.descendants().filter(|node| node.tag_name().name() == "polyline");
    assert!(lines.count() >= CASES.len());
    assert_eq!(names(&home, "."), ["doorward.toml", "plot.svg", "tmp"].map(OsString::from).into());
}

#[test]
fn a_plot_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let home = Home::new();
    for (file, why) in [("missing/plot.svg", "No such file"), ("tmp", "it is there and no file")] {
        // A number of tokens that would take minutes.
        let output = bench(&home, &["--tokens", "1000000", "--plot", file]).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{errors}");
        assert!(errors.starts_with(&format!("error: cannot write {file}: {why}")), "{errors}");
        assert_eq!(names(&home, "tmp"), BTreeSet::new());
    }
    for tokens in ["0", "1000001", "-1", "many"] {
        let refused = home.run(&["bench", "lookup", &format!("--tokens={tokens}")]);
        assert_eq!(refused.code, 2, "{}", refused.errors);
        assert!(refused.errors.contains("from 1 to 1000000"), "{}", refused.errors);
    }
}

#[test]
fn ctrl_c_ends_it_and_removes_the_store() {
    let home = Home::new();
    // Stopped while the store is filled, and while something is measured.
    for (tokens, marker) in [("1000000", "doorward.db-wal"), ("100", "certs")] {
        let mut child = bench(&home, &["--tokens", tokens, "--plot", "plot.svg"]).spawn().unwrap();
        wait_for(&home, marker);
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let (told, ended) = channel();
        let pid = Pid::from_child(&child);
        let waiting = std::thread::spawn(move || {
            let code = child.wait().unwrap().code();
            told.send(()).unwrap();
            let mut output = String::new();
            child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
            (code, output)
        });
        if ended.recv_timeout(HANG).is_err() {
            kill_process(pid, Signal::KILL).unwrap();
        }
        let (code, output) = waiting.join().unwrap();
        assert_eq!((code, output.as_str()), (Some(130), ""), "{tokens}");
        assert_eq!(names(&home, "tmp"), BTreeSet::new(), "{tokens}");
        assert_eq!(names(&home, "."), ["doorward.toml", "tmp"].map(OsString::from).into(), "{tokens}");
    }
}

/// Waits until the store's directory has this.
fn wait_for(home: &Home, marker: &str) {
    for _ in 0..3000 {
        let stores = names(home, "tmp");
        if stores.iter().any(|store| home.path("tmp").join(store).join(marker).exists()) {
            return;
        }
        crate::pause(std::time::Duration::from_millis(10));
    }
    panic!("no {marker}");
}

#[test]
fn a_bar_is_shown_at_a_terminal() {
    let home = Home::new();
    let (code, shown) = home.at_terminal("bench lookup --tokens 20", "");
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains(" %") && shown.contains("[#"), "{shown}");
    assert!(shown.contains("unknown-token-again") && shown.contains("PER SECOND"), "{shown}");
}
