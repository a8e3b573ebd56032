//! The report: one self-contained HTML page without scripts and network access.

mod page;
mod samples;
mod summary;
mod tables;

pub use page::Page;

use crate::escape::escape;
use crate::pictures::{self, PictureReport};
use crate::plots::{Plot, plots};
use crate::records::{Record, Unit};
use crate::svg;
use crate::timeline::stages;

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct ReportInput<'a> {
    /// The run's name.
    pub title: &'a str,
    /// The run's records, in file order.
    pub records: &'a [Record],
    /// The resolved configuration.
    pub config_toml: &'a str,
    /// Facts about the machine and the program, in the order in which they are shown.
    pub environment: &'a [(String, String)],
    /// Remarks, shown near the top.
    pub notes: &'a [String],
    /// What the model said of pictures, of a run on pictures that has come to its end.
    pub pictures: Option<&'a PictureReport>,
}

/// Renders the report.
///
/// Everything from outside is escaped, and the page's content security policy forbids scripts and requests; pictures are
/// inside it.
#[must_use]
pub fn render(input: &ReportInput<'_>) -> String {
    let stages = stages(input.records);
    let is_zoom = |plot: &Plot| plot.growth().is_some();
    let (zooms, others): (Vec<Plot>, Vec<Plot>) =
        plots(input.records).into_iter().partition(is_zoom);
    let (full, half): (Vec<Plot>, Vec<Plot>) = others.into_iter().partition(Plot::full_width);

    let mut out = head(input.title);
    out.push_str(&summary::header(input.title, input.records, &stages));
    out.push_str(&notes(input.notes));
    out.push_str(&figures(&full));
    push_section(
        &mut out,
        "Stages",
        &tables::stages(&stages, Unit::of(input.records)),
    );
    push_section(&mut out, "Growth", &tables::growths(input.records, &zooms));
    push_section(
        &mut out,
        "Samples",
        &samples::timeline(input.records, &stages),
    );
    if let Some(pictures) = input.pictures {
        out.push_str(&pictures::sections(pictures));
    }
    if !half.is_empty() {
        let grid = format!("<div class=\"plots\">\n{}</div>\n", figures(&half));
        push_section(&mut out, "Training", &grid);
    }
    push_section(&mut out, "Log", &tables::log(input.records));
    push_section(
        &mut out,
        "Environment",
        &tables::environment(input.environment),
    );
    push_section(&mut out, "Configuration", &configuration(input.config_toml));
    out.push_str("<footer>Made by tokenformer from metrics.jsonl.</footer>\n</main>\n</html>\n");
    out
}

fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{}{}</style>\n<main>\n",
        escape(title),
        svg::STYLE,
        include_str!("page.css"),
    )
}

/// Adds a section unless its content is empty.
pub(crate) fn push_section(out: &mut String, heading: &str, content: &str) {
    if !content.is_empty() {
        out.push_str(&format!(
            "<section>\n<h2>{heading}</h2>\n{content}</section>\n"
        ));
    }
}

fn figures(plots: &[Plot]) -> String {
    plots.iter().map(figure).collect()
}

fn figure(plot: &Plot) -> String {
    format!("<figure class=\"card\">{}</figure>\n", plot.inline())
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let items: String = notes
        .iter()
        .map(|note| format!("<li>{}</li>\n", escape(note)))
        .collect();
    format!("<ul class=\"card notes\">\n{items}</ul>\n")
}

fn configuration(config_toml: &str) -> String {
    if config_toml.is_empty() {
        return String::new();
    }
    format!(
        "<details class=\"card\"><summary>config.toml<small>{} lines</small></summary>\
         <div class=\"scroll\"><pre>{}</pre></div></details>\n",
        config_toml.lines().count(),
        escape(config_toml)
    )
}
