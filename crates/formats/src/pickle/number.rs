//! Values as numbers, also as numpy's scalars: `scalar(dtype, bytes)`, where the dtype is an object made from a code such as `i8`.

use super::Value;
use super::value::Node;

/// The number of a numpy scalar.
#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn as_i64(self) -> Option<i64> {
        match self {
            Number::Int(value) => Some(value),
            Number::Float(_) => None,
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

/// The number of a little-endian numpy scalar.
fn scalar(value: Value<'_>) -> Option<Number> {
    let object = value.as_object()?;
    matches!(
        object.class,
        "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar"
    )
    .then_some(())?;
    let dtype = object.args.element(0)?.as_object()?;
    (dtype.class == "numpy.dtype").then_some(())?;
    let bytes = object.args.element(1)?.as_bytes()?;
    // The dtype's state is (version, byte order, ...); ">" is big-endian.
    if dtype.state.element(1).and_then(Value::as_str) == Some(">") {
        return None;
    }
    Some(match dtype.args.element(0)?.as_str()? {
        "i1" => Number::Int(i8::from_le_bytes(bytes.try_into().ok()?).into()),
        "i2" => Number::Int(i16::from_le_bytes(bytes.try_into().ok()?).into()),
        "i4" => Number::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        "i8" => Number::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
        "u1" => Number::Int(u8::from_le_bytes(bytes.try_into().ok()?).into()),
        "u2" => Number::Int(u16::from_le_bytes(bytes.try_into().ok()?).into()),
        "u4" => Number::Int(u32::from_le_bytes(bytes.try_into().ok()?).into()),
        "u8" => Number::Int(u64::from_le_bytes(bytes.try_into().ok()?).try_into().ok()?),
        "f4" => Number::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        "f8" => Number::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

impl Value<'_> {
    /// An integer of up to 64 bits, also as a numpy scalar.
    pub fn as_i64(self) -> Option<i64> {
        match self.node() {
            Node::Int(value) => Some(*value),
            Node::Object { .. } => scalar(self)?.as_i64(),
            _ => None,
        }
    }

    /// A number, also as a numpy scalar.
    pub fn as_f64(self) -> Option<f64> {
        match self.node() {
            Node::Int(value) => Some(*value as f64),
            Node::Float(value) => Some(*value),
            Node::Object { .. } => Some(scalar(self)?.as_f64()),
            _ => None,
        }
    }
}
