//! TensorBoard event files.
//!
//! An event file is a sequence of TFRecord frames ([`frame`]), each holding one `Event` message ([`event`]).

mod event;
mod frame;

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::files::{create_dir, write_atomically};
use crate::records::Record;
use crate::timeline::Clock;
use crate::{Error, Result};
use event::Value;

/// The name of the one event file of a run: TensorBoard wants `tfevents` in it, everything else is fixed so that the
/// file is found again.
pub const EVENT_FILE_NAME: &str = "events.out.tfevents.0000000000.tokenformer";

/// Makes the event file in `dir` hold exactly `records`; returns its path.
///
/// The bytes depend on the records alone: an event's wall time is the training time up to it, not the clock. More records
/// of the same run therefore only append, which is what a TensorBoard that is watching the file needs to follow it;
/// anything else in the file, such as records that a resume dropped, makes it be replaced in one piece.
///
/// Scalars: `train/{loss,bits_per_byte,grad_norm,lr,tokens_per_s}`, `eval/{loss,bits_per_byte,perplexity}` and
/// `model/params`. Texts: `growth` and `samples`.
///
/// # Errors
/// [`Error::Io`] when the folder or the file cannot be read or written.
pub fn write_events(dir: impl AsRef<Path>, records: &[Record]) -> Result<PathBuf> {
    let dir = dir.as_ref();
    create_dir(dir)?;
    let path = dir.join(EVENT_FILE_NAME);
    let io_error = |action| {
        let path = path.clone();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    };
    let new = encode(records);
    let old = match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(source) => return Err(io_error("read the event file")(source)),
    };
    match old.as_deref().and_then(|old| new.strip_prefix(old)) {
        Some(added) => OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(added))
            .map_err(io_error("append to the event file"))?,
        None => write_atomically(&path, &new)?,
    }
    Ok(path)
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push(&mut out, &event::file_version());
    let mut clock = Clock::default();
    let mut push = |record: &Record, values: &[(&str, Value<'_>)]| {
        let seconds = clock.advance(record) / 1e3;
        if !values.is_empty() {
            frame::push(&mut out, &event::summary(seconds, record.step(), values));
        }
    };
    for record in records {
        match record {
            Record::Train(r) => {
                let mut values = vec![
                    ("train/loss", Value::Scalar(r.loss)),
                    ("train/grad_norm", Value::Scalar(r.grad_norm)),
                    ("train/lr", Value::Scalar(r.lr)),
                    ("train/tokens_per_s", Value::Scalar(r.tokens_per_s)),
                    ("model/params", Value::Scalar(r.params as f64)),
                ];
                values.extend(
                    r.bits_per_byte
                        .map(|bits| ("train/bits_per_byte", Value::Scalar(bits))),
                );
                push(record, &values);
            }
            Record::Eval(r) => {
                let mut values = vec![
                    ("eval/loss", Value::Scalar(r.loss)),
                    ("eval/perplexity", Value::Scalar(r.perplexity)),
                ];
                values.extend(
                    r.bits_per_byte
                        .map(|bits| ("eval/bits_per_byte", Value::Scalar(bits))),
                );
                push(record, &values);
            }
            Record::Grow(r) => push(record, &[("growth", Value::Text(&r.summary))]),
            Record::Sample(r) => {
                let text = format!("{}{}", r.prompt, r.text);
                push(record, &[("samples", Value::Text(&text))]);
            }
            Record::Note(_) => push(record, &[]),
        }
    }
    out
}
