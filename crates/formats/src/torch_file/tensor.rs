//! Converts a pickled call to a checked view into a storage.

use std::ops::Range;

use super::Archive;
use super::made::{Made, made};
use crate::error::shown;
use crate::pickle::Value;
use crate::{Dtype, Error, Result};

/// The most axes that PyTorch allows.
const MAX_AXES: usize = 64;

/// A view: element `[i, j, ..]` is at `offset + i·stride[0] + j·stride[1] + ..` of its storage.
pub(crate) struct Strided {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) stride: Vec<usize>,
    pub(crate) storage: String,
    /// First element, in elements of the storage.
    pub(crate) offset: usize,
    /// Range of the map from the first element to the end of the last.
    pub(crate) range: Range<usize>,
    /// Whether the numbers are the negatives of those in the storage.
    pub(crate) negated: bool,
    /// Whether several elements are at the same place.
    pub(crate) repeats: bool,
}

/// A tensor of a pickle.
pub(crate) enum Found {
    Read(Strided),
    /// A tensor that is not read, and the reason.
    Unread(String),
}

/// Elements of a shape; `None` when the product overflows.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .try_fold(1usize, |product, &axis| product.checked_mul(axis))
}

/// The strides of a row-major tensor; for an impossible shape they saturate.
pub(crate) fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    let mut step = 1usize;
    for (stride, &axis) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(axis.max(1));
    }
    strides
}

/// The integers of a pickled shape or stride.
pub(crate) fn shape_of(value: Value<'_>) -> Option<Vec<usize>> {
    // torch.Size is pickled as a call with one tuple.
    let sizes = match value.as_object() {
        Some(size) if size.class == "torch.Size" => size.args.element(0)?,
        _ => value,
    };
    let sizes = sizes.elements().filter(|sizes| sizes.len() <= MAX_AXES)?;
    sizes.map(Value::as_usize).collect()
}

/// The tensor of a value; `None` for other values.
pub(crate) fn strided(archive: &Archive, name: &str, value: Value<'_>) -> Result<Option<Found>> {
    let pickled = Pickled { archive, name };
    match made(value) {
        None => Ok(None),
        Some(Err(why)) => Ok(Some(Found::Unread(why))),
        Some(Ok(made)) => pickled.view(&made).map(Some),
    }
}

struct Pickled<'a> {
    archive: &'a Archive,
    name: &'a str,
}

