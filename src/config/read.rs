//! From text to the types of `raw.rs`, finding every fault on the way.
//!
//! Three passes over one tree: the parser reports all syntax errors and recovers; the keys are compared with the
//! [`Shape`] of the target, and a misspelt one is read as the one that was meant; then serde reads the values again
//! and again, each time without the entry it stumbled over. So `raw.rs` stays the only description of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::config::problem::{Fault, Problems, quote, quote_all};
use crate::config::raw::Secret;
use crate::config::shape::Shape;
use crate::config::suggest;

/// Reads `text`. Faults go to `problems`; `None` when there are too many to go on.
pub(super) fn read<T: DeserializeOwned>(text: &str, problems: &mut Problems) -> Option<T> {
    let (mut tree, errors) = DeTable::parse_recoverable(text);
    let shape = Shape::of::<T>();
    let secrets = secret_keys(&shape);
    report_syntax(&errors, tree.get_ref(), text, &secrets, problems);
    Keys { root: &shape, secrets, problems }.check_table(tree.get_mut(), &shape, &mut Vec::new());
    read_values(&mut tree, problems)
}

/// Notes syntax errors in the order of the text, one a line: the parser stumbles over what it skipped.
fn report_syntax(
    errors: &[toml::de::Error],
    tree: &DeTable<'_>,
    text: &str,
    secrets: &BTreeSet<&'static str>,
    problems: &mut Problems,
) {
    let mut errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(0..0), error)).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let unclosed = errors.iter().find(|(_, error)| is_unclosed(error.message()));
    let opener = unclosed.and_then(|(span, _)| opener_in_table(tree, span.start));
    if let (Some(opener), Some((_, error))) = (opener, unclosed) {
        let fault =
            Fault::new(error.message()).help("everything behind this bracket was taken as part of it");
        if let Some(secret) = secret_around(text, opener, secrets) {
            problems.mask(secret);
        }
        problems.error(&(opener..opener + 1), fault);
        problems.break_from(opener);
    }
    let mut lines = BTreeSet::new();
    for (span, error) in errors {
        // An empty span at the start would mean the whole file.
        let span = if span == (0..0) { 0..1 } else { span };
        if problems.is_full() {
            break;
        }
        if lines.insert(problems.place(span.start).0) {
            if let Some(secret) = secret_around(text, span.start, secrets) {
                problems.mask(secret);
            }
            problems.error(&span, syntax_fault(error.message(), text.get(span.clone()).unwrap_or_default()));
        }
    }
    problems.break_lines(lines);
}

/// The names of the keys whose values are secrets, wherever they belong.
fn secret_keys(shape: &Shape) -> BTreeSet<&'static str> {
    let tables = shape.tables();
    let keys = tables.iter().flat_map(|(_, keys)| keys.iter());
    keys.filter(|(_, shape)| is_secret(shape)).map(|(key, _)| *key).collect()
}

fn is_secret(shape: &Shape) -> bool {
    match shape {
        Shape::Table { name, .. } => *name == Secret::NAME,
        Shape::List(inner) => is_secret(inner),
        Shape::Leaf(_) | Shape::Named(..) => false,
    }
}

/// Of one entry of the file, so many keys are looked at: an inline table has fewer.
const ASSIGNMENTS_MAX: usize = 100;

/// The secret on the line of a syntax error, or the part of it up to there: the parser may have skipped it, so that no
/// tree says it is one. A list may have begun some lines before.
fn secret_around(text: &str, at: usize, secrets: &BTreeSet<&'static str>) -> Option<Range<usize>> {
    let (before, after) = text.split_at_checked(at)?;
    let end = at + after.find('\n').unwrap_or(after.len());
    let mut start = before.rfind('\n').map_or(0, |newline| newline + 1);
    while start > 0 && !begins_entry(text.get(start..end)?) {
        start = text.get(..start - 1)?.rfind('\n').map_or(0, |newline| newline + 1);
    }
    let entry = text.get(start..end)?;
    let assigned = entry.match_indices('=').take(ASSIGNMENTS_MAX).find(|(equals, _)| {
        let name = entry.get(..*equals).unwrap_or_default().trim_end().trim_end_matches(['"', '\'']);
        let name = name.rsplit(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)).next();
        name.is_some_and(|name| suggest::nearest(name, secrets.iter().copied()).is_some())
    });
    assigned.map(|(equals, _)| start + equals + 1..end)
}

