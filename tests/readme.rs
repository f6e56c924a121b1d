//! The README says what is so: its examples are good files, its tables are true, its invariants have their tests.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use doorward::accept::tls::self_signed;
use doorward::config::{Config, Limits, Loaded, Source};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Contents of the fenced blocks of one language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    let starts = text.split(opening.as_str()).skip(1);
    starts.map(|rest| rest.split_once("\n```").unwrap().0).collect()
}

/// From a heading to the next one.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    rest.split_once("\n## ").map_or(rest, |(section, _)| section)
}

/// What the examples name: a directory with certificates, and an environment.
struct Surroundings(TempDir);

impl Surroundings {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certs = directory.path().join("certs");
        let made = self_signed(&certs, &["example.com".to_owned()]).unwrap();
        for name in ["example", "partners", "internal-ca"] {
            fs::copy(&made.cert, certs.join(format!("{name}.pem"))).unwrap();
            fs::copy(&made.key, certs.join(format!("{name}.key"))).unwrap();
        }
        Self(directory)
    }

    fn parse(&self, text: &str) -> Loaded {
        let source = Source {
            name: "README.md".to_owned(),
            directory: self.0.path().to_owned(),
            environment: variable,
        };
        Config::parse(text, &source).unwrap_or_else(|error| panic!("{error}\n\n{text}"))
    }
}

fn variable(name: &str) -> Option<OsString> {
    match name {
        "DOORWARD_STORE" => Some(OsString::from("sqlite:doorward.db")),
        "DOORWARD_KEY" => Some(OsString::from("0123456789abcdef0123456789abcdef")),
        "DOORWARD_REDIS" => Some(OsString::from("redis://doorward:password@redis.example.com:6379/0")),
        "DJANGO_SECRET_KEY" => Some(OsString::from("django-insecure-of-a-test")),
        _ => None,
    }
}

#[test]
fn every_example_is_a_good_file() {
    let surroundings = Surroundings::new();
    let readme = read("README.md");
    let examples = blocks(&readme, "toml");
    assert!(examples.len() >= 10, "{}", examples.len());
    for example in examples {
        let warnings = surroundings.parse(example).warnings;
        let expected = usize::from(example.contains("forward_credentials = true"));
        assert_eq!(warnings.len(), expected, "{warnings:#?}\n\n{example}");
    }
}

#[test]
fn every_example_of_the_documents_is_a_good_file() {
    let surroundings = Surroundings::new();
    let mut found = 0;
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for example in blocks(&text, "toml") {
            // Spans are a feature of the build, whose tests read this section.
            if example.starts_with("[traces]") {
                continue;
            }
            let part = "[upstreams.a]\nservers = [\"http://127.0.0.1:9000\"]\n[routes.a]\npath = \"/\"\nupstream = \"a\"\n";
            let rest = if example.contains("[routes.") { "" } else { part };
            let warnings = surroundings.parse(&format!("{example}\n{rest}")).warnings;
            assert!(warnings.is_empty(), "{}: {warnings:#?}\n\n{example}", path.display());
            found += 1;
        }
    }
    assert!(found >= 4, "{found}");
}

#[test]
fn the_smallest_file_is_the_first_example() {
    let readme = read("README.md");
    let first = blocks(&readme, "toml")[0];
    assert_eq!(first, blocks(section(&readme, "Your own backend"), "toml")[0]);
    let config = Surroundings::new().parse(first).config;
    assert_eq!((config.routes.len(), config.upstreams.len()), (1, 1));
    // Everything else is a default.
    assert_eq!(config.limits, Limits::default());
}

/// The first two commands of the README are what a newcomer runs; what runs them is no other than what CI runs.
#[test]
fn the_first_two_commands_are_those_that_ci_runs() {
    let readme = read("README.md");
    let commands = blocks(&readme, "sh");
    assert_eq!(commands[..2], ["cargo run --release -- demo", "scripts/test"]);
    let ci = read(".ci/run");
    assert!(ci.lines().any(|line| line == "step scripts/test"), "{ci}");
    let script = read("scripts/test");
    assert!(script.lines().any(|line| line.starts_with("cargo test ")), "{script}");
    // `cargo run` runs this binary; tests/demo.rs runs it with the same argument.
    assert!(read("Cargo.toml").lines().any(|line| line == "default-run = \"doorward\""));
    let demo = read("tests/demo.rs");
    assert!(demo.contains("CARGO_BIN_EXE_doorward") && demo.contains(".arg(\"demo\")"), "{demo}");
}

