//! TensorBoard event files.
//!
//! An event file is a sequence of TFRecord frames ([`frame`]), each holding one `Event` message ([`event`]).
//!
//! A running TensorBoard never rereads what it has read, so a file is only appended to. If a resume has made earlier
//! events invalid, a new file begins with a session start, at which readers drop the steps that are repeated.

mod event;
mod frame;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::files::{create_dir, write_atomically};
use crate::records::Record;
use crate::timeline::Clock;
use crate::{Error, Result};
use event::{Effect, Value};

/// Updates the event files in `dir` so that they contain exactly `records`; returns the path of the newest file.
///
/// The first file is `events.out.tfevents.0000000000.tokenformer`. As long as `records` only become more, they are
/// appended to the newest file. Otherwise (a resume dropped records, or an append was cut short) the next file begins,
/// with a session start at the first step that is no longer as it was, and every event from there on. TensorBoard reads
/// files in the order of their names and purges at a session start, so it shows the same whether it was watching or
/// reads all files afresh.
///
/// Events depend on the records alone: an event's wall time is the training time up to it, not the clock.
///
/// Scalars: `train/{loss,bits_per_byte,grad_norm,lr,tokens_per_s}`, `eval/{loss,bits_per_byte,perplexity}`, of a run on
/// pictures `train/{images_per_s,waiting}` and `eval/{top1,top5}`, of averaged weights `eval/ema_{loss,top1,top5}`, and
/// `model/params`. Texts: `growth` and `samples`.
///
/// # Errors
/// [`Error::Io`] when the folder or a file cannot be read or written.
pub fn write_events(dir: impl AsRef<Path>, records: &[Record]) -> Result<PathBuf> {
    let dir = dir.as_ref();
    create_dir(dir)?;
    let wanted = encode(records);
    let files = event_files(dir)?;
    let contents = (files.iter().map(|(_, path)| read(path))).collect::<Result<Vec<_>>>()?;
    let shown = Shown::by(&contents);

    let same = (shown.events.iter().zip(&wanted))
        .take_while(|(shown, wanted)| shown.payload == wanted.payload)
        .count();
    let added = &wanted[same..];
    let changed = &shown.events[same..];
    let mut bytes = Vec::new();
    match files.last() {
        Some((_, path)) if changed.is_empty() && (added.is_empty() || shown.can_grow) => {
            for event in added {
                frame::push(&mut bytes, &event.payload);
            }
            append(path, &bytes)?;
            Ok(path.clone())
        }
        newest => {
            frame::push(&mut bytes, &event::file_version());
            let steps = added.iter().map(|event| event.step);
            let from = steps.chain(changed.iter().map(|event| event.step)).min();
            let kept = wanted.partition_point(|event| Some(event.step) < from);
            let start = match (newest, from) {
                (Some(_), Some(from)) => {
                    let seconds = wanted.get(kept).map_or(0.0, |event| event.seconds);
                    event::session_start(seconds, from)
                }
                _ => event::session_start(0.0, 0),
            };
            frame::push(&mut bytes, &start);
            // Some readers take the first session start that they see as the start of the run, which purges nothing.
            if newest.is_some() && !shown.has_start {
                frame::push(&mut bytes, &start);
            }
            for event in &wanted[kept..] {
                frame::push(&mut bytes, &event.payload);
            }
            let path = dir.join(file_name(newest.map_or(0, |(number, _)| number + 1)));
            write_atomically(&path, &bytes)?;
            Ok(path)
        }
    }
}

const NAME_START: &str = "events.out.tfevents.";
const NAME_END: &str = ".tokenformer";

/// TensorBoard wants `tfevents` in the name and sorts by name, which is why there are leading zeros.
fn file_name(number: u64) -> String {
    format!("{NAME_START}{number:010}{NAME_END}")
}