/// Whether a line begins a section, or sets a key: names with dots between, and `=`.
fn begins_entry(line: &str) -> bool {
    let mut rest = line.trim_start();
    if rest.starts_with('[') {
        return true;
    }
    loop {
        let behind = match rest.chars().next() {
            Some(mark @ ('"' | '\'')) => rest.get(1..).and_then(|rest| rest.split_once(mark)).map(|it| it.1),
            _ => Some(rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_' || c == '-')),
        };
        let Some(behind) = behind.filter(|behind| behind.len() < rest.len()).map(str::trim_start) else {
            return false;
        };
        match behind.strip_prefix('.') {
            Some(more) => rest = more.trim_start(),
            None => return behind.starts_with('='),
        }
    }
}

/// Where the outermost bracket around this byte was opened.
fn opener_in_table(table: &DeTable<'_>, at: usize) -> Option<usize> {
    table.iter().find_map(|(_, value)| {
        let span = value.span();
        match value.get_ref() {
            DeValue::Array(_) | DeValue::Table(_) if span.start < at && at <= span.end => Some(span.start),
            DeValue::Array(array) => array.iter().find_map(|element| match element.get_ref() {
                DeValue::Table(table) => opener_in_table(table, at),
                _ => None,
            }),
            DeValue::Table(table) => opener_in_table(table, at),
            _ => None,
        }
    })
}

fn is_unclosed(message: &str) -> bool {
    message.starts_with("unclosed array") || message.starts_with("unclosed inline table")
}

/// Reads the values, taking out one faulty entry after the other.
fn read_values<T: DeserializeOwned>(tree: &mut Spanned<DeTable<'_>>, problems: &mut Problems) -> Option<T> {
    while !problems.is_full() {
        let error = match T::deserialize(toml::Deserializer::from(tree.clone())) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let span = error.span()?;
        // What was taken out of an entry may be what it now lacks.
        if !problems.has_error_in(&span) {
            problems.error(&span, value_fault(error.message(), problems.is_masked(&span)));
        }
        let path = take_from_table(tree.get_mut(), &span, &mut Vec::new())?;
        problems.lose(path);
    }
    None
}

/// The parser's message, with help where its reason is not the user's.
fn syntax_fault(message: &str, meant: &str) -> Fault {
    let fault = Fault::new(message);
    if meant == "schemes" {
        return fault.help(
            "in [authentication], `schemes` is either a list (what routes have by default) or tables\n\
             (named instances); with tables, name the schemes in each route",
        );
    }
    if message.starts_with("string values must be quoted") {
        // Not quoted in the help: it may be a secret.
        return Fault::new("strings must be quoted").help("put quotes around it");
    }
    fault
}

/// Our own faults come as two lines, serde's wording is turned into ours. Of a secret only the type is told.
fn value_fault(message: &str, is_secret: bool) -> Fault {
    let Some(rest) = message.strip_prefix("invalid type: ") else { return Fault::from_lines(message) };
    let Some((found, expected)) = rest.split_once(", expected ") else { return Fault::new(message) };
    let found = match found {
        "sequence" => "a list",
        "map" => "a table",
        other if is_secret => other.split(' ').next().unwrap_or_default(),
        other => other,
    };
    if expected == "a sequence" {
        let fault = Fault::new(format!("expected a list, found {found}"));
        return fault.help("put it in brackets: [...]");
    }
    Fault::new(format!("expected {expected}, found {found}"))
}

/// Compares keys with the shape of the file.
#[derive(Debug)]
struct Keys<'a> {
    root: &'a Shape,
    secrets: BTreeSet<&'static str>,
    problems: &'a mut Problems,
}

