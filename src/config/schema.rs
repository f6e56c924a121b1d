//! The JSON Schema of the file (draft 2020-12), for editors.
//!
//! Nothing is listed here. The keys and what each takes are asked of the types in `raw.rs`, words and defaults are
//! the sample's, and ranges are those that the sample's values are compared with. Which keys belong together is left to
//! `doorward check`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::config::problem::{Allowed, Problems};
use crate::config::raw::Raw;
use crate::config::render::SourceText;
use crate::config::sample::{self, Line};
use crate::config::shape::Shape;
use crate::config::{Config, Source, read};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// What `check_name` lets pass.
const NAME_PATTERN: &str = "^[A-Za-z0-9_-]{1,64}$";

pub(super) fn schema() -> Value {
    let lines = sample::lines();
    let writer = Writer { ranges: ranges(&lines), lines };
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), DRAFT.into());
    schema.insert("title".to_owned(), "doorward.toml".into());
    if let Value::Object(root) = writer.write(&Shape::of::<Raw>(), &mut Vec::new()) {
        schema.extend(root);
    }
    schema.into()
}

/// The range of a key.
#[derive(Debug)]
struct Bounds {
    section: Vec<&'static str>,
    /// The key, and one of the inline table that its value may be.
    keys: Vec<String>,
    least: String,
    most: String,
}

/// Reads a file that sets every key as the sample does, commented out there or not, and listens what its values are
/// compared with.
fn ranges(lines: &[Line]) -> Vec<Bounds> {
    let (text, places) = full(lines);
    let mut problems = Problems::new(SourceText::new("", &text));
    let source = Source { name: String::new(), directory: PathBuf::new(), environment: |_| None };
    // Whatever the examples lack (the certificates are not there) is no fault here.
    if let Some(raw) = read::read::<Raw>(&text, &mut problems) {
        drop(Config::from_raw(raw, &source, &mut problems));
    }
    let bounds = problems.into_ranges().into_iter().filter_map(|Allowed { at, least, most }| {
        let (_, line) = places.iter().rev().find(|(start, _)| *start <= at)?;
        let inner = text.get(..at)?.trim_end().strip_suffix('=')?.trim_end();
        let inner = inner.rsplit(|c: char| !c.is_ascii_lowercase() && c != '_').next()?;
        let key = line.key?;
        let keys = if inner == key { vec![key.to_owned()] } else { vec![key.to_owned(), inner.to_owned()] };
        Some(Bounds { section: line.section.clone(), keys, least, most })
    });
    bounds.collect()
}

/// The file, and where each line of the sample begins in it.
fn full(lines: &[Line]) -> (String, Vec<(usize, &Line)>) {
    let mut text = String::new();
    let mut places = Vec::new();
    for head in lines.iter().filter(|line| line.key.is_none()) {
        // Writing to a String cannot fail.
        writeln!(text, "[{}]", head.section.join(".")).unwrap_or_default();
        let of_section: Vec<_> = lines.iter().filter(|line| line.section == head.section).collect();
        for (number, line) in of_section.iter().enumerate() {
            let Some(key) = line.key else { continue };
            let is_section = lines.iter().any(|other| other.section.ends_with(&[key]));
            let is_set_again = of_section.iter().skip(number + 1).any(|later| later.key == line.key);
            if !is_section && !is_set_again {
                places.push((text.len(), *line));
                writeln!(text, "{key} = {}", line.value).unwrap_or_default();
            }
        }
    }
    (text, places)
}

/// Writes shapes as schemas.
#[derive(Debug)]
struct Writer {
    lines: Vec<Line>,
    ranges: Vec<Bounds>,
}

impl Writer {
    /// The schema of what stands at `path`.
    fn write(&self, shape: &Shape, path: &mut Vec<&'static str>) -> Value {
        let mut schema = match shape {
            Shape::Leaf(forms) => forms.clone().unwrap_or_else(|| json!({})),
            Shape::List(inner) => json!({ "type": "array", "items": self.write(inner, path) }),
            Shape::Named(inner, instead) => {
                path.push("NAME");
                let inner = self.write(inner, path);
                path.pop();
                let names = json!({ "pattern": NAME_PATTERN });
                let table =
                    json!({ "type": "object", "propertyNames": names, "additionalProperties": inner });
                or(instead.as_ref(), table)
            }
            Shape::Table { keys, instead, .. } => {
                let mut properties = Map::new();
                for (key, shape) in keys {
                    path.push(key);
                    let mut schema = self.write(shape, path);
                    self.annotate(&mut schema, path);
                    path.pop();
                    properties.insert((*key).to_owned(), schema);
                }
                let table =
                    json!({ "type": "object", "additionalProperties": false, "properties": properties });
                or(instead.as_ref(), table)
            }
        };
        // Elements of lists are described by their list.
        if path.is_empty()
            && let Some(root) = schema.as_object_mut()
        {
            root.insert("description".to_owned(), "The configuration of doorward".into());
        }
        schema
    }

