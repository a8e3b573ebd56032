//! The report's tables.

use super::figure;
use crate::escape::escape;
use crate::plots::Plot;
use crate::records::{EvalRecord, GrowRecord, Record, SiteGrowth, Unit};
use crate::svg::{hue_class, short};
use crate::table::{human_count, range};
use crate::timeline::Stage;

/// A column of the stages table: its header, and its cell for a stage.
type Column = (&'static str, fn(&Stage<'_>) -> String);

pub(super) fn stages(stages: &[Stage<'_>], unit: Unit) -> String {
    if stages.is_empty() {
        return String::new();
    }
    let mut columns: Vec<Column> = vec![
        ("Stage", stage_name),
        ("Parameters", |stage| human_count(stage.params)),
        (unit.choose("Tokens", "Images"), |stage| {
            human_count(stage.tokens())
        }),
        ("Steps", |stage| {
            stage.end_step.saturating_sub(stage.start_step).to_string()
        }),
    ];
    if stages.iter().any(|stage| stage.first_eval.is_some()) {
        columns.push(("Held-out loss,<br>first", |stage| {
            eval(stage.first_eval.map(|r| r.loss))
        }));
        columns.push(("<br>last", |stage| eval(stage.last_eval.map(|r| r.loss))));
    }
    let has_bits = |stage: &Stage<'_>| bits(stage.last_eval).is_some();
    if stages.iter().any(has_bits) {
        columns.push(("Bits per byte,<br>first", |stage| {
            eval(bits(stage.first_eval))
        }));
        columns.push(("<br>last", |stage| eval(bits(stage.last_eval))));
    }
    let has_top1 = |stage: &Stage<'_>| stage.last_eval.is_some_and(|r| r.top1.is_some());
    if stages.iter().any(has_top1) {
        columns.push(("Top 1,<br>first", |stage| top1(stage.first_eval)));
        columns.push(("<br>last", |stage| top1(stage.last_eval)));
    }
    if stages.iter().any(|stage| stage.growth.is_some()) {
        columns.push(("Largest logit<br>change at growth", |stage| {
            let difference = stage.growth.map(|r| logit_difference(r.max_logit_diff));
            difference.unwrap_or_else(|| "–".to_owned())
        }));
    }
    let head: String = columns
        .iter()
        .map(|(header, _)| format!("<th>{header}</th>"))
        .collect();
    let rows: String = stages
        .iter()
        .map(|stage| {
            let cells = columns
                .iter()
                .map(|(_, cell)| format!("<td>{}</td>", cell(stage)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        })
        .collect();
    format!(
        "<div class=\"card scroll\"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}

fn stage_name(stage: &Stage<'_>) -> String {
    let growth = stage.growth.map_or(String::new(), |growth| {
        format!(" <small>{}</small>", escape(&growth.summary))
    });
    format!(
        "<span class=\"swatch {}\"></span>{}{growth}",
        hue_class(stage.index),
        stage.index.saturating_add(1),
    )
}

fn bits(eval: Option<&EvalRecord>) -> Option<f64> {
    eval.and_then(|r| r.bits_per_byte)
}

fn top1(eval: Option<&EvalRecord>) -> String {
    let share = eval.and_then(|r| r.top1);
    share.map_or("–".to_owned(), super::summary::percent)
}

fn eval(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), short)
}

/// The growths of a run, each with the plot of `zooms` that shows it, if one does.
pub(super) fn growths(records: &[Record], zooms: &[Plot]) -> String {
    /// If there are more tables than this, they are collapsed at first.
    const MAX_OPEN: usize = 2;
    let growths: Vec<&GrowRecord> = records
        .iter()
        .filter_map(|record| match record {
            Record::Grow(r) => Some(r),
            _ => None,
        })
        .collect();
    let open = growths.len() <= MAX_OPEN;
    let unit = Unit::of(records);
    growths
        .iter()
        .enumerate()
        .map(|(index, r)| {
            let zoom = zooms.iter().find(|plot| plot.growth() == Some(index));
            growth(r, unit, open, zoom)
        })
        .collect()
}

fn growth(r: &GrowRecord, unit: Unit, open: bool, zoom: Option<&Plot>) -> String {
    let layers = if r.layers_before == r.layers_after {
        String::new()
    } else {
        format!(", {} → {} layers", r.layers_before, r.layers_after)
    };
    let rows: String = r
        .sites
        .iter()
        .map(|site| {
            format!(
                "<tr><td>{}</td><td>{} → {}</td><td>{}</td><td>{} → {}</td></tr>\n",
                escape(&site.name),
                range(site.tokens_before, site.most_before),
                range(site.tokens_after, site.most_after),
                added(site),
                human_count(site.params_before),
                human_count(site.params_after),
            )
        })
        .collect();
    let sites = format!(
        "<div class=\"scroll\"><table><thead><tr><th>Site</th><th>Parameter tokens per block</th><th>Added</th><th>Parameters</th></tr></thead>\
         <tbody>\n{rows}</tbody></table></div>"
    );
    format!(
        "<details class=\"card\"{}><summary><span class=\"swatch {}\"></span><b>{}</b><small>step {}, {} {}: \
         {} → {} parameters{layers}; largest logit change {}</small></summary>{}{}</details>\n",
        if open { " open" } else { "" },
        hue_class(r.stage),
        escape(&r.summary),
        r.step,
        human_count(r.tokens),
        unit.plural(),
        human_count(r.params_before),
        human_count(r.params_after),
        logit_difference(r.max_logit_diff),
        if r.sites.is_empty() { "" } else { &sites },
        zoom.map_or(String::new(), figure),
    )
}

pub(super) fn log(records: &[Record]) -> String {
    let rows: Vec<(String, &str)> = records
        .iter()
        .filter_map(|record| match record {
            Record::Note(r) => Some((format!("step {}", r.step), r.text.as_str())),
            _ => None,
        })
        .collect();
    pairs(rows.iter().map(|(step, text)| (step.as_str(), *text)))
}

pub(super) fn environment(environment: &[(String, String)]) -> String {
    pairs(
        environment
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )
}

fn pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let rows: String = pairs
        .map(|(key, value)| {
            format!(
                "<tr><th>{}</th><td>{}</td></tr>\n",
                escape(key),
                escape(value)
            )
        })
        .collect();
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<div class=\"card scroll\"><table class=\"plain\"><tbody>\n{rows}</tbody></table></div>\n"
    )
}

/// The tokens that each block gained.
fn added(site: &SiteGrowth) -> String {
    if site.most_before.or(site.most_after).is_some() {
        return "differs by block".to_owned();
    }
    let (before, after) = (site.tokens_before, site.tokens_after);
    match after.checked_sub(before) {
        Some(added) => format!("+{added}"),
        None => format!("−{}", before - after),
    }
}

fn logit_difference(value: f64) -> String {
    if value == 0.0 {
        "0 (exact)".to_owned()
    } else {
        short(value)
    }
}