impl Keys<'_> {
    fn check_value(&mut self, value: &mut Spanned<DeValue<'_>>, shape: &Shape, path: &mut Vec<String>) {
        if is_secret(shape) {
            self.mask_scalars(value);
        }
        match (shape, value.get_mut()) {
            (Shape::List(inner), DeValue::Array(array)) => {
                for element in array.iter_mut() {
                    self.check_value(element, inner, path);
                }
            }
            (_, DeValue::Table(table)) => self.check_table(table, shape, path),
            _ => {}
        }
    }

    fn check_table(&mut self, table: &mut DeTable<'_>, shape: &Shape, path: &mut Vec<String>) {
        if let Shape::Table { keys, .. } = shape {
            self.check_keys(table, keys, path);
        }
        for (key, value) in table.iter_mut() {
            let below = match shape {
                Shape::Table { keys, .. } => keys.get(key.get_ref().as_ref()),
                Shape::Named(inner, _) => Some(inner.as_ref()),
                Shape::Leaf(_) | Shape::List(_) => None,
            };
            let Some(below) = below else { continue };
            path.push(key.get_ref().to_string());
            self.check_value(value, below, path);
            path.pop();
        }
    }

    /// Masks what is a secret by its name, or nearly by its name, where no shape says so.
    fn mask_entry(&mut self, key: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) {
        if suggest::nearest(key.get_ref(), self.secrets.iter().copied()).is_some() {
            return self.mask_scalars(value);
        }
        if let DeValue::Table(table) = value.get_ref() {
            for (key, value) in table {
                self.mask_entry(key, value);
            }
        }
    }

    fn mask_scalars(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(_) => {}
            DeValue::Array(array) => array.iter().for_each(|element| self.mask_scalars(element)),
            _ => self.problems.mask(value.span()),
        }
    }

    /// Reports unknown keys; the ones that are only misspelt take their right name, so that reading goes on.
    fn check_keys(
        &mut self,
        table: &mut DeTable<'_>,
        known: &BTreeMap<&'static str, Shape>,
        path: &mut Vec<String>,
    ) {
        if self.problems.is_full() {
            return;
        }
        let is_unknown = |key: &&Spanned<DeString<'_>>| !known.contains_key(key.get_ref().as_ref());
        let unknown: Vec<_> = table.keys().filter(is_unknown).cloned().collect();
        for key in unknown {
            if self.problems.is_full() {
                return;
            }
            let Some(value) = table.remove(key.get_ref().as_ref()) else { continue };
            let meant = suggest::nearest(key.get_ref(), known.keys().copied());
            self.report(&key, &value, meant, known, path);
            self.mask_entry(&key, &value);
            path.push(key.get_ref().to_string());
            if !meant.is_some_and(|meant| put(table, meant, key.span(), value)) {
                self.problems.lose(path.clone());
            }
            path.pop();
        }
    }

    fn report(
        &mut self,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        meant: Option<&str>,
        known: &BTreeMap<&'static str, Shape>,
        path: &[String],
    ) {
        let name = key.get_ref();
        let message = match (path.is_empty(), value.get_ref()) {
            (true, DeValue::Table(_)) => format!("unknown section {}", quote(name)),
            (true, _) => format!("unknown key {} before any section", quote(name)),
            _ => format!("unknown key {} in {}", quote(name), quote(&format!("[{}]", path.join(".")))),
        };
        let help = match meant {
            Some(meant) => match named_section(meant, value, known) {
                Some(section) => format!("did you mean {}?", quote(&section)),
                None => format!("did you mean {}?", quote(meant)),
            },
            None => self
                .elsewhere(name)
                .unwrap_or_else(|| format!("known here are {}", quote_all(known.keys().copied()))),
        };
        self.problems.error(&key.span(), Fault::new(message).help(help));
    }

    /// Help for a key that is known in another table, as it is or nearly.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let tables = self.root.tables();
        let keys = tables.iter().flat_map(|(_, keys)| keys.keys().copied());
        let meant = suggest::nearest(name, keys)?;
        let has_it = |keys: &&BTreeMap<&'static str, Shape>| keys.contains_key(meant);
        let places: Vec<String> = tables
            .iter()
            .filter(|(_, keys)| has_it(keys))
            .map(|(place, _)| if place.is_empty() { "the top".to_owned() } else { format!("[{place}]") })
            .take(3)
            .collect();
        let places = places.join(", ");
        let is_same = meant == name;
        Some(if is_same {
            format!("{} is a key of {places}", quote(meant))
        } else {
            format!("did you mean {}, a key of {places}?", quote(meant))
        })
    }
}

/// Puts a value under its right name; what is there already stays. `false` if there was no room.
fn put<'t>(table: &mut DeTable<'t>, name: &str, span: Range<usize>, value: Spanned<DeValue<'t>>) -> bool {
    let Some(present) = table.get_mut(name) else {
        table.insert(Spanned::new(span, name.to_owned().into()), value);
        return true;
    };
    let (DeValue::Table(present), DeValue::Table(more)) = (present.get_mut(), value.into_inner()) else {
        return false;
    };
    let mut has_room = true;
    for (key, value) in more {
        if present.contains_key(key.get_ref().as_ref()) {
            has_room = false;
        } else {
            present.insert(key, value);
        }
    }
    has_room
}

/// `[routes.x]` for a misspelt `[route.x]`.
fn named_section(
    meant: &str,
    value: &Spanned<DeValue<'_>>,
    known: &BTreeMap<&'static str, Shape>,
) -> Option<String> {
    let DeValue::Table(table) = value.get_ref() else { return None };
    match known.get(meant)? {
        Shape::Named(..) => Some(format!("[{meant}.{}]", table.keys().next()?.get_ref())),
        _ => None,
    }
}

/// Takes out the innermost entry or element with this span and says which key it belonged to.
fn take_from_table(
    table: &mut DeTable<'_>,
    span: &Range<usize>,
    path: &mut Vec<String>,
) -> Option<Vec<String>> {
    for (key, value) in table.iter_mut() {
        path.push(key.get_ref().to_string());
        let taken = take_from_value(value, span, path);
        path.pop();
        if taken.is_some() {
            return taken;
        }
    }
    let key = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span)?.0.clone();
    table.remove(key.get_ref().as_ref())?;
    path.push(key.get_ref().to_string());
    let taken = path.clone();
    path.pop();
    Some(taken)
}

fn take_from_value(
    value: &mut Spanned<DeValue<'_>>,
    span: &Range<usize>,
    path: &mut Vec<String>,
) -> Option<Vec<String>> {
    match value.get_mut() {
        DeValue::Table(table) => take_from_table(table, span, path),
        DeValue::Array(array) => {
            if let Some(taken) = array.iter_mut().find_map(|element| take_from_value(element, span, path)) {
                return Some(taken);
            }
            let index = array.iter().position(|element| element.span() == *span)?;
            *array =
                array.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, e)| e.clone()).collect();
            Some(path.clone())
        }
        _ => None,
    }
}