impl Pickled<'_> {
    fn view(&self, made: &Made<'_>) -> Result<Found> {
        let argument = |index, what: &str| {
            made.args.element(index).ok_or_else(|| {
                self.damaged(
                    format!("has no {what}"),
                    "a whole record",
                    format!("argument {index} is missing"),
                )
            })
        };
        let negated = match made.is_negated() {
            Ok(negated) => negated,
            Err(why) => return Ok(Found::Unread(why)),
        };
        let (key, kind) = self.storage(argument(0, "storage")?)?;
        let named = match made.dtype {
            Some(index) => argument(index, "element type")?,
            None => kind,
        };
        let Some(dtype) = dtype(named) else {
            let name = named.as_global().map(|name| match name {
                "torch.ComplexFloatStorage" => "complex64",
                "torch.ComplexDoubleStorage" => "complex128",
                _ => name.strip_prefix("torch.").unwrap_or(name),
            });
            let name = name.map_or_else(|| named.describe(), str::to_owned);
            return Ok(Found::Unread(format!("its elements are {}", shown(&name))));
        };
        let offset = self.size(argument(1, "offset")?, "offset")?;
        let shape = self.sizes(argument(2, "shape")?, "shape")?;
        let stride = self.sizes(argument(3, "stride")?, "stride")?;
        if shape.len() != stride.len() {
            return Err(self.damaged(
                "has a stride that does not fit its shape".into(),
                "as many strides as axes",
                format!("{} axes, {} strides", shape.len(), stride.len()),
            ));
        }
        let range = self.range(key, dtype, offset, &shape, &stride)?;
        // Elements share places if there are more elements than places.
        let repeats = elements(&shape).is_none_or(|count| count > range.len() / dtype.size_bytes());
        Ok(Found::Read(Strided {
            dtype,
            shape,
            stride,
            storage: key.into(),
            offset,
            range,
            negated,
            repeats,
        }))
    }

    /// A storage's key and its class, from `('storage', class, key, place, elements)`.
    fn storage<'p>(&self, value: Value<'p>) -> Result<(&'p str, Value<'p>)> {
        let damaged = || {
            self.damaged(
                "has no storage".into(),
                "('storage', class, key, place, elements)",
                value.describe(),
            )
        };
        let record = value.as_persistent().ok_or_else(damaged)?;
        let field = |index| record.element(index);
        if field(0).and_then(Value::as_str) != Some("storage") {
            return Err(damaged());
        }
        let kind = field(1).ok_or_else(damaged)?;
        let key = field(2).and_then(Value::as_str).ok_or_else(damaged)?;
        Ok((key, kind))
    }

    /// The range of the view, after checking that it is inside the storage.
    fn range(
        &self,
        key: &str,
        dtype: Dtype,
        offset: usize,
        shape: &[usize],
        stride: &[usize],
    ) -> Result<Range<usize>> {
        let storage = self.archive.storage(key).ok_or_else(|| {
            self.damaged(
                "has no data".into(),
                "an entry data/KEY for its storage",
                format!("none for the key {}", shown(key)),
            )
        })?;
        let available = storage.len() / dtype.size_bytes();
        let too_large = || {
            self.damaged(
                "is larger than its storage".into(),
                &format!("at most {available} elements"),
                format!("shape {shape:?}, stride {stride:?}, offset {offset}"),
            )
        };
        let count = elements(shape).ok_or_else(too_large)?;
        if count == 0 {
            return Ok(storage.start..storage.start);
        }
        let last = shape
            .iter()
            .zip(stride)
            .try_fold(offset, |last, (&axis, &step)| {
                // No axis is 0 here.
                last.checked_add((axis - 1).checked_mul(step)?)
            });
        let end = last
            .and_then(|last| last.checked_add(1))
            .filter(|&end| end <= available)
            .ok_or_else(too_large)?;
        let size = dtype.size_bytes();
        Ok(storage.start + offset * size..storage.start + end * size)
    }

    fn sizes(&self, value: Value<'_>, what: &str) -> Result<Vec<usize>> {
        shape_of(value).ok_or_else(|| {
            self.damaged(
                format!("has no usable {what}"),
                &format!("a tuple of at most {MAX_AXES} integers from 0"),
                value.describe(),
            )
        })
    }

    fn size(&self, value: Value<'_>, what: &str) -> Result<usize> {
        value.as_usize().ok_or_else(|| {
            self.damaged(
                format!("has no usable {what}"),
                "integers from 0",
                value.describe(),
            )
        })
    }

    fn location(&self) -> String {
        format!(
            "{}, tensor {}",
            self.archive.path.display(),
            shown(self.name)
        )
    }

    fn damaged(&self, what: String, expected: &str, got: String) -> Error {
        Error::Damaged {
            location: self.location(),
            what: format!("the tensor {what}"),
            expected: expected.into(),
            got,
            help: "the file is damaged; copy or save it again",
        }
    }
}

/// The type that is named directly or by the class of a storage.
fn dtype(named: Value<'_>) -> Option<Dtype> {
    let name = named.as_global()?.strip_prefix("torch.")?;
    match name.strip_suffix("Storage") {
        Some(storage) => Dtype::from_storage(storage.strip_prefix("cuda.").unwrap_or(storage)),
        None => from_torch(name),
    }
}

/// The type of `torch.<name>`.
fn from_torch(name: &str) -> Option<Dtype> {
    Some(match name {
        "bool" => Dtype::Bool,
        "uint8" => Dtype::U8,
        "int8" => Dtype::I8,
        "int16" | "short" => Dtype::I16,
        "int32" | "int" => Dtype::I32,
        "int64" | "long" => Dtype::I64,
        "float16" | "half" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "float32" | "float" => Dtype::F32,
        "float64" | "double" => Dtype::F64,
        _ => return None,
    })
}
