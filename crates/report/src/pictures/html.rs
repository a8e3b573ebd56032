//! The sections as HTML.

use super::figures::{MAX_CLASSES, confusion_matrix, reliability};
use super::png::data_uri;
use super::{ClassTokens, PictureGroup, PictureReport, Shown, SiteRow, Temperature, TokenRow};
use crate::escape::escape;
use crate::html::push_section;

/// Confused pairs that are listed.
const MAX_PAIRS: usize = 20;

/// The sections of a page that shows pictures.
#[must_use]
pub fn sections(report: &PictureReport) -> String {
    let mut out = String::new();
    let what = format!("<p class=\"said\">{}</p>\n", escape(&report.what));
    push_section(
        &mut out,
        "Pictures",
        &(what + &report.groups.iter().map(group).collect::<String>()),
    );
    push_section(&mut out, "Where attention looked", &rollout(report));
    push_section(&mut out, "Classes", &classes(report));
    push_section(&mut out, "Confusions", &confusions(report));
    push_section(&mut out, "Confidence", &confidence(report));
    push_section(&mut out, "Parameter tokens", &sites(report));
    push_section(&mut out, "Parameter tokens of one class", &tokens(report));
    out
}

fn figure(shown: &Shown) -> String {
    let lines: String = shown
        .lines
        .iter()
        .map(|line| format!("<small>{}</small>", escape(line)))
        .collect();
    format!(
        "<figure><img src=\"{}\" alt=\"{1}\" title=\"{1}\">{lines}</figure>\n",
        data_uri(&shown.png),
        escape(&shown.title),
    )
}

fn group(group: &PictureGroup) -> String {
    if group.pictures.is_empty() {
        return String::new();
    }
    format!(
        "<h3>{}</h3>\n<div class=\"card gallery\">{}</div>\n",
        escape(&group.heading),
        group.pictures.iter().map(figure).collect::<String>()
    )
}

fn rollout(report: &PictureReport) -> String {
    if report.rollout.is_empty() {
        return String::new();
    }
    let pairs = report.rollout.iter().map(|[picture, looked]| {
        format!(
            "<div class=\"pair\">{}{}</div>",
            figure(picture),
            figure(looked)
        )
    });
    format!(
        "<p class=\"said\">Attention rollout: the mean of the heads, half of it for the residual stream, multiplied through all \
         blocks. Bright patches enter the answer most.</p>\n<div class=\"card gallery\">{}</div>\n",
        pairs.collect::<String>()
    )
}