    /// Adds what the sample says of a key, and its range.
    fn annotate(&self, schema: &mut Value, path: &[&'static str]) {
        let Some(schema) = schema.as_object_mut() else { return };
        let mut said: Vec<String> = self.words(path).into_iter().collect();
        let described = |schema: &Map<String, Value>| {
            schema.get("description").and_then(Value::as_str).map(str::to_owned)
        };
        let expected =
            described(schema).or_else(|| schema.get("items").and_then(Value::as_object).and_then(described));
        said.extend(expected.map(|expected| format!("Expected: {expected}")));
        if let Some(Bounds { least, most, .. }) = self.bounds(path) {
            if let (Ok(least), Ok(most)) = (least.parse::<u64>(), most.parse::<u64>()) {
                schema.insert("minimum".to_owned(), least.into());
                schema.insert("maximum".to_owned(), most.into());
            } else if said.first().is_none_or(|said| !said.contains(most)) {
                said.push(format!("From {least} to {most}"));
            }
        }
        if let Some(default) = self.default(path) {
            schema.insert("default".to_owned(), default);
        }
        schema.insert("description".to_owned(), said.join(". ").into());
    }

    /// The lines that set this key, and heads of the section that it is.
    fn lines_at(&self, path: &[&str]) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| {
            let (key, section) = path.split_last().map_or(("", path), |(key, section)| (*key, section));
            line.is_at(path, None)
                || line.is_at(section, Some(key))
                || line.is_at(&[path, &["NAME"]].concat(), None)
        })
    }

    /// What the sample says; of a section rather than of a key that stands for it.
    fn words(&self, path: &[&str]) -> Option<String> {
        let heads = self.lines_at(path).filter(|line| line.key.is_none());
        let keys = self.lines_at(path).filter(|line| line.key.is_some());
        let comments = heads.chain(keys).map(|line| line.comment.as_str());
        let said =
            comments.map(|comment| comment.trim_start_matches("example: ").trim_start_matches("example; "));
        said.filter(|said| !said.is_empty() && *said != "example").map(str::to_owned).next()
    }

    /// The sample's value, where it is the default and does not depend on other keys.
    fn default(&self, path: &[&str]) -> Option<Value> {
        let own = self.lines_at(path).find(|line| line.key.is_some());
        let (key, around) = path.split_last()?;
        let outer = || self.lines_at(around).find(|line| line.key.is_some());
        let (line, inner) =
            own.map(|line| (line, None)).or_else(|| outer().map(|line| (line, Some(*key))))?;
        if line.is_example() || line.comment.contains("default") {
            return None;
        }
        let table: toml::Table = format!("value = {}", line.value).parse().ok()?;
        let value = table.get("value")?;
        let value = inner.map_or(Some(value), |inner| value.get(inner))?;
        serde_json::to_value(value).ok()
    }

    fn bounds(&self, path: &[&str]) -> Option<&Bounds> {
        self.ranges.iter().find(|bounds| {
            let place: Vec<&str> =
                bounds.section.iter().copied().chain(bounds.keys.iter().map(String::as_str)).collect();
            place.len() == path.len()
                && place.iter().zip(path).all(|(have, wanted)| have == wanted || *wanted == "NAME")
        })
    }
}

