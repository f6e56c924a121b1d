//! House rules: who may import whom, what every file begins with, and how large things have become.
//!
//! The check of imports works on text, so the spellings that would hide a module's name are banned.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom. A row names only rows above it, so there can be no cycle.
///
/// Of an earlier stage a stage takes the proof, the sanitised head and the body, and what is declared for it
/// (`Peer`, `Identity`): import arrows follow the flow of a request. Errors go the same way, up to `respond`.
const MAY_IMPORT: &[(&str, &str)] = &[
    // Vocabulary.
    ("secret", ""),
    ("clock", ""),
    ("header", ""),
    ("body", "header"),
    ("csrf", "body header"),
    ("identity", ""),
    ("django", "secret"),
    ("trace", "identity"),
    ("telemetry", "header identity trace"),
    // Settings.
    ("config", "header secret"),
    // Resources.
    ("cache", "clock header identity secret telemetry"),
    ("store", "cache clock config django identity secret"),
    ("password", "secret telemetry"),
    // The only writer.
    ("credentials", "cache clock django identity password secret store telemetry"),
    // Stages, in the order in which a request meets them.
    ("accept", "clock config header telemetry trace"),
    ("route", "config header"),
    (
        "authenticate",
        "accept body cache clock credentials csrf django header identity secret store telemetry trace",
    ),
    ("require_https", "accept authenticate config credentials header identity"),
    ("authorize", "authenticate config identity trace"),
    ("throttle", "accept authenticate authorize cache clock config identity secret trace"),
    ("cors", "accept"),
    ("navigation", "accept"),
    ("login", "authenticate clock credentials password secret store throttle"),
    ("forward", "accept authenticate config header identity throttle trace"),
    // Answers.
    (
        "respond",
        "accept authenticate authorize clock forward identity require_https route telemetry throttle trace",
    ),
    (
        "endpoint",
        "accept authenticate body clock config credentials csrf header identity login navigation password respond secret \
         store throttle trace",
    ),
    // What operators ask, apart from all of that.
    ("admin", ""),
    // Composition.
    (
        "gateway",
        "accept authenticate authorize cache config cors endpoint forward navigation require_https respond route \
         telemetry throttle trace",
    ),
    (
        "app",
        "accept admin authenticate cache clock config cors credentials csrf django endpoint forward gateway header \
         identity login password require_https respond route secret store telemetry throttle trace",
    ),
    ("cli", "accept app clock config credentials identity secret store telemetry"),
];

/// Names of the proofs, and the files that alone may make them.
const PROOFS: &[(&str, &str)] = &[
    ("Authenticated", "src/authenticate/mod.rs"),
    ("Permit", "src/authorize/mod.rs"),
    ("Admitted", "src/throttle/mod.rs"),
];

/// Modules of pure functions.
const PURE: &[&str] = &["body", "csrf", "django", "header"];

/// What those have no use for.
const IO: &[&str] =
    &["async fn", ".await", "tokio", "std::fs", "std::io", "std::process", "TcpStream", "UdpSocket"];

/// A source file.
struct Source {
    /// From the root of the package.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of these folders, sorted.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(path: &Path, found: &mut Vec<Source>) {
    // A folder that there is not yet has no faults.
    for entry in fs::read_dir(path).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source { path, text });
        }
    }
}

/// The program's lines: no comments, and not the tests at the end of the file.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    lines.map(str::trim).filter(|line| !line.starts_with("//"))
}

/// Module of the crate that a file belongs to; `None`: the crate's own root.
fn module(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    let name = rest.split('/').next()?.trim_end_matches(".rs");
    (name != "lib" && name != "main").then_some(name)
}

/// The modules that a line names.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    })
}

/// Everything that is wrong with the imports of one file.
fn import_faults(path: &str, text: &str, table: &[(&str, &str)]) -> Vec<String> {
    let Some(module) = module(path) else { return Vec::new() };
    let Some((_, allowed)) = table.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: the module {module} is not in the table of imports")];
    };
    // Tests at the end of a file and in tests.rs may use what they like, of what there is.
    if path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for line in code(text) {
        if line.contains("crate::{") || line.contains("crate as ") || line.contains("crate::*") {
            faults.push(format!("{path}: names of modules are hidden: {line}"));
        }
        if line.contains("super::") {
            faults.push(format!("{path}: write the whole path: {line}"));
        }
        for other in named(line).filter(|other| *other != module && !other.is_empty()) {
            if !allowed.split_whitespace().any(|name| name == other) {
                faults.push(format!("{path}: {module} may not import {other}: {line}"));
            }
        }
    }
    faults
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn imports_follow_the_table() {
    let faults: Vec<String> = sources(&["src"])
        .iter()
        .flat_map(|source| import_faults(&source.path, &source.text, MAY_IMPORT))
        .collect();
    assert_none(&faults);
}

#[test]
fn the_table_of_imports_has_no_cycle_and_no_stranger() {
    let mut above = BTreeSet::new();
    for (module, allowed) in MAY_IMPORT {
        for name in allowed.split_whitespace() {
            assert!(above.contains(name), "{module} names {name}, which is not above it");
        }
        assert!(above.insert(*module), "{module} is there twice");
    }
    let sources = sources(&["src"]);
    let modules: BTreeSet<&str> = sources.iter().filter_map(|source| module(&source.path)).collect();
    assert_eq!(modules, above, "the table has the modules that there are");
}

