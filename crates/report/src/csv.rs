//! `metrics.csv`: the train and eval records for spreadsheets and data frames.

use crate::records::Record;

const HEADER: [&str; 14] = [
    "kind",
    "step",
    "tokens",
    "stage",
    "params",
    "loss",
    "bits_per_byte",
    "perplexity",
    "eval_tokens",
    "grad_norm",
    "lr",
    "step_ms",
    "tokens_per_s",
    "skipped",
];

/// The train and eval records as comma-separated values (RFC 4180), one header row first.
///
/// A column that a record's kind lacks, and a float that is not finite, is an empty field.
#[must_use]
pub fn metrics_csv(records: &[Record]) -> String {
    let mut out = String::new();
    push_row(&mut out, &HEADER.map(str::to_owned));
    for record in records {
        match record {
            Record::Train(r) => push_row(
                &mut out,
                &[
                    "train".to_owned(),
                    r.step.to_string(),
                    r.tokens.to_string(),
                    r.stage.to_string(),
                    r.params.to_string(),
                    float(r.loss),
                    optional(r.bits_per_byte),
                    String::new(),
                    String::new(),
                    float(r.grad_norm),
                    float(r.lr),
                    float(r.step_ms),
                    float(r.tokens_per_s),
                    r.skipped.to_string(),
                ],
            ),
            Record::Eval(r) => push_row(
                &mut out,
                &[
                    "eval".to_owned(),
                    r.step.to_string(),
                    r.tokens.to_string(),
                    r.stage.to_string(),
                    r.params.to_string(),
                    float(r.loss),
                    optional(r.bits_per_byte),
                    float(r.perplexity),
                    r.eval_tokens.to_string(),
                    String::new(),
                    String::new(),
                    String::new(),
                    String::new(),
                    String::new(),
                ],
            ),
            Record::Grow(_) | Record::Control(_) | Record::Sample(_) | Record::Note(_) => {}
        }
    }
    out
}

/// No field needs quotes: all are numbers or fixed words.
fn push_row(out: &mut String, fields: &[String; HEADER.len()]) {
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
