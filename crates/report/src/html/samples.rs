//! Text samples of the model, by stage.

use crate::escape::escape;
use crate::records::{Record, SampleRecord};
use crate::svg::hue_class;
use crate::table::human_count;
use crate::timeline::Stage;

pub(super) fn timeline(records: &[Record], stages: &[Stage<'_>]) -> String {
    let samples: Vec<&SampleRecord> = records
        .iter()
        .filter_map(|record| match record {
            Record::Sample(r) => Some(r),
            _ => None,
        })
        .collect();
    samples
        .chunk_by(|a, b| a.stage == b.stage)
        .map(|samples| in_stage(samples, stages))
        .collect()
}

/// The first and the last samples of a stage; those between are collapsed.
fn in_stage(samples: &[&SampleRecord], stages: &[Stage<'_>]) -> String {
    let Some(stage) = samples.first().map(|sample| sample.stage) else {
        return String::new();
    };
    let params = stages
        .iter()
        .find(|other| other.index == stage)
        .map_or(String::new(), |stage| {
            format!("<small>{} parameters</small>", human_count(stage.params))
        });
    let by_step: Vec<String> = samples
        .chunk_by(|a, b| a.step == b.step)
        .map(|samples| samples.iter().map(|sample| one(sample)).collect())
        .collect();
    let content = match by_step.as_slice() {
        [first, between @ .., last] if !between.is_empty() => format!(
            "{first}<details class=\"between\"><summary>{} more in between</summary>\n{}</details>\n{last}",
            between.len(),
            between.concat(),
        ),
        all => all.concat(),
    };
    format!(
        "<div class=\"samples\"><div class=\"knot {}\"></div><h3>Stage {}{params}</h3>\n{content}</div>\n",
        hue_class(stage),
        stage.saturating_add(1),
    )
}

fn one(sample: &SampleRecord) -> String {
    format!(
        "<article class=\"card sample\"><header>step {}, {} tokens</header>\
         <div class=\"text\"><span class=\"prompt\">{}</span>{}</div></article>\n",
        sample.step,
        human_count(sample.tokens),
        escape(&sample.prompt),
        escape(&sample.text),
    )
}
