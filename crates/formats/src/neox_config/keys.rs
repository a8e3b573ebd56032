//! The merged keys of all files, which are read by type.

use std::collections::BTreeMap;

use super::ConfigValue;
use super::parse::Entry;
use crate::error::shown;
use crate::{Error, Result};

/// The place where a key was last set, and its value.
struct Found {
    value: ConfigValue,
    location: String,
}

/// Keys with `_` for `-`, in order. A key is removed when it is read.
#[derive(Default)]
pub(super) struct Keys {
    found: BTreeMap<String, Found>,
    files: Vec<String>,
}

impl Keys {
    /// Adds the keys of a file; they replace those of earlier files.
    pub(super) fn merge(&mut self, location: &str, entries: Vec<Entry>) -> Result<()> {
        self.files.push(location.into());
        let mut here = BTreeMap::new();
        for Entry { key, value, line } in entries {
            let key = key.replace('-', "_");
            let location = format!("{location}:{line}");
            if here.contains_key(&key) {
                return Err(Error::Config {
                    location: location.into(),
                    key: key.into(),
                    problem: "is given twice, with - and with _",
                    expected: "one of the two".into(),
                    got: value.describe(),
                    help: "remove one of them".into(),
                });
            }
            here.insert(key, Found { value, location });
        }
        self.found.extend(here);
        Ok(())
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.found.contains_key(key)
    }

    /// Returns an error for a key that was not read and looks like one of those that are absent, unless it is in `others`.
    pub(super) fn refuse_similar(&self, absent: &[&str], others: &[&str]) -> Result<()> {
        let not_read = self.found.iter();
        let mut unknown = not_read.filter(|(key, _)| !others.contains(&&***key));
        let similar = unknown.find_map(|(key, found)| {
            let meant = tokenformer_base::nearest(key, absent.iter().copied())?;
            Some((key, found, meant))
        });
        match similar {
            None => Ok(()),
            Some((key, Found { value, location }, meant)) => Err(Error::Config {
                location: location.as_str().into(),
                key: key.as_str().into(),
                problem: "is not known, and looks like one that decides what the model computes",
                expected: format!("{meant}, or a name that means something else"),
                got: value.describe(),
                help: format!("did you mean {meant}? Else remove the key").into(),
            }),
        }
    }

    /// The keys that were not read.
    pub(super) fn rest(self) -> Vec<String> {
        self.found.into_keys().collect()
    }

    /// Reads a key with `read`; `None` if it is absent or null.
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&ConfigValue) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(Found { value, location }) = self.found.remove(key) else {
            return Ok(None);
        };
        if value == ConfigValue::Null {
            return Ok(None);
        }
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(Error::Config {
                location: location.into(),
                key: key.into(),
                problem: "has a value that cannot be used",
                expected: expected.into(),
                got: value.describe(),
                help:
                    "correct the value, or give the configuration that the model was trained with"
                        .into(),
            }),
        }
    }

    /// Reads a required key.
    pub(super) fn required<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&ConfigValue) -> Option<T>,
    ) -> Result<T> {
        match self.optional(key, expected, read)? {
            Some(read) => Ok(read),
            None => Err(self.missing(key, expected, "give all files of the configuration; one for an ordinary Transformer has no *_slot_num keys")),
        }
    }

    pub(super) fn missing(&self, key: &str, expected: &str, help: &'static str) -> Error {
        let found = self.found.keys().map(String::as_str);
        let near = tokenformer_base::nearest(key, found);
        Error::Config {
            location: match &*self.files {
                [] => "configuration".into(),
                files => files.join(", ").into(),
            },
            key: key.into(),
            problem: "is missing",
            expected: expected.into(),
            got: match near {
                Some(other) => format!("the similar key {}", shown(other)),
                None => "no such key".into(),
            },
            help: help.into(),
        }
    }

    pub(super) fn count(&mut self, key: &str) -> Result<usize> {
        self.required(key, COUNT, count)
    }

    pub(super) fn optional_count(&mut self, key: &str) -> Result<Option<usize>> {
        self.optional(key, COUNT, count)
    }

    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>> {
        self.optional(key, "a number", ConfigValue::as_f64)
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        self.optional(key, "true or false", ConfigValue::as_bool)
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>> {
        self.optional(key, "text", |value| value.as_str().map(str::to_owned))
    }

    /// Returns an error unless a key is absent or `fits`.
    pub(super) fn refuse_unless(
        &mut self,
        key: &str,
        expected: &str,
        help: &'static str,
        fits: impl FnOnce(&ConfigValue) -> bool,
    ) -> Result<()> {
        match self.found.remove(key) {
            Some(Found { value, location }) if value != ConfigValue::Null && !fits(&value) => {
                Err(Error::Config {
                    location: location.into(),
                    key: key.into(),
                    problem: "asks for something that is not supported",
                    expected: expected.into(),
                    got: value.describe(),
                    help: help.into(),
                })
            }
            _ => Ok(()),
        }
    }
}

const COUNT: &str = "an integer from 1 to 2147483647";

fn count(value: &ConfigValue) -> Option<usize> {
    value
        .as_usize()
        .filter(|&count| count > 0 && i32::try_from(count).is_ok())
}
