//! What is packed around the binary: units that systemd takes without a word, examples that are good files.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use doorward::accept::tls::self_signed;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Ten times the exposure that `systemd-analyze security` may find at most; docs/service.md names it.
const EXPOSURE_MAX: u32 = 12;
/// Longest time until an example serves.
const START_TIME_MAX: Duration = Duration::from_secs(30);
const UNITS: [&str; 3] = ["doorward.service", "doorward.socket", "doorward-http.socket"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn analyze(arguments: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .output()
        .expect("systemd-analyze; scripts/test installs it")
}

/// What systemd says to these units, installed in a root of their own.
fn verify(edit: impl Fn(&str, String) -> String) -> String {
    let machine = tempfile::tempdir().unwrap();
    let units = machine.path().join("usr/lib/systemd/system");
    fs::create_dir_all(&units).unwrap();
    for program in ["usr/bin/doorward", "bin/kill"] {
        let path = machine.path().join(program);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // What every unit comes after.
    for entry in fs::read_dir("/usr/lib/systemd/system").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "target" || kind == "slice") {
            fs::copy(&path, units.join(path.file_name().unwrap())).unwrap();
        }
    }
    for unit in UNITS {
        let text = edit(unit, read(&format!("packaging/systemd/{unit}")));
        fs::write(units.join(unit), text).unwrap();
    }
    let elsewhere = format!("--root={}", machine.path().display());
    let output = analyze(&[&["verify", "--man=no", elsewhere.as_str()], &UNITS[..]].concat());
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    // It warns and ends with 0; where it fails it says why.
    assert!(output.status.success() || !told.is_empty());
    told
}

#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    assert_eq!(verify(|_, text| text), "");
    let misspelt = verify(|_, text| text.replace("LockPersonality", "LockPersonalty"));
    assert!(misspelt.contains("LockPersonalty"), "{misspelt:?}");
}

#[test]
fn the_service_is_hardly_exposed() {
    let unit = root().join("packaging/systemd/doorward.service");
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let output = analyze(&["security", "--offline=yes", "--no-pager", &threshold, unit.to_str().unwrap()]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("Overall exposure level"), "{told}");
    // What the issue asks for by name, whatever it counts for.
    let text = read("packaging/systemd/doorward.service");
    for line in ["NoNewPrivileges=yes", "PrivateUsers=yes", "CapabilityBoundingSet=", "ProtectSystem=strict"]
    {
        assert!(text.lines().any(|other| other == line), "{line}");
    }
    assert!(text.lines().any(|line| line.starts_with("LoadCredential=")));
    let whole = EXPOSURE_MAX / 10;
    let bound = format!("{whole}.{} at most", EXPOSURE_MAX - 10 * whole);
    assert!(read("docs/service.md").contains(&bound), "{bound}");
}

#[test]
fn the_sockets_are_named_as_the_lists_of_the_file() {
    for (unit, name) in [("doorward.socket", "https"), ("doorward-http.socket", "http")] {
        let text = read(&format!("packaging/systemd/{unit}"));
        assert!(text.contains(&format!("\nFileDescriptorName={name}\n")), "{unit}");
    }
}

/// How cargo-deb packs.
fn deb() -> toml::Table {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    manifest["package"]["metadata"]["deb"].as_table().unwrap().clone()
}

/// Files that are packed, by their place on the machine; not what scripts/package builds.
fn packed() -> BTreeMap<PathBuf, String> {
    let deb = deb();
    let assets = deb["assets"].as_array().unwrap();
    let mut packed = BTreeMap::new();
    for asset in assets {
        let (source, place) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
        if source.starts_with("target/release/") {
            continue;
        }
        let (folder, name) = source.rsplit_once('/').unwrap_or(("", source));
        let names: Vec<_> = match name.strip_prefix('*') {
            Some(ending) => names_in(folder).into_iter().filter(|name| name.ends_with(ending)).collect(),
            None => vec![name.to_owned()],
        };
        assert!(!names.is_empty(), "{source}");
        for name in names {
            let source = Path::new(folder).join(&name);
            assert!(root().join(&source).is_file(), "{}", source.display());
            let place = if place.ends_with('/') { Path::new(place).join(&name) } else { place.into() };
            packed.insert(place, source.to_str().unwrap().to_owned());
        }
    }
    packed
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Files that a document links to, by their places.
fn linked(document: &Path, text: &str) -> Vec<PathBuf> {
    let targets = text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap());
    let files = targets.filter(|target| !target.is_empty() && !target.contains(':'));
    let place = |target: &str| {
        let mut place = document.parent().unwrap().to_owned();
        for part in target.split('/') {
            match part {
                ".." => assert!(place.pop(), "{target}"),
                part => place.push(part),
            }
        }
        place
    };
    files.map(place).collect()
}

