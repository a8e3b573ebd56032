//! The few fields of the `Event` protobuf that scalars, texts and resumes need, encoded by hand.
//!
//! ```text
//! Event           { 1 wall_time: double, 2 step: int64, 3 file_version: string, 5 summary: Summary, 7 session_log: SessionLog }
//! SessionLog      { 1 status: enum (1 = start) }
//! Summary         { 1 value: repeated Value }
//! Value           { 1 tag: string, 2 simple_value: float, 8 tensor: TensorProto, 9 metadata: SummaryMetadata }
//! TensorProto     { 1 dtype: enum (7 = string), 2 tensor_shape: TensorShapeProto, 8 string_val: repeated bytes }
//! TensorShapeProto{ 2 dim: repeated Dim { 1 size: int64 } }
//! SummaryMetadata { 1 plugin_data: PluginData { 1 plugin_name: string }, 4 data_class: enum (2 = tensor) }
//! ```
//!
//! Every event here has its wall time first, then its step (except for the file's version), then its one content.
//!
//! Format source: event.proto, summary.proto, tensor.proto and tensor_shape.proto of TensorFlow.

/// The value of a tag at a step.
pub(super) enum Value<'a> {
    Scalar(f64),
    Text(&'a str),
}

/// The first event of every file.
pub(super) fn file_version() -> Vec<u8> {
    Message::default()
        .double(1, 0.0)
        .bytes(3, b"brain.Event:2")
        .0
}

pub(super) fn summary(wall_time_s: f64, step: u64, values: &[(&str, Value<'_>)]) -> Vec<u8> {
    let summary = values
        .iter()
        .fold(Message::default(), |summary, (tag, value)| {
            let message = Message::default().bytes(1, tag.as_bytes());
            let message = match value {
                Value::Scalar(scalar) => message.float(2, *scalar as f32),
                Value::Text(text) => text_tensor(message, text),
            };
            summary.bytes(1, &message.0)
        });
    Message::default()
        .double(1, wall_time_s)
        .varint(2, step)
        .bytes(5, &summary.0)
        .0
}

/// The start of a session: readers drop earlier events with this step or a later one.
pub(super) fn session_start(wall_time_s: f64, step: u64) -> Vec<u8> {
    let log = Message::default().varint(1, 1);
    Message::default()
        .double(1, wall_time_s)
        .varint(2, step)
        .bytes(7, &log.0)
        .0
}

/// The effect of an event on the state of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Says nothing about the run.
    None,
    /// Adds values at a step.
    Adds(u64),
    /// Removes values with this step or a later one.
    Restarts(u64),
}

/// Reads what the functions above wrote; `None` for anything else.
pub(super) fn effect(payload: &[u8]) -> Option<Effect> {
    const WALL_TIME: u8 = 1 << 3 | 1;
    const STEP: u8 = 2 << 3;
    const FILE_VERSION: u8 = 3 << 3 | 2;
    const SUMMARY: u8 = 5 << 3 | 2;
    const SESSION_LOG: u8 = 7 << 3 | 2;

    let rest = payload.strip_prefix(&[WALL_TIME])?.get(8..)?;
    if rest.first() == Some(&FILE_VERSION) {
        return Some(Effect::None);
    }
    let (step, rest) = read_varint(rest.strip_prefix(&[STEP])?)?;
    match *rest.first()? {
        SUMMARY => Some(Effect::Adds(step)),
        SESSION_LOG => Some(Effect::Restarts(step)),
        _ => None,
    }
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = 1 + bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let (digits, rest) = bytes.split_at_checked(length)?;
    let value = (digits.iter().rev()).fold(0u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, rest))
}

fn text_tensor(message: Message, text: &str) -> Message {
    let dim = Message::default().varint(1, 1);
    let shape = Message::default().bytes(2, &dim.0);
    let tensor = Message::default()
        .varint(1, 7)
        .bytes(2, &shape.0)
        .bytes(8, text.as_bytes());
    let plugin = Message::default().bytes(1, b"text");
    let metadata = Message::default().bytes(1, &plugin.0).varint(4, 2);
    message.bytes(8, &tensor.0).bytes(9, &metadata.0)
}

/// A protobuf message under construction: each method appends one field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, field: u8, value: u64) -> Self {
        self.key(field, 0);
        self.raw_varint(value);
        self
    }

    fn double(mut self, field: u8, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u8, value: &[u8]) -> Self {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn float(mut self, field: u8, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn key(&mut self, field: u8, wire_type: u8) {
        self.0.push(field << 3 | wire_type);
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