fn table(class: &str, headers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |tag: &str, cells: Vec<String>| -> String {
        cells
            .iter()
            .map(|cell| format!("<{tag}>{cell}</{tag}>"))
            .collect()
    };
    let head = cells("th", headers.iter().map(|h| (*h).to_owned()).collect());
    let body: String = rows
        .map(|row| format!("<tr>{}</tr>\n", cells("td", row)))
        .collect();
    format!(
        "<div class=\"card scroll{class}\"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn classes(report: &PictureReport) -> String {
    if report.scores.is_empty() {
        return String::new();
    }
    let rows = report.classes.iter().zip(&report.scores);
    table(
        " tall",
        &["Class", "Pictures", "Told", "Precision", "Recall", "F1"],
        rows.map(|(name, score)| {
            vec![
                escape(name),
                score.images.to_string(),
                score.told.to_string(),
                percent(score.precision),
                percent(score.recall),
                percent(score.f1),
            ]
        }),
    )
}

fn confusions(report: &PictureReport) -> String {
    if let Some(matrix) = confusion_matrix(report) {
        return format!("<figure class=\"card\">{matrix}</figure>\n");
    }
    let mut pairs: Vec<_> = report
        .confusions
        .iter()
        .filter(|(label, told, _)| label != told)
        .collect();
    pairs.sort_by_key(|&&(label, told, images)| (std::cmp::Reverse(images), label, told));
    pairs.truncate(MAX_PAIRS);
    if pairs.is_empty() {
        return String::new();
    }
    let name = |class: u32| {
        report
            .classes
            .get(class as usize)
            .map_or_else(String::new, |name| escape(name))
    };
    let rows = pairs
        .iter()
        .map(|(label, told, images)| vec![name(*label), name(*told), images.to_string()]);
    format!(
        "<p class=\"said\">The commonest, of more than {MAX_CLASSES} classes.</p>\n{}",
        table("", &["Class", "Taken for", "Pictures"], rows)
    )
}

fn confidence(report: &PictureReport) -> String {
    let calibration = &report.calibration;
    if calibration.bins.is_empty() {
        return String::new();
    }
    let fitted = match calibration.temperature {
        Some(Temperature {
            divisor,
            pictures,
            errors: [before, after],
        }) => {
            let seen: u64 = calibration.bins.iter().map(|bin| bin.images).sum();
            let some = match pictures as u64 == seen {
                true => "these same pictures, would make it".into(),
                false => format!(
                    "{pictures} of these pictures, spread evenly, would change theirs from <b>{}</b> to",
                    percent(before)
                ),
            };
            let after = percent(after);
            format!(" Dividing the logits by <b>{divisor:.3}</b>, which gives the least loss on {some} <b>{after}</b>.")
        }
        None => " No divisor of the logits from 1/16 to 16 has the least loss on these pictures: none was fitted.".into(),
    };
    format!(
        "<p class=\"said\">Expected calibration error over 15 intervals: <b>{}</b>.{fitted}</p>\n<figure class=\"card\">{}</figure>\n",
        percent(calibration.error),
        reliability(calibration)
    )
}

fn sites(report: &PictureReport) -> String {
    if report.sites.is_empty() {
        return String::new();
    }
    let stages = report.sites.iter().map(|site| site.energy.len()).max();
    let stages = stages.unwrap_or(1);
    let mut headers = vec!["Site", "Tokens", "Dead"];
    let grown: Vec<String> = (1..=stages)
        .map(|s| format!("Energy of stage {s}"))
        .collect();
    if stages > 1 {
        headers.extend(grown.iter().map(String::as_str));
    }
    let row = |site: &SiteRow| {
        let share = site.dead as f64 / site.tokens.max(1) as f64;
        let mut row = vec![
            escape(&site.name),
            site.tokens.to_string(),
            format!("{} <small>{}</small>", site.dead, percent(share)),
        ];
        if stages > 1 {
            row.extend((0..stages).map(|stage| {
                let energy = site.energy.get(stage).copied().unwrap_or(0.0);
                let tokens = site.by_stage.get(stage).copied().unwrap_or(0);
                format!("{} <small>of {tokens}</small>", percent(energy))
            }));
        }
        row
    };
    let energy = match stages {
        1 => "",
        _ => {
            " Energy is the squared norm of what the tokens of a stage add to the output of the site, as a share of the sum over \
             stages."
        }
    };
    format!(
        "<p class=\"said\">Watched on {} pictures. A token is dead if its weight times the norm of its value is on average below \
         1 % of the mean of its site.{energy}</p>\n{}",
        report.watched,
        table(" tall", &headers, report.sites.iter().map(row))
    )
}

fn tokens(report: &PictureReport) -> String {
    let with_some = report
        .tokens
        .iter()
        .filter(|class| !class.tokens.is_empty());
    let classes: String = with_some.map(|class| one_class(report, class)).collect();
    if classes.is_empty() {
        return classes;
    }
    let left_out = report.classes.len() - report.tokens.len();
    let more = match left_out {
        0 => String::new(),
        _ => format!(" {left_out} further classes are left out."),
    };
    format!(
        "<p class=\"said\">The tokens of the last feed-forward network that a class fires most, compared with all pictures \
         (1 means alike, {} is the most), and the pictures that fire them most.{more}</p>\n{classes}",
        report.classes.len()
    )
}

fn one_class(report: &PictureReport, class: &ClassTokens) -> String {
    let name = report
        .classes
        .get(class.class as usize)
        .map_or_else(String::new, |name| escape(name));
    let token = |token: &TokenRow| {
        format!(
            "<div class=\"token\"><small>token {}, stage {}: <b>{:.2}×</b></small><div class=\"nine\">{}</div></div>",
            token.token,
            u64::from(token.stage) + 1,
            token.selectivity,
            token.pictures.iter().map(figure).collect::<String>()
        )
    };
    format!(
        "<h3>{name}</h3>\n<div class=\"card tokens\">{}</div>\n",
        class.tokens.iter().map(token).collect::<String>()
    )
}