/// A table, or what may stand there instead.
fn or(instead: Option<&Value>, table: Value) -> Value {
    match instead {
        Some(instead) => json!({ "anyOf": [instead, table] }),
        None => table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::guard::{GuardDelay, GuardRate};
    use crate::config::handler::{PagePath, Redirect};
    use crate::config::origin::{Origin, TrustedOrigin};
    use crate::config::route::RoutePath;
    use crate::config::scheme::Realm;
    use crate::config::session::{CookieDomain, CookieName};
    use crate::config::share::Share;
    use crate::config::sql_name::{MaybeSqlName, SqlName};
    use crate::config::throttle::Rate;
    use crate::config::tokens::{TokenPrefix, TokenTtl};
    use crate::config::upstream::ServerAddress;
    use crate::config::value::{Size, Written};
    use http::Method;
    use proptest::prelude::*;
    use std::net::SocketAddr;
    use std::time::Duration;

    /// The schema of a key; tables in alternatives are looked into.
    fn at<'s>(mut schema: &'s Value, place: &str, key: &str) -> &'s Value {
        for part in place.split('.').filter(|part| !part.is_empty()).chain([key]) {
            while let Some(inner) = schema.get("items") {
                schema = inner;
            }
            if let Some(forms) = schema.get("anyOf").and_then(Value::as_array) {
                schema = forms.iter().find(|form| form["type"] == "object").unwrap();
            }
            let below =
                if part == "NAME" { &schema["additionalProperties"] } else { &schema["properties"][part] };
            assert!(below.is_object(), "no {part} of {place}.{key}: {schema:#}");
            schema = below;
        }
        schema
    }

    #[test]
    fn every_key_is_in_the_schema_with_type_and_words() {
        let schema = schema();
        let shape = Shape::of::<Raw>();
        let mut keys = 0;
        for (place, key) in
            shape.tables().iter().flat_map(|(place, keys)| keys.keys().map(move |key| (place, key)))
        {
            let found = at(&schema, place, key);
            let says = |name: &str| found.get(name).is_some();
            assert!(says("type") || says("enum") || says("anyOf"), "{place}.{key}: {found:#}");
            assert!(!found["description"].as_str().unwrap().is_empty(), "{place}.{key}: {found:#}");
            keys += 1;
        }
        assert!(keys > 80, "{keys}");
    }

    #[test]
    fn types_words_ranges_and_defaults_are_those_of_the_file() {
        let schema = schema();
        let count = at(&schema, "limits", "header_count");
        assert_eq!((&count["type"], &count["default"]), (&json!("integer"), &json!(100)));
        assert_eq!((&count["minimum"], &count["maximum"]), (&json!(10), &json!(1000)));
        assert!(count["description"].as_str().unwrap().starts_with("its fields; from 10 to 1000"));
        assert_eq!(at(&schema, "log", "level")["enum"], json!(["error", "warn", "info", "debug", "trace"]));
        assert_eq!(at(&schema, "listen", "https_port")["maximum"], 65535);
        assert_eq!(at(&schema, "listen", "https")["default"], json!(["[::]:8443"]));
        let connect = at(&schema, "upstreams.NAME.timeout", "connect");
        assert_eq!(connect["default"], "2s");
        assert!(connect["description"].as_str().unwrap().ends_with("From 10ms to 5m"), "{connect}");
        let max_age = at(&schema, "tls.hsts", "max_age");
        assert!(max_age["description"].as_str().unwrap().ends_with("to 3650d"), "{max_age}");
        assert_eq!(at(&schema, "authentication.guard", "address")["default"], "20/min");
        assert_eq!(at(&schema, "routes.NAME", "strip_prefix")["type"], "boolean");
        for (place, key) in
            [("routes.NAME", "upstream"), ("routes.NAME", "permission"), ("upstreams.NAME", "servers")]
        {
            assert!(at(&schema, place, key).get("default").is_none(), "{place}.{key} has no default");
        }
    }

    /// A pattern that refuses what the gateway takes would underline good files.
    fn assert_takes<T: Written>(text: &str) {
        if T::from_text(text).is_ok() {
            let validator = jsonschema::draft202012::new(&T::schema()).unwrap();
            assert!(validator.is_valid(&json!(text)), "{text:?} is {}", T::EXPECTED);
        }
    }

    proptest! {
        #[test]
        fn what_the_gateway_takes_the_schema_takes(text in prop_oneof![
            "[0-9]{1,3}(ms|s|m|h|d|w|B|KiB|MiB|GiB|/[smhd][a-z]{0,3})?",
            "never|off|all|none|1/[0-9]{1,8}|/[a-zé/ ]{0,5}|[A-Z-]{1,4}|[A-Za-z0-9_-]{0,17}",
            "(\\[(::1|fe80::1%1)\\]|127\\.0\\.0\\.1):[0-9]{1,5}",
            "(https?://([a-z]{1,5}|\\[::1\\])|unix:/)[ -~]{0,5}",
            "https?://(\\*\\.)?[A-Za-z]{1,4}(\\.[a-z]{1,3})?(:[0-9]{1,5})?",
            "[A-Za-z0-9_.-]{1,12}|(/[a-z0-9%?#=.~-]{0,4}){1,4}",
            "[ -~é]{0,12}",
        ]) {
            assert_takes::<Duration>(&text);
            assert_takes::<Size>(&text);
            assert_takes::<TokenTtl>(&text);
            assert_takes::<TokenPrefix>(&text);
            assert_takes::<Rate>(&text);
            assert_takes::<GuardRate>(&text);
            assert_takes::<GuardDelay>(&text);
            assert_takes::<Share>(&text);
            assert_takes::<ServerAddress>(&text);
            assert_takes::<RoutePath>(&text);
            assert_takes::<Method>(&text);
            assert_takes::<SocketAddr>(&text);
            assert_takes::<SqlName>(&text);
            assert_takes::<MaybeSqlName>(&text);
            assert_takes::<Realm>(&text);
            assert_takes::<CookieName>(&text);
            assert_takes::<CookieDomain>(&text);
            assert_takes::<Origin>(&text);
            assert_takes::<TrustedOrigin>(&text);
            assert_takes::<PagePath>(&text);
            assert_takes::<Redirect>(&text);
        }
    }

    /// Every whole number, size and duration has a range that the schema knows of.
    #[test]
    fn every_range_is_known() {
        let lines = sample::lines();
        let ranges = ranges(&lines);
        let limits = lines.iter().filter(|line| line.key.is_some() && line.is_at(&["limits"], line.key));
        for line in limits {
            let key = line.key.unwrap();
            assert!(ranges.iter().any(|bounds| bounds.keys == [key]), "{key} is not among {ranges:#?}");
        }
    }
}