/// The event files that were written here, by number.
fn event_files(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = io_error("look for event files", dir);
    let entries = std::fs::read_dir(dir).map_err(&failed)?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name();
        let number = (name.to_str())
            .and_then(|name| name.strip_prefix(NAME_START)?.strip_suffix(NAME_END))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number
            && file_name(number).as_str() == name
            && number < u64::MAX
        {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(io_error("read the event file", path))
}

fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    OpenOptions::new()
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(io_error("append to the event file", path))
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// The state of a reader after all files.
struct Shown<'a> {
    events: Vec<ShownEvent<'a>>,
    /// Whether a session start was among what was read.
    has_start: bool,
    /// Whether the newest file ends with a whole event: nothing can be read after an incomplete one.
    can_grow: bool,
}

struct ShownEvent<'a> {
    step: u64,
    payload: &'a [u8],
}

impl<'a> Shown<'a> {
    fn by(files: &'a [Vec<u8>]) -> Self {
        let mut shown = Self {
            events: Vec::new(),
            has_start: false,
            can_grow: true,
        };
        for file in files {
            let mut rest = file.as_slice();
            while let Some((payload, after)) = frame::split_first(rest) {
                match event::effect(payload) {
                    None => break,
                    Some(Effect::None) => {}
                    Some(Effect::Adds(step)) => shown.events.push(ShownEvent { step, payload }),
                    Some(Effect::Restarts(from)) => {
                        shown.has_start = true;
                        shown.events.retain(|event| event.step < from);
                    }
                }
                rest = after;
            }
            shown.can_grow = rest.is_empty() && !file.is_empty();
        }
        shown
    }
}

struct Event {
    step: u64,
    seconds: f64,
    payload: Vec<u8>,
}

/// The events of `records`, by step: a session start divides them at a step.
fn encode(records: &[Record]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut clock = Clock::default();
    let mut push = |record: &Record, values: &[(&str, Value<'_>)]| {
        let seconds = clock.advance(record) / 1e3;
        if !values.is_empty() {
            events.push(Event {
                step: record.step(),
                seconds,
                payload: event::summary(seconds, record.step(), values),
            });
        }
    };
    for record in records {
        match record {
            Record::Train(r) => {
                let mut values = vec![
                    ("train/loss", Value::Scalar(r.loss)),
                    ("train/grad_norm", Value::Scalar(r.grad_norm)),
                    ("train/lr", Value::Scalar(r.lr)),
                ];
                values.extend(scalars([("train/tokens_per_s", r.tokens_per_s)]));
                values.push(("model/params", Value::Scalar(r.params as f64)));
                values.extend(scalars([
                    ("train/bits_per_byte", r.bits_per_byte),
                    ("train/images_per_s", r.images_per_s),
                    ("train/waiting", r.waiting),
                ]));
                push(record, &values);
            }
            Record::Eval(r) => {
                let mut values = vec![("eval/loss", Value::Scalar(r.loss))];
                values.extend(scalars([
                    ("eval/perplexity", r.perplexity),
                    ("eval/bits_per_byte", r.bits_per_byte),
                    ("eval/top1", r.top1),
                    ("eval/top5", r.top5),
                    ("eval/ema_loss", r.ema_loss),
                    ("eval/ema_top1", r.ema_top1),
                    ("eval/ema_top5", r.ema_top5),
                ]));
                push(record, &values);
            }
            Record::Grow(r) => push(record, &[("growth", Value::Text(&r.summary))]),
            Record::Sample(r) => {
                let text = format!("{}{}", r.prompt, r.text);
                push(record, &[("samples", Value::Text(&text))]);
            }
            Record::Start(_) | Record::Control(_) | Record::Note(_) => push(record, &[]),
        }
    }
    // Records of a run are in this order already, but the file format does not guarantee it.
    events.sort_by_key(|event| event.step);
    events
}

/// Those of the values that there are.
fn scalars<const N: usize>(
    values: [(&'static str, Option<f64>); N],
) -> impl Iterator<Item = (&'static str, Value<'static>)> {
    let there = values
        .into_iter()
        .filter_map(|(tag, value)| Some((tag, value?)));
    there.map(|(tag, value)| (tag, Value::Scalar(value)))
}
