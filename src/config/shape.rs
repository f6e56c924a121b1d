//! Which keys a type of `raw.rs` knows, asked of the type itself.
//!
//! serde tells a `Deserializer` the names of a struct's fields, so a deserializer that only listens learns the whole
//! shape of the file. A second list of keys beside `raw.rs` would sooner or later disagree with it.

use std::collections::BTreeMap;

use serde::de::value::Error;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// What may stand at one place of the file.
#[derive(Debug)]
pub(super) enum Shape {
    /// A value without keys, with its schema.
    Leaf(Forms),
    /// A table with known keys; `name` is the Rust type's.
    Table {
        /// Name of the type in `raw.rs`.
        name: &'static str,
        /// The known keys.
        keys: BTreeMap<&'static str, Self>,
        /// What may stand there instead of a table.
        instead: Forms,
    },
    /// A table whose keys are names that the user chooses, or something else instead.
    Named(Box<Self>, Forms),
    /// A list.
    List(Box<Self>),
}

/// What a value may be, as JSON Schema; `None` if its type does not say.
pub(super) type Forms = Option<Value>;

/// What a visitor says of itself if asked for a schema.
fn forms<'de, V: Visitor<'de>>(visitor: &V) -> Forms {
    let expected: &dyn Expected = visitor;
    serde_json::from_str(&format!("{expected:#}")).ok()
}

impl Shape {
    /// The shape of `T`.
    pub(super) fn of<T: DeserializeOwned>() -> Self {
        explore::<T>(&mut Vec::new())
    }

    /// Every table with its place as one would write it (`routes.NAME`), this one included.
    pub(super) fn tables(&self) -> Vec<(String, &BTreeMap<&'static str, Self>)> {
        let mut found = Vec::new();
        self.collect_tables("", &mut found);
        found
    }

    fn collect_tables<'s>(
        &'s self,
        place: &str,
        found: &mut Vec<(String, &'s BTreeMap<&'static str, Self>)>,
    ) {
        let below = |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
        match self {
            Self::Leaf(_) => {}
            Self::List(inner) => inner.collect_tables(place, found),
            Self::Named(inner, _) => inner.collect_tables(&below("NAME"), found),
            Self::Table { keys, .. } => {
                found.push((place.to_owned(), keys));
                for (key, shape) in keys {
                    shape.collect_tables(&below(key), found);
                }
            }
        }
    }
}

/// A step from the root towards a place.
#[derive(Debug, Clone, Copy)]
enum Step {
    Key(&'static str),
    AnyName,
    Element,
}

/// What the type at a place asked for.
#[derive(Debug)]
enum Asked {
    Leaf(Forms),
    Struct { name: &'static str, fields: &'static [&'static str], instead: Forms },
    Map(Forms),
    Seq,
}

fn explore<T: DeserializeOwned>(path: &mut Vec<Step>) -> Shape {
    let mut asked = None;
    // Listening always ends in an error: no value is ever made.
    drop(T::deserialize(Listener { path, asked: &mut asked }));
    let mut below = |step| {
        path.push(step);
        let shape = explore::<T>(path);
        path.pop();
        shape
    };
    match asked {
        None => Shape::Leaf(None),
        Some(Asked::Leaf(forms)) => Shape::Leaf(forms),
        Some(Asked::Map(instead)) => Shape::Named(Box::new(below(Step::AnyName)), instead),
        Some(Asked::Seq) => Shape::List(Box::new(below(Step::Element))),
        Some(Asked::Struct { name, fields, instead }) => {
            let keys = fields.iter().map(|&key| (key, below(Step::Key(key)))).collect();
            Shape::Table { name, keys, instead }
        }
    }
}

/// Walks down `path` and notes what the type there asks for.
#[derive(Debug)]
struct Listener<'a> {
    path: &'a [Step],
    asked: &'a mut Option<Asked>,
}

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.path.is_empty() {
            *self.asked = Some(Asked::Leaf(forms(&visitor)));
        }
        Err(Error::custom("a leaf"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if let Some(value) = spanned_value(name, fields) {
            return visitor.visit_map(Descent { key: Some(value), listener: Some(self) });
        }
        match self.path.split_first() {
            None => *self.asked = Some(Asked::Struct { name, fields, instead: forms(&visitor) }),
            Some((&Step::Key(key), path)) => {
                let listener = Some(Self { path, asked: self.asked });
                return visitor.visit_map(Descent { key: Some(key), listener });
            }
            Some(_) => {}
        }
        Err(Error::custom("noted"))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.path.split_first() {
            None => *self.asked = Some(Asked::Map(forms(&visitor))),
            Some((Step::AnyName, path)) => {
                let listener = Some(Self { path, asked: self.asked });
                return visitor.visit_map(Descent { key: Some("NAME"), listener });
            }
            Some(_) => {}
        }
        Err(Error::custom("noted"))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.path.split_first() {
            None => *self.asked = Some(Asked::Seq),
            Some((Step::Element, path)) => {
                let listener = Some(Self { path, asked: self.asked });
                return visitor.visit_seq(Descent { key: None, listener });
            }
            Some(_) => {}
        }
        Err(Error::custom("noted"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct enum identifier ignored_any
    }
}

/// `toml::Spanned` asks for a struct with a name of its own; its last field is the value.
fn spanned_value(name: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    if name.starts_with("$__serde_spanned") {
        fields.iter().copied().find(|field| field.ends_with("_value"))
    } else {
        None
    }
}

/// The one entry or element that leads further down.
#[derive(Debug)]
struct Descent<'a> {
    key: Option<&'static str>,
    listener: Option<Listener<'a>>,
}

impl<'de> MapAccess<'de> for Descent<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.key.take().map(|key| seed.deserialize(Key(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.listener.take().map_or_else(|| Err(Error::custom("once")), |listener| seed.deserialize(listener))
    }
}

impl<'de> SeqAccess<'de> for Descent<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.listener.take().map(|listener| seed.deserialize(listener)).transpose()
    }
}

/// A key on the way; a user's name may itself be `Spanned`.
#[derive(Debug)]
struct Key(&'static str);

impl<'de> Deserializer<'de> for Key {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(SpannedKey { key: self.0, fields: fields.iter() })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The fields of a `Spanned` key: the place is zero, the value is the key.
#[derive(Debug)]
struct SpannedKey {
    key: &'static str,
    fields: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for SpannedKey {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.fields.as_slice().first().map(|&field| seed.deserialize(Key(field))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        use serde::de::IntoDeserializer as _;
        let is_value = self.fields.next().is_some_and(|field| field.ends_with("_value"));
        if is_value { seed.deserialize(Key(self.key)) } else { seed.deserialize(0_usize.into_deserializer()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use toml::Spanned;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Outer {
        plain: Option<Spanned<u8>>,
        list: Option<Spanned<Vec<Inner>>>,
        named: BTreeMap<Spanned<String>, Inner>,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Inner {
        deep: Option<String>,
    }

    #[test]
    fn finds_every_key_at_its_place() {
        let shape = Shape::of::<Outer>();
        let tables: Vec<(String, Vec<&str>)> =
            shape.tables().into_iter().map(|(place, keys)| (place, keys.keys().copied().collect())).collect();
        let expected = vec![
            (String::new(), vec!["list", "named", "plain"]),
            ("list".to_owned(), vec!["deep"]),
            ("named.NAME".to_owned(), vec!["deep"]),
        ];
        assert_eq!(tables, expected);
    }
}
