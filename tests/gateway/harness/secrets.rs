//! Nothing that is written may hold a secret that was used: no line of the log at any level, no answer, no file.
//!
//! Every password and token of every test is noted here. The log of the whole process, at its most talkative, and
//! every answer are kept, and searched whenever a gateway ends, with its files: the store, the certificates.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, LazyLock, Once};

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

/// Shorter ones are words that stand anywhere.
const SECRET_BYTES_MIN: usize = 12;
/// The search goes by the first bytes.
const KEY_BYTES: usize = 8;
/// Of what was searched before, the end is searched again: a secret may have become known since.
const OVERLAP_BYTES: usize = 1 << 17;
const _: () = assert!(KEY_BYTES <= SECRET_BYTES_MIN);

/// What was used and what was written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    used: BTreeSet<Vec<u8>>,
    written: Vec<u8>,
}

static RUN: LazyLock<Secrets> = LazyLock::new(Secrets::default);

/// Notes a secret of this run.
pub(crate) fn used(secret: &str) {
    RUN.used(secret);
}

/// Keeps what a client or a person gets to read.
pub(crate) fn written(bytes: &[u8]) {
    RUN.written(bytes);
}

/// Whether this was written lately.
pub(crate) fn holds(text: &str) -> bool {
    let state = RUN.0.lock();
    state.written.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Writes the log of this process down, from now on.
pub(crate) fn record_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The most that an operator can ask for.
        let log = tracing_subscriber::fmt().with_env_filter("warn,doorward=trace").with_ansi(false);
        log.with_writer(RUN.clone()).init();
    });
}

/// Fails if anything that was written, or any file below, holds a secret.
pub(crate) fn assert_none_written(directory: &Path) {
    RUN.assert_none_written(directory);
}

impl Secrets {
    pub(crate) fn used(&self, secret: &str) {
        if secret.len() >= SECRET_BYTES_MIN {
            self.0.lock().used.insert(secret.as_bytes().to_vec());
        }
    }

    pub(crate) fn written(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        state.written.extend_from_slice(bytes);
        state.written.push(b'\n');
    }

    /// Answers with a token are the one place for it: it is noted, and the answer is not kept.
    pub(crate) fn answered(&self, head: &impl std::fmt::Debug, body: &[u8]) {
        let token = std::str::from_utf8(body).ok().and_then(|text| text.strip_prefix(r#"{"token":""#));
        match token.and_then(|rest| rest.strip_suffix(r#""}"#)) {
            Some(token) => self.used(token),
            None => self.written(body),
        }
        self.written(format!("{head:?}").as_bytes());
    }

    pub(crate) fn assert_none_written(&self, directory: &Path) {
        let (secrets, written) = {
            let mut state = self.0.lock();
            let written = std::mem::take(&mut state.written);
            state.written.extend_from_slice(&written[written.len().saturating_sub(OVERLAP_BYTES)..]);
            (Search::new(&state.used), written)
        };
        let mut found = secrets.places("the log or an answer", &written);
        search_files(directory, &secrets, &mut found);
        assert!(found.is_empty(), "a secret was written down: {}", found.join("\n"));
    }
}

/// Keeps an answer of this run: see [`Secrets::answered`].
pub(crate) fn answered(head: &impl std::fmt::Debug, body: &[u8]) {
    RUN.answered(head, body);
}

fn search_files(directory: &Path, secrets: &Search, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            search_files(&path, secrets, found);
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            found.extend(secrets.places(&path.display().to_string(), &bytes));
        }
    }
}

/// Many secrets, found in one pass.
struct Search {
    by_key: HashMap<[u8; KEY_BYTES], Vec<Vec<u8>>>,
    /// By a hash of the first four bytes: most places are passed over at a glance.
    glance: Vec<bool>,
}

fn glance(first: [u8; 4]) -> usize {
    usize::try_from(u32::from_le_bytes(first).wrapping_mul(0x9e37_79b1) >> 16).unwrap()
}

impl Search {
    fn new(used: &BTreeSet<Vec<u8>>) -> Self {
        let mut search = Self { by_key: HashMap::new(), glance: vec![false; 1 << 16] };
        for secret in used {
            search.by_key.entry(*secret.first_chunk().unwrap()).or_default().push(secret.clone());
            search.glance[glance(*secret.first_chunk().unwrap())] = true;
        }
        search
    }

    /// Where one stands, with what stands before it; the secret itself is not shown.
    fn places(&self, what: &str, text: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for place in 0..text.len().saturating_sub(KEY_BYTES - 1) {
            let first = [text[place], text[place + 1], text[place + 2], text[place + 3]];
            if !self.glance[glance(first)] {
                continue;
            }
            let secrets =
                text[place..].first_chunk().and_then(|key| self.by_key.get(key)).into_iter().flatten();
            if secrets.into_iter().any(|secret| text[place..].starts_with(secret)) {
                let before = String::from_utf8_lossy(&text[place.saturating_sub(200)..place]);
                found.push(format!("{what}, after {before:?}"));
            }
        }
        found
    }
}

impl<'a> MakeWriter<'a> for Secrets {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        Log(self.clone())
    }
}

/// A writer of log lines.
pub(crate) struct Log(Secrets);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