#[test]
fn the_table_of_limits_is_true() {
    let readme = read("README.md");
    let rows: Vec<(&str, &str)> = section(&readme, "Limits").lines().filter_map(row).collect();
    // The names of all limits there are, from what the type shows of itself.
    let shown = format!("{:#?}", Limits::default());
    let fields: Vec<&str> = shown.lines().filter_map(field).collect();
    let names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, fields, "the table has the limits in the order of the file");
    // What the table says is what the defaults are, and what they would be if it were written in a file.
    let written: Vec<String> = rows.iter().map(|(name, value)| assignment(name, value)).collect();
    let smallest = blocks(&readme, "toml")[0];
    let text = format!("[limits]\n{}\n{smallest}", written.join("\n"));
    assert_eq!(Surroundings::new().parse(&text).config.limits, Limits::default());
}

/// Name and value of a row such as "| `a` | `b` | … |".
fn row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| `")?.split(" | ");
    let name = cells.next()?.strip_suffix('`')?;
    let value = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
    Some((name, value))
}

/// Name of a field of a struct in pretty debug output.
fn field(line: &str) -> Option<&str> {
    let name = line.strip_prefix("    ")?.split_once(": ")?.0;
    (!name.starts_with(' ')).then_some(name)
}

fn assignment(name: &str, value: &str) -> String {
    let is_count = value.bytes().all(|byte| byte.is_ascii_digit());
    if is_count { format!("{name} = {value}") } else { format!("{name} = \"{value}\"") }
}

fn is(value: impl Debug, expected: &str) {
    assert_eq!(format!("{value:?}"), expected);
}

#[test]
fn defaults_in_prose_are_true() {
    let readme = read("README.md");
    let config = Surroundings::new().parse(blocks(&readme, "toml")[0]).config;
    is(config.listen.https, "[[::]:8443]");
    is(config.cache.capacity >> 20, "64");
    is(config.cache.revocation_bound, "1s");
    is(config.cache.stale_while_unreachable, "60s");
    is(config.tokens.ttl.map(|ttl| ttl.as_secs() / 86_400), "Some(30)");
    is(config.identity.user.as_str(), "\"remote-user\"");
    is(config.routes[0].max_body >> 20, "10");
    is((config.upstreams[0].connections, config.upstreams[0].queue_time), "(512, 1s)");
    let guard = config.authentication.guard;
    is(guard.address.map(|rate| rate.count), "Some(20)");
    is(guard.address_and_user.map(|rate| rate.count), "Some(5)");
    is((guard.user_delay, doorward::config::USER_DELAY_MAX), "(Some(2s), 30s)");
    for told in ["20 a minute", "5 a minute", "2 seconds for each but the first, 30 at most"] {
        assert!(readme.contains(told), "{told}");
    }
    for told in
        ["`[::]:8443`", "(`64MiB`)", "**1 second**", "(60 s;", "30 days", "(`10MiB`", "(`512`", "(`1s`)"]
    {
        assert!(readme.contains(told), "{told}");
    }
}

/// Every `fn NAME` of a test in the tree, and every claim of a list of claims.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests"] {
        each_source(&root().join(folder), &mut |text| {
            for line in text.lines() {
                let line = line.trim_start();
                let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn "));
                if let Some((name, _)) = rest.and_then(|rest| rest.split_once('(')) {
                    names.insert(name.to_owned());
                }
            }
        });
    }
    names
}

fn each_source(path: &Path, visit: &mut impl FnMut(&str)) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_source(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let readme = read("README.md");
    let names = test_names();
    let invariants: Vec<&str> =
        section(&readme, "Invariants").lines().filter(|line| line.starts_with("- ")).collect();
    assert!(invariants.len() >= 15, "{}", invariants.len());
    for invariant in invariants {
        let (_, tests) = invariant
            .split_once(" Tests: ")
            .or_else(|| invariant.split_once(" Test: "))
            .unwrap_or_else(|| panic!("no test is named: {invariant}"));
        // Between backticks is every second piece.
        for name in tests.split('`').skip(1).step_by(2) {
            assert!(names.contains(name), "there is no test {name}: {invariant}");
        }
    }
}

#[test]
fn every_file_that_is_linked_exists() {
    for document in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "docs/fronting.md",
        "docs/login.md",
        "docs/logs.md",
        "docs/service.md",
    ] {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            let is_elsewhere = target.starts_with("https://") || target.starts_with('#');
            let path = target.split('#').next().unwrap();
            assert!(is_elsewhere || folder.join(path).exists(), "{document}: {target}");
        }
    }
}
