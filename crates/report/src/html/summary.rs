//! The top of the report: a summary of the run and its results.

use crate::escape::escape;
use crate::records::{EvalRecord, Record, TrainRecord, Unit};
use crate::series::median;
use crate::svg::{hue_class, short};
use crate::table::{human_count, human_duration};
use crate::timeline::{Clock, Stage};

pub(super) fn header(title: &str, records: &[Record], stages: &[Stage<'_>]) -> String {
    format!(
        "<p class=\"kicker\">TokenFormer run</p>\n<h1>{}</h1>\n<p class=\"lead\">{}</p>\n{}{}",
        escape(title),
        sentence(records, stages),
        cards(records, stages),
        growth_bar(stages),
    )
}

/// One sentence of HTML.
fn sentence(records: &[Record], stages: &[Stage<'_>]) -> String {
    let (Some(first), Some(last)) = (stages.first(), stages.last()) else {
        return "Nothing has been recorded yet.".to_owned();
    };
    let params = human_count(last.params);
    let subject = match stages.len() {
        1 => format!("A model of <b>{params} parameters</b>"),
        count => format!(
            "A model grown from <b>{} to {params} parameters</b> in {count} stages",
            human_count(first.params),
        ),
    };
    let tokens = human_count(end_tokens(stages));
    let result = match Losses::of(records) {
        Losses::HeldOut([first, last]) if first.step != last.step => {
            let verb = if last.loss <= first.loss {
                "fell"
            } else {
                "went"
            };
            format!(
                "; its held-out loss {verb} from <b>{} to {}</b>",
                short(first.loss),
                short(last.loss)
            )
        }
        Losses::HeldOut([only, _]) => {
            format!("; its held-out loss is <b>{}</b>", short(only.loss))
        }
        Losses::Training([_, last]) => {
            format!("; its training loss is <b>{}</b>", short(last.loss))
        }
        Losses::None => String::new(),
    };
    let unit = Unit::of(records).plural();
    format!("{subject}, trained on <b>{tokens} {unit}</b>{result}.")
}

fn cards(records: &[Record], stages: &[Stage<'_>]) -> String {
    let unit = Unit::of(records);
    let mut out = String::from("<div class=\"cards\">\n");
    let mut card = |label: &str, value: &str, detail: &str| {
        out.push_str(&format!(
            "<div class=\"card\"><span>{label}</span><b>{value}</b><small>{detail}</small></div>\n"
        ));
    };
    if let (Some(first), Some(last)) = (stages.first(), stages.last()) {
        let growths = match stages.len() - 1 {
            0 => "no growth".to_owned(),
            1 => "one growth".to_owned(),
            count => format!("{count} growths"),
        };
        let count = human_count;
        let value = if stages.len() > 1 {
            arrow(&count(first.params), &count(last.params))
        } else {
            count(last.params)
        };
        card("Parameters", &value, &growths);
    }
    match Losses::of(records) {
        Losses::HeldOut([first, last]) => {
            let perplexity = last.perplexity.map(|p| format!("perplexity {}", short(p)));
            card(
                "Held-out loss",
                &arrow(&short(first.loss), &short(last.loss)),
                perplexity.as_deref().unwrap_or("nats per image"),
            );
            if let (Some(first), Some(last)) = (first.top1, last.top1) {
                card(
                    "Accuracy",
                    &arrow(&percent(first), &percent(last)),
                    "held-out, top 1",
                );
            }
            if let (Some(first), Some(last)) = (first.bits_per_byte, last.bits_per_byte) {
                card(
                    "Bits per byte",
                    &arrow(&short(first), &short(last)),
                    "held-out",
                );
            }
        }
        Losses::Training([first, last]) => card(
            "Training loss",
            &arrow(&short(first.loss), &short(last.loss)),
            unit.choose("nats per token", "nats per image"),
        ),
        Losses::None => {}
    }
    let own = |record: &&Record| !matches!(record, Record::Control(_));
    let steps = records.iter().filter(own).map(Record::step).max();
    let steps = steps.unwrap_or(0);
    card(
        unit.choose("Training tokens", "Training images"),
        &human_count(end_tokens(stages)),
        &format!("{steps} steps"),
    );
    let mut clock = Clock::default();
    let elapsed_ms = records
        .iter()
        .map(|record| clock.advance(record))
        .last()
        .unwrap_or(0.0);
    let speeds = records.iter().filter_map(|record| match record {
        Record::Train(r) => r
            .tokens_per_s
            .or(r.images_per_s)
            .filter(|speed| speed.is_finite()),
        _ => None,
    });
    let speed = median(speeds.collect()).map_or(String::new(), |speed| {
        format!("median {} {}/s", human_count(speed as u64), unit.plural())
    });
    card("Training time", &human_duration(elapsed_ms / 1e3), &speed);
    out.push_str("</div>\n");
    out
}

/// The final model as one bar, each stage's share in its colour.
fn growth_bar(stages: &[Stage<'_>]) -> String {
    if stages.len() < 2 {
        return String::new();
    }
    let (mut bar, mut keys, mut below) = (String::new(), String::new(), 0);
    for stage in stages {
        let added = stage.params.saturating_sub(below);
        let sign = if below == 0 { "" } else { "+" };
        let (hue, count) = (hue_class(stage.index), human_count(added));
        let label = match stage.growth {
            Some(growth) => format!("{sign}{count} ({})", escape(&growth.summary)),
            None => format!("{sign}{count}"),
        };
        bar.push_str(&format!(
            "<div class=\"{hue}\" style=\"flex:{added}\" title=\"{label}\"></div>"
        ));
        keys.push_str(&format!(
            "<span><span class=\"swatch {hue}\"></span>{label}</span>"
        ));
        below = stage.params;
    }
    format!(
        "<div class=\"card growthbar\"><span>How the model is made up</span>\
         <div class=\"bar\">{bar}</div><div class=\"keys\">{keys}</div></div>\n"
    )
}

/// The first and last loss for the headline.
enum Losses<'a> {
    HeldOut([&'a EvalRecord; 2]),
    Training([&'a TrainRecord; 2]),
    None,
}

impl<'a> Losses<'a> {
    fn of(records: &'a [Record]) -> Self {
        let mut evals = records.iter().filter_map(|record| match record {
            Record::Eval(r) => Some(r),
            _ => None,
        });
        if let Some(first) = evals.next() {
            return Self::HeldOut([first, evals.next_back().unwrap_or(first)]);
        }
        let mut trains = records.iter().filter_map(|record| match record {
            Record::Train(r) => Some(r),
            _ => None,
        });
        match trains.next() {
            Some(first) => Self::Training([first, trains.next_back().unwrap_or(first)]),
            None => Self::None,
        }
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn end_tokens(stages: &[Stage<'_>]) -> u64 {
    stages
        .iter()
        .map(|stage| stage.end_tokens)
        .max()
        .unwrap_or(0)
}

fn arrow(first: &str, last: &str) -> String {
    if first == last {
        first.to_owned()
    } else {
        format!("{first}<i>→</i>{last}")
    }
}
