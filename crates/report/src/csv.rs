//! `metrics.csv`: the train and eval records for spreadsheets and data frames.

use crate::records::{EvalRecord, Record, TrainRecord, Unit};

/// A column: its header, and its field of a train and of an eval record.
type Column = (
    &'static str,
    fn(&TrainRecord) -> String,
    fn(&EvalRecord) -> String,
);

/// Columns of every run.
const COLUMNS: [Column; 14] = [
    ("kind", |_| "train".into(), |_| "eval".into()),
    ("step", |r| r.step.to_string(), |r| r.step.to_string()),
    ("tokens", |r| r.tokens.to_string(), |r| r.tokens.to_string()),
    ("stage", |r| r.stage.to_string(), |r| r.stage.to_string()),
    ("params", |r| r.params.to_string(), |r| r.params.to_string()),
    ("loss", |r| float(r.loss), |r| float(r.loss)),
    (
        "bits_per_byte",
        |r| optional(r.bits_per_byte),
        |r| optional(r.bits_per_byte),
    ),
    ("perplexity", |_| String::new(), |r| optional(r.perplexity)),
    (
        "eval_tokens",
        |_| String::new(),
        |r| r.eval_tokens.to_string(),
    ),
    ("grad_norm", |r| float(r.grad_norm), |_| String::new()),
    ("lr", |r| float(r.lr), |_| String::new()),
    ("step_ms", |r| float(r.step_ms), |_| String::new()),
    (
        "tokens_per_s",
        |r| optional(r.tokens_per_s),
        |_| String::new(),
    ),
    ("skipped", |r| r.skipped.to_string(), |_| String::new()),
];

/// Columns of runs on text alone.
const OF_TEXT: [&str; 3] = ["bits_per_byte", "perplexity", "tokens_per_s"];

/// Columns that only runs have which measure such a thing.
const MORE_COLUMNS: [Column; 7] = [
    (
        "images_per_s",
        |r| optional(r.images_per_s),
        |_| String::new(),
    ),
    ("waiting", |r| optional(r.waiting), |_| String::new()),
    ("top1", |_| String::new(), |r| optional(r.top1)),
    ("top5", |_| String::new(), |r| optional(r.top5)),
    ("ema_loss", |_| String::new(), |r| optional(r.ema_loss)),
    ("ema_top1", |_| String::new(), |r| optional(r.ema_top1)),
    ("ema_top5", |_| String::new(), |r| optional(r.ema_top5)),
];

/// The train and eval records as comma-separated values (RFC 4180), one header row first.
///
/// A column that a record's kind lacks, and a float that is not finite, is an empty field. A run on pictures counts
/// `images` and has accuracies in place of the columns of text; measurements of averaged weights have columns where
/// there are such values.
#[must_use]
pub fn metrics_csv(records: &[Record]) -> String {
    let unit = Unit::of(records);
    let is_there = |column: &&Column| unit == Unit::Token || !OF_TEXT.contains(&column.0);
    let has_values = |column: &&Column| {
        let mut fields = records.iter().filter_map(|record| field(column, record));
        fields.any(|field| !field.is_empty())
    };
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .filter(is_there)
        .chain(MORE_COLUMNS.iter().filter(has_values))
        .collect();
    let header = |column: &&Column| match column.0 {
        "tokens" => unit.plural().to_owned(),
        "eval_tokens" => format!("eval_{}", unit.plural()),
        name => name.to_owned(),
    };
    let mut out = String::new();
    push_row(&mut out, columns.iter().map(header));
    for record in records {
        let fields: Option<Vec<String>> =
            columns.iter().map(|column| field(column, record)).collect();
        if let Some(fields) = fields {
            push_row(&mut out, fields);
        }
    }
    out
}

/// The field of a record; `None` if its kind has no row.
fn field(column: &Column, record: &Record) -> Option<String> {
    let (_, of_train, of_eval) = column;
    match record {
        Record::Train(r) => Some(of_train(r)),
        Record::Eval(r) => Some(of_eval(r)),
        Record::Start(_)
        | Record::Grow(_)
        | Record::Control(_)
        | Record::Sample(_)
        | Record::Note(_) => None,
    }
}

/// No field needs quotes: all are numbers or fixed words.
fn push_row(out: &mut String, fields: impl IntoIterator<Item = String>) {
    let fields: Vec<String> = fields.into_iter().collect();
    out.push_str(&fields.join(","));
    out.push_str("\r\n");
}

fn optional(value: Option<f64>) -> String {
    value.map(float).unwrap_or_default()
}

fn float(value: f64) -> String {
    if value.is_finite() {
        // Debug keeps the shortest exact form and turns to exponents where Display would print hundreds of zeros.
        format!("{value:?}")
    } else {
        String::new()
    }
}