#[test]
fn everything_that_is_packed_exists_and_so_does_what_it_names() {
    let packed = packed();
    assert!(packed.len() > 25, "{packed:#?}");
    let (mut links, mut mentions) = (0, 0);
    for (place, source) in &packed {
        let text = read(source);
        if place.extension().is_some_and(|kind| kind == "md") {
            for target in linked(place, &text) {
                assert!(packed.contains_key(&target), "{source} links to {}", target.display());
                links += 1;
            }
        }
        for rest in text.split("/usr/share/doc/doorward/").skip(1) {
            let name = rest.split([' ', '\n', '`', ')']).next().unwrap().trim_end_matches('.');
            let named = Path::new("usr/share/doc/doorward").join(name);
            assert!(packed.contains_key(&named), "{source} names {}", named.display());
            mentions += 1;
        }
    }
    assert!(links > 20 && mentions >= 4, "{links} {mentions}");
    for wanted in names_in("docs").into_iter().map(|name| format!("docs/{name}")) {
        assert!(packed.values().any(|source| *source == wanted), "{wanted}");
    }
    for unit in UNITS {
        assert!(packed.values().any(|source| *source == format!("packaging/systemd/{unit}")), "{unit}");
    }
    let scripts = root().join(deb()["maintainer-scripts"].as_str().unwrap());
    for script in ["postinst", "prerm", "postrm"] {
        let path = scripts.join(script);
        assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success(), "{script}");
        assert!(fs::read_to_string(&path).unwrap().contains("\nset -e\n"), "{script}");
    }
}

#[test]
fn the_container_is_built_by_our_toolchain_and_runs_as_nobody() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let toolchain = manifest["package"]["rust-version"].as_str().unwrap();
    let text = read("Containerfile");
    assert!(text.contains(&format!("FROM docker.io/library/rust:{toolchain}-")), "{toolchain}");
    let (_, last) = text.rsplit_once("\nFROM ").unwrap();
    assert!(last.starts_with("gcr.io/distroless/") && last.contains("\nUSER 65532:65532\n"), "{last}");
}

fn examples() -> Vec<(String, String)> {
    let directory = root().join("config/examples");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found.push((name, fs::read_to_string(&path).unwrap()));
    }
    found.sort();
    found
}

/// A directory with this file, and the certificates that examples name.
fn site(text: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("certs");
    let made = self_signed(&certs, &["example.com".to_owned()]).unwrap();
    for name in ["example", "shop", "intern", "internal-ca", "tls"] {
        fs::copy(&made.cert, certs.join(format!("{name}.pem"))).unwrap();
        fs::copy(&made.cert, certs.join(format!("{name}.crt"))).unwrap();
        fs::copy(&made.key, certs.join(format!("{name}.key"))).unwrap();
    }
    fs::write(directory.path().join("doorward.toml"), text).unwrap();
    directory
}

/// What `doorward check` says to a file, where its certificates are.
fn check(text: &str) -> (bool, String) {
    let directory = site(text);
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    let output =
        command.arg("--config").arg(directory.path().join("doorward.toml")).arg("check").output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_example_is_a_good_file_without_a_warning() {
    let examples = examples();
    assert!(examples.len() >= 8, "{}", examples.len());
    for (name, text) in &examples {
        assert_eq!(check(text), (true, String::new()), "{name}");
        assert!(text.starts_with("# "), "{name} does not say what it is for");
        assert!(
            read("docs/service.md").contains(&format!("examples/{name}")),
            "{name} is not in docs/service.md"
        );
    }
    // A file that is not good is found.
    assert!(!check(&examples[0].1.replace("[upstreams.", "[upstream.")).0);
}

/// The same configuration on free ports, with its state beside the file.
fn movable(text: &str) -> String {
    let here = text.replace("/var/lib/doorward/", "").replace("/run/doorward/", "");
    let mut file: toml::Table = here.parse().unwrap();
    let listen = file.entry("listen").or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
    let free: toml::Value = vec!["127.0.0.1:0"].into();
    for list in ["https", "http"] {
        if list == "https" || listen.contains_key(list) {
            listen.insert(list.to_owned(), free.clone());
        }
    }
    file.to_string()
}

/// Whether a gateway says over its admin socket that it is ready.
async fn is_ready(socket: &Path) -> bool {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    ask.await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

#[tokio::test]
async fn every_example_serves() {
    for (name, text) in examples() {
        let directory = site(&movable(&text));
        let (log, socket) = (directory.path().join("log"), directory.path().join("doorward.sock"));
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.arg("serve").current_dir(directory.path()).kill_on_drop(true);
        let mut program = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
        let ready = async {
            while !is_ready(&socket).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let serves = tokio::select! {
            waited = tokio::time::timeout(START_TIME_MAX, ready) => waited.is_ok(),
            _ = program.wait() => false,
        };
        // It may have ended by itself.
        program.kill().await.unwrap_or_default();
        let logged = fs::read_to_string(&log).unwrap();
        assert!(serves, "{name}: {logged}");
        assert!(!logged.contains(" WARN ") && !logged.contains(" ERROR "), "{name}: {logged}");
    }
}

#[test]
fn the_alternatives_of_the_packaged_file_are_good_too() {
    let text = read("config/examples/service.toml");
    let taken_in = text.replace("# certificates = ", "certificates = ");
    assert_ne!(taken_in, text);
    let here = taken_in.replace("/run/credentials/doorward.service/", "certs/");
    assert_eq!(check(&here), (true, String::new()));
    // The unit loads what the file names.
    let unit = read("packaging/systemd/doorward.service");
    for rest in text.split("/run/credentials/doorward.service/").skip(1) {
        let name = rest.split('"').next().unwrap();
        assert!(unit.contains(&format!("LoadCredential={name}:doorward.{name}\n")), "{name}");
    }
}
