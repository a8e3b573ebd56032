//! Parses one line of a JSON Lines file and keeps only the text at a key.

use std::fmt;

use super::repair::repair;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Number of keys kept for a message.
const SHOWN_KEYS: usize = 8;

/// The value of a line at a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A string.
    Text(String),
    /// A value of this kind.
    Other(&'static str),
    /// The line is a value of this kind, not an object.
    NoObject(&'static str),
    /// The key is missing; these are the first keys in order of name.
    Missing(Vec<String>),
}

/// Parses a line as Python's `json` writes it. Returns the value and the number of unpaired surrogates in the text that
/// were replaced by U+FFFD.
pub(super) fn read(line: &str, key: &str) -> serde_json::Result<(Found, u64)> {
    let error = match read_json(line, key) {
        Ok(found) => return Ok((found, 0)),
        Err(error) => error,
    };
    let Some(repaired) = repair(line, *b"fffd") else {
        return Err(error);
    };
    let found = read_json(&repaired.line, key)?;
    let Found::Text(text) = &found else {
        return Ok((found, 0));
    };
    // Other strings may also hold surrogates. Those of the text are found by parsing with two different replacements.
    let count = |text: &str| text.matches(char::REPLACEMENT_CHARACTER).count() as u64;
    let without = match repair(line, *b"0020") {
        Some(other) if repaired.surrogates > 0 => read_json(&other.line, key)?,
        _ => return Ok((found, 0)),
    };
    let before = match &without {
        Found::Text(text) => count(text),
        _ => 0,
    };
    let replaced = count(text) - before;
    Ok((found, replaced))
}

/// Parses a line of JSON. Only the text takes memory; other values are skipped. If a key repeats, the last one counts.
fn read_json(line: &str, key: &str) -> serde_json::Result<Found> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let found = Object { key }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(match found {
        Value::Found(found) => found,
        Value::Text(_) => Found::NoObject("a string"),
        Value::Other(kind) => Found::NoObject(kind),
    })
}

/// The part of a value that is needed.
enum Value {
    Text(String),
    Other(&'static str),
    Found(Found),
}

/// Searches an object for `key`.
struct Object<'k> {
    key: &'k str,
}

/// Accepts a string and keeps it.
struct Text;

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Kinds(Some(self)))
    }
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Kinds(None))
    }
}

/// Finds out the kind of a value; an object is searched for a key if one is given.
struct Kinds<'k>(Option<Object<'k>>);

impl<'de> Visitor<'de> for Kinds<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some(Object { key: wanted }) = self.0 else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Other("an object"));
        };
        let mut found = None;
        let mut keys: Vec<String> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == wanted {
                found = Some(map.next_value_seed(Text)?);
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            if let Err(at) = keys.binary_search(&key)
                && at < SHOWN_KEYS
            {
                keys.insert(at, key);
                keys.truncate(SHOWN_KEYS);
            }
        }
        Ok(Value::Found(match found {
            Some(Value::Text(text)) => Found::Text(text),
            Some(Value::Other(kind)) => Found::Other(kind),
            Some(Value::Found(found)) => found,
            None => Found::Missing(keys),
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an array"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other("a boolean"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other("null"))
    }
}