#[test]
fn wrong_imports_are_found() {
    let table: &[(&str, &str)] = &[("header", ""), ("accept", "header")];
    let found = |path: &str, text: &str| import_faults(path, text, table).len();
    assert_eq!(found("src/accept/head.rs", "use crate::header::X;\nuse crate::accept::Y;"), 0);
    assert_eq!(found("src/header/mod.rs", "use crate::accept::X;"), 1);
    assert_eq!(found("src/header/mod.rs", "    let x = f(crate::accept::g(), crate::store::h());"), 2);
    assert_eq!(found("src/header.rs", "pub use crate::accept as header;"), 1);
    assert_eq!(found("src/accept/head.rs", "use crate::{header, header::X};"), 1);
    assert_eq!(found("src/accept/head.rs", "use super::peer::Peer;"), 1);
    assert_eq!(found("src/accept/head.rs", "pub(super) fn f() {}"), 0);
    assert_eq!(found("src/accept/head.rs", "// use crate::store::X;\n/// [`crate::store`]"), 0);
    assert_eq!(
        found("src/accept/head.rs", "#[cfg(test)]\nmod tests {\nuse super::*;\nuse crate::store::X;\n}"),
        0
    );
    assert_eq!(found("src/other.rs", ""), 1);
    assert_eq!(found("src/lib.rs", "use crate::store::X;"), 0);
}

#[test]
fn hidden_names_are_banned_in_unit_tests_too() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        for line in source.text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let is_banned = line.starts_with("use super::") && line != "use super::*;";
            if is_banned || line.starts_with("use crate::{") {
                faults.push(format!("{}: {line}", source.path));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn proofs_are_made_by_their_stage_alone() {
    let sources = sources(&["src"]);
    for (proof, home) in PROOFS {
        let file = sources.iter().find(|source| source.path == *home).unwrap();
        let (before, rest) = file.text.split_once(&format!("pub struct {proof} {{\n")).unwrap();
        let (fields, _) = rest.split_once("\n}").unwrap();
        assert!(!fields.contains("pub"), "{proof} has a field that others can set");
        let attributes = before.rsplit("\n\n").next().unwrap();
        assert!(attributes.contains("#[must_use]"), "{proof} may be forgotten");
        for copies in ["Clone", "Copy", "Default"] {
            assert!(!attributes.contains(copies), "{proof} is {copies}: it could be had without the stage");
        }
        // The fields are private, so the compiler sees to all other files; within the module it is up to us.
        for source in sources.iter().filter(|source| source.path != *home) {
            let made = code(&source.text).find(|line| line.contains(&format!(" {proof} {{")));
            assert!(made.is_none(), "{}: {made:?}", source.path);
        }
    }
}

#[test]
fn grammar_does_no_io() {
    let mut faults = Vec::new();
    let is_pure = |source: &Source| module(&source.path).is_some_and(|name| PURE.contains(&name));
    for source in sources(&["src"]).iter().filter(|source| is_pure(source)) {
        for line in code(&source.text) {
            if IO.iter().any(|name| line.contains(name)) {
                faults.push(format!("{}: {line}", source.path));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let mut faults = Vec::new();
    for source in sources(&["src"]).iter().filter(|source| module(&source.path) != Some("config")) {
        faults.extend(
            code(&source.text)
                .filter(|line| line.contains("env::var"))
                .map(|line| format!("{}: {line}", source.path)),
        );
    }
    assert_none(&faults);
}

#[test]
fn every_file_says_what_it_is_for() {
    let faults: Vec<String> = sources(&["src", "tests", "benches"])
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: does not begin with //!", source.path))
        .collect();
    assert_none(&faults);
}

#[test]
fn what_is_left_to_do_has_a_number() {
    let mut faults = Vec::new();
    // Written apart, so that this file has none.
    for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
        for source in sources(&["src", "tests", "benches"]) {
            for line in source.text.lines() {
                let numbered = |rest: &str| rest.starts_with("(#") && rest.contains(')');
                if line.split(word).skip(1).any(|rest| !numbered(rest)) {
                    faults.push(format!("{}: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert_none(&faults);
}

/// A report, not a gate: what has grown is to be looked at.
#[test]
fn the_longest_are_shown() {
    let mut sources = sources(&["src"]);
    sources.retain(|source| !source.path.ends_with("/tests.rs"));
    let mut files: Vec<(usize, &str)> =
        sources.iter().map(|source| (code(&source.text).count(), source.path.as_str())).collect();
    let mut functions: Vec<(usize, String)> =
        sources.iter().flat_map(|source| functions(&source.path, &source.text)).collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    functions.sort_unstable_by(|a, b| b.cmp(a));
    println!("longest files, in lines without comments and tests:");
    for (lines, path) in files.iter().take(10) {
        println!("{lines:5}  {path}");
    }
    println!("longest functions:");
    for (lines, name) in functions.iter().take(10) {
        println!("{lines:5}  {name}");
    }
    assert!(functions.len() > 100, "the report finds {} functions only", functions.len());
}

/// Lines of each function, found by the indentation that rustfmt gives it.
fn functions(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in text.lines().take_while(|line| line.trim() != "#[cfg(test)]").enumerate() {
        let indentation = line.len() - line.trim_start().len();
        let Some((start, depth, name)) = &open else {
            open = opening(line).map(|name| (number, indentation, name.to_owned()));
            continue;
        };
        if indentation == *depth && line.trim() == "}" {
            found.push((number - start + 1, format!("{path}: {name}")));
            open = None;
        } else if indentation == *depth && line.trim_end().ends_with(';') {
            // Declared in a trait, on lines of its own.
            open = None;
        }
    }
    found
}

/// Name of a function that begins on this line and does not end on it.
fn opening(line: &str) -> Option<&str> {
    let is_comment = line.trim_start().starts_with("//");
    let is_whole = line.trim_end().ends_with(['}', ';']);
    let name = line.split_once("fn ").and_then(|(_, rest)| rest.split(['(', '<']).next());
    name.filter(|_| !is_comment && !is_whole)
}
