//! Strict parser of the header: for any bytes the result is valid ranges or an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Dtype, MAX_HEADER_BYTES, METADATA, elements};
use crate::error::{shown, shown_json};
use crate::{Error, Result};

/// A tensor's type, shape and bytes, the latter counted from the start of the file and inside it.
pub(super) struct TensorInfo {
    pub(super) dtype: Stored,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// The element type of a tensor.
pub(super) enum Stored {
    Known(Dtype),
    /// The name of a type that is not read here, such as `F8_E4M3`.
    Other(String),
}

pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

/// Reads and checks the header of a whole file.
pub(super) fn parse(path: &Path, file: &[u8]) -> Result<Header> {
    let invalid = |what: String, expected: String, got: String| Error::Safetensors {
        path: path.to_path_buf(),
        what,
        expected,
        got,
    };

    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(invalid(
            "the header's length".into(),
            "8 bytes at the start".into(),
            format!("a file of {} bytes", file.len()),
        ));
    };
    let length = u64::from_le_bytes(*length);
    let largest = MAX_HEADER_BYTES.min(rest.len() as u64);
    let split = usize::try_from(length)
        .ok()
        .filter(|_| length <= largest)
        .and_then(|n| rest.split_at_checked(n));
    let Some((json, data)) = split else {
        return Err(invalid(
            "the header's length".into(),
            format!("at most {largest} bytes"),
            format!("{length} bytes"),
        ));
    };
    if json.first() != Some(&b'{') {
        let got = json.first().map_or("an empty header".into(), |byte| {
            format!("the byte {byte:#04x}")
        });
        return Err(invalid(
            "the header".into(),
            "\"{\" as its first byte".into(),
            got,
        ));
    }
    let raw: RawHeader = serde_json::from_slice(json).map_err(|error| {
        invalid(
            "the header".into(),
            "JSON from names to tensors".into(),
            shown_json(&error),
        )
    })?;

    let mut order: Vec<(&String, &RawTensor)> = raw.tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| tensor.data_offsets);
    let mut end_of_previous = 0usize;
    for (name, tensor) in order {
        let what = || format!("the tensor {}", shown(name));
        let (begin, end) = tensor.data_offsets;
        // For an unknown type, only the offsets say how many bytes it takes.
        let size = match &tensor.dtype {
            Stored::Known(dtype) => {
                elements(&tensor.shape).and_then(|count| count.checked_mul(dtype.size_bytes()))
            }
            Stored::Other(_) => Some(end.saturating_sub(begin)),
        };
        let Some(size) = size else {
            return Err(invalid(
                what(),
                "a shape whose size fits in memory".into(),
                "one that overflows".into(),
            ));
        };
        if begin != end_of_previous {
            return Err(invalid(
                what(),
                format!("data from offset {end_of_previous}, where the one before ends"),
                format!("data from offset {begin}"),
            ));
        }
        if end.checked_sub(begin) != Some(size) {
            return Err(invalid(
                what(),
                format!("{size} bytes for its shape and type"),
                format!("offsets {begin} to {end}"),
            ));
        }
        if end > data.len() {
            return Err(invalid(
                what(),
                format!("{end} bytes of data"),
                format!("{} bytes", data.len()),
            ));
        }
        end_of_previous = end;
    }
    if end_of_previous != data.len() {
        return Err(invalid(
            "the data".into(),
            format!("{end_of_previous} bytes"),
            format!("{} bytes", data.len()),
        ));
    }

    let data_start = file.len() - data.len();
    let tensors = raw
        .tensors
        .into_iter()
        .map(
            |(
                name,
                RawTensor {
                    dtype,
                    shape,
                    data_offsets: (begin, end),
                },
            )| {
                // No overflow: begin and end are at most data.len(), as checked above.
                (
                    name,
                    TensorInfo {
                        dtype,
                        shape,
                        range: data_start + begin..data_start + end,
                    },
                )
            },
        )
        .chain(raw.absent.into_iter().map(|name| {
            let nothing = TensorInfo {
                dtype: Stored::Other("null".into()),
                shape: Vec::new(),
                range: 0..0,
            };
            (name, nothing)
        }))
        .collect();
    Ok(Header {
        metadata: raw.metadata,
        tensors,
    })
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Dtype::deserialize(name.as_str().into_deserializer());
        Ok(known.map_or_else(
            |_: serde::de::value::Error| Stored::Other(name),
            Stored::Known,
        ))
    }
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: Stored,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

#[derive(Default)]
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, RawTensor>,
    /// Names whose value is `null`.
    absent: BTreeSet<String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from names to tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        let mut metadata_seen = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                if std::mem::replace(&mut metadata_seen, true) {
                    return Err(repeated::<A::Error>(&name));
                }
                header.metadata = map.next_value_seed(UniqueStrings)?;
            } else {
                let tensor: Option<RawTensor> = map.next_value()?;
                if header.tensors.contains_key(&name) || header.absent.contains(&name) {
                    return Err(repeated::<A::Error>(&name));
                }
                match tensor {
                    Some(tensor) => drop(header.tensors.insert(name, tensor)),
                    None => drop(header.absent.insert(name)),
                }
            }
        }
        Ok(header)
    }
}

/// Reads an object of strings in which no key repeats; without this check the last one would win silently.
///
/// # Errors
/// The deserializer's error; an error for a key that appears twice.
pub fn unique_strings<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    UniqueStrings.deserialize(from)
}

/// An object of strings in which no key repeats.
struct UniqueStrings;

impl<'de> DeserializeSeed<'de> for UniqueStrings {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for UniqueStrings {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut strings = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if strings.contains_key(&key) {
                return Err(repeated::<A::Error>(&key));
            }
            strings.insert(key, value);
        }
        Ok(strings)
    }
}

fn repeated<E: serde::de::Error>(name: &str) -> E {
    E::custom(format_args!("the name {} appears twice", shown(name)))
}
