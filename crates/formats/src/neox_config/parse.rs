//! A YAML parser without recursion and without the features that configurations do not use.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::ConfigValue;
use crate::error::shown;
use crate::{Error, Result};

/// Limit of nested containers.
const MAX_DEPTH: usize = 32;

/// Limit of keys and values of a file; real configurations have hundreds.
const MAX_VALUES: usize = 1 << 14;

/// One key of a file.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: ConfigValue,
    pub(super) line: usize,
}

/// A container that is being read.
enum Open {
    List(Vec<ConfigValue>),
    Map {
        entries: Vec<Entry>,
        /// The key whose value comes next, and its line.
        key: Option<(String, usize)>,
    },
}

/// Parses a text that is one mapping and returns its keys.
pub(super) fn mapping(location: &str, text: &str) -> Result<Vec<Entry>> {
    let mut reader = Reader {
        location,
        open: Vec::new(),
        root: None,
        values: 0,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            reader.damaged(
                error.marker(),
                error.info(),
                "YAML or JSON",
                "other text".into(),
            )
        })?;
        reader.event(event, &span.start)?;
    }
    match reader.root {
        Some(entries) => Ok(entries),
        None => Err(Error::Damaged {
            location: location.into(),
            what: "the file has no keys".into(),
            expected: "a mapping, such as { \"num_layers\": 12 }".into(),
            got: "nothing".into(),
            help: "check that this is the file you mean",
        }),
    }
}

struct Reader<'a> {
    location: &'a str,
    open: Vec<Open>,
    root: Option<Vec<Entry>>,
    values: usize,
}

impl Reader<'_> {
    fn event(&mut self, event: Event<'_>, at: &Marker) -> Result<()> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(self.damaged(
                at,
                "the file has too many values",
                &format!("at most {MAX_VALUES} keys and values"),
                "more".into(),
            ));
        }
        match event {
            Event::Alias(_) => Err(self.refused(at, "an alias (*name)")),
            Event::Scalar(_, _, anchor, ref tag) if anchor != 0 || tag.is_some() => {
                Err(self.refused(at, "an anchor (&name) or a tag (!name)"))
            }
            Event::SequenceStart(anchor, ref tag) | Event::MappingStart(anchor, ref tag)
                if anchor != 0 || tag.is_some() =>
            {
                Err(self.refused(at, "an anchor (&name) or a tag (!name)"))
            }
            Event::Scalar(text, style, ..) => match self.open.last_mut() {
                Some(Open::Map {
                    key: key @ None,
                    entries,
                }) => {
                    if entries.iter().any(|entry| entry.key == text) {
                        return Err(self.damaged(
                            at,
                            "a key is repeated",
                            "each key once",
                            shown(&text),
                        ));
                    }
                    *key = Some((text.into_owned(), at.line()));
                    Ok(())
                }
                _ => {
                    let value = match style {
                        ScalarStyle::Plain => ConfigValue::from_word(&text),
                        _ => ConfigValue::String(text.into_owned()),
                    };
                    self.value(value, at)
                }
            },
            Event::SequenceStart(..) => self.begin(Open::List(Vec::new()), at),
            Event::MappingStart(..) => self.begin(
                Open::Map {
                    entries: Vec::new(),
                    key: None,
                },
                at,
            ),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(values)) => self.value(ConfigValue::List(values), at),
                Some(Open::Map { entries, .. }) if self.open.is_empty() => {
                    if self.root.is_some() {
                        return Err(self.damaged(
                            at,
                            "the file has several documents",
                            "one",
                            "two".into(),
                        ));
                    }
                    self.root = Some(entries);
                    Ok(())
                }
                Some(Open::Map { entries, .. }) => {
                    let entries = entries
                        .into_iter()
                        .map(|entry| (entry.key, entry.value))
                        .collect();
                    self.value(ConfigValue::Map(entries), at)
                }
                None => Ok(()),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn begin(&mut self, container: Open, at: &Marker) -> Result<()> {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err(self.damaged(
                at,
                "a key is a list or a mapping",
                "text",
                "a container".into(),
            ));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(self.damaged(
                at,
                "values are nested too deeply",
                &format!("at most {MAX_DEPTH} levels"),
                "more".into(),
            ));
        }
        self.open.push(container);
        Ok(())
    }

    fn value(&mut self, value: ConfigValue, at: &Marker) -> Result<()> {
        match self.open.last_mut() {
            Some(Open::List(values)) => {
                values.push(value);
                Ok(())
            }
            Some(Open::Map { entries, key }) => {
                // A value always follows its key.
                if let Some((key, line)) = key.take() {
                    entries.push(Entry { key, value, line });
                }
                Ok(())
            }
            None if value == ConfigValue::Null => Ok(()),
            None => Err(self.damaged(
                at,
                "the file is not a mapping",
                "keys and values",
                value.describe(),
            )),
        }
    }

    fn refused(&self, at: &Marker, what: &str) -> Error {
        self.damaged(
            at,
            "the file has something that configurations do not use",
            "plain keys and values",
            what.into(),
        )
    }

    fn damaged(&self, at: &Marker, what: &str, expected: &str, got: String) -> Error {
        Error::Damaged {
            location: format!("{}:{}:{}", self.location, at.line(), at.col() + 1),
            what: what.into(),
            expected: expected.into(),
            got,
            help: "correct the file at this place",
        }
    }
}
