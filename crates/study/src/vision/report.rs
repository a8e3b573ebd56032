//! The report of the study on pictures: one page, and the same numbers for programs.

use super::arms::{ARMS, REFERENCE};
use super::result::VisionResult;
use super::runner::VisionRunner;
use crate::stats::{Contrast, Table, holm, mean};
use serde::Serialize;
use std::path::{Path, PathBuf};
use tokenformer_report::Page;
use tokenformer_report::figure::{Figure, Forest, Interval, Mark};
use tokenformer_report::table::{human_count, human_duration};
use tokenformer_train::{Error, Result};

const HTML: &str = "report.html";
const JSON: &str = "study.json";

/// Points of accuracy within which two arms count as equal.
const MARGIN: f64 = 0.5;

/// An arm whose seeds are all done.
#[derive(Serialize)]
struct Row<'a> {
    arm: &'a str,
    about: &'a str,
    params: u64,
    flops: f64,
    rate: f64,
    /// Test pictures that are wrong, in percent, by seed; of the average of the weights. Nothing for a seed that diverged.
    test_errors: Vec<Option<f64>>,
    results: Vec<&'a VisionResult>,
}

impl Row<'_> {
    /// The results of the seeds that did not diverge.
    fn ended(&self) -> impl Iterator<Item = &VisionResult> {
        self.results
            .iter()
            .copied()
            .filter(|result| result.diverged.is_none())
    }
}

/// A run that diverged: one of a row, or one that tried a rate.
#[derive(Serialize)]
struct Diverged<'a> {
    arm: &'a str,
    rate: f64,
    seed: u64,
    reason: String,
}

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    profile: &'a str,
    pictures: String,
    seeds: u64,
    /// Runs with a result, and all that are known to be needed.
    runs: [usize; 2],
    diverged: Vec<Diverged<'a>>,
    rows: Vec<Row<'a>>,
    contrasts: Vec<Contrast>,
}

/// Writes the report into `out`; returns the page's path.
pub(super) fn write(study: &VisionRunner, seeds: u64, out: &Path) -> Result<PathBuf> {
    let (mut rows, mut diverged) = (Vec::new(), Vec::new());
    for &arm in study.arms() {
        for run in study.runs_of(arm)? {
            let result = study.result(&run);
            if let Some(reason) = result.and_then(|result| result.diverged.clone()) {
                diverged.push(Diverged {
                    arm: arm.name,
                    rate: run.rate,
                    seed: run.seed,
                    reason,
                });
            }
        }
        let Some(results) = study.results_of(arm)? else {
            continue;
        };
        // A run that diverged did not come to the end of its growth and its budget.
        let whole = results.iter().find(|result| result.diverged.is_none());
        let Some(first) = whole.or(results.first()) else {
            continue;
        };
        rows.push(Row {
            arm: arm.name,
            about: arm.about,
            params: first.params,
            flops: first.flops,
            rate: first.rate,
            test_errors: results.iter().map(|r| r.test_error()).collect(),
            results,
        });
    }
    let (_, done, all) = study.next()?;
    let document = Document {
        version: 1,
        profile: study.profile().name,
        pictures: pictures(study),
        seeds,
        runs: [done, all],
        diverged,
        contrasts: contrasts(&rows),
        rows,
    };
    let json = serde_json::to_vec_pretty(&document).map_err(|e| Error::Damaged {
        path: out.join(JSON),
        problem: format!("cannot be written: {e}"),
        help: "a result holds a number that JSON has not".into(),
    })?;
    tokenformer_store::write_atomic(&out.join(JSON), &json)?;
    let page = page(study, &document);
    tokenformer_store::write_atomic(&out.join(HTML), page.as_bytes())?;
    Ok(out.join(HTML))
}

fn pictures(study: &VisionRunner) -> String {
    let summary = study.pictures().summary();
    let parts = summary
        .splits
        .iter()
        .map(|split| format!("{} {}", split.images, split.split.name()));
    let parts: Vec<String> = parts.collect();
    format!(
        "{} classes; {} pictures",
        summary.classes.len(),
        parts.join(", ")
    )
}

/// Every arm beside the reference, and the grown ones beside the run from scratch that costs as much. Arms of which a seed
/// diverged are left out: the error of all differences is pooled, and that seed would decide it alone.
fn contrasts(rows: &[Row<'_>]) -> Vec<Contrast> {
    let rows = rows.iter();
    let table = Table::new(rows.map(|row| (row.arm.to_string(), row.test_errors.clone())));
    let pairs = ARMS.iter().map(|arm| (arm.name, REFERENCE));
    let more = [("grown", "shorter"), ("grown", "grown-random")];
    let mut contrasts: Vec<Contrast> = pairs
        .filter(|(a, b)| a != b)
        .chain(more)
        .filter_map(|(a, b)| table.contrast(format!("{a} − {b}"), a, b))
        .collect();
    holm(&mut contrasts);
    contrasts
}

/// What a contrast says, in words.
fn verdict(contrast: &Contrast) -> &'static str {
    let [low, high] = contrast.interval;
    if contrast.p_corrected < 0.05 {
        return if high < 0.0 { "better" } else { "worse" };
    }
    if contrast.is_equal_within(MARGIN) {
        return "equal within 0.5 points";
    }
    match low < 0.0 && high > 0.0 {
        true => "not told apart",
        false => "not told apart after correction",
    }
}

fn page(study: &VisionRunner, document: &Document<'_>) -> String {
    let lead = "A TokenFormer for pictures beside a plain ViT of as many parameters, with other nonlinearities and norms, and \
                grown. Numbers are of the averaged weights on test pictures, which nothing was chosen by.";
    let mut page = Page::new("TokenFormer study", "Pictures", lead);
    let profile = study.profile();
    let Document {
        seeds,
        runs: [done, all],
        diverged,
        rows,
        contrasts,
        ..
    } = document;
    let mut notes = vec![
        format!("Profile {}: {}.", profile.name, profile.about),
        format!("{}.", pictures(study)),
        format!(
            "{seeds} seeds; learning rates tried with the first: {:?}, and others while the best of several is at the edge. The rate \
             with the least held-out loss is used.",
            profile.rates
        ),
        "Operations are counted as they are done, forward and backward, probes of growths included.".into(),
    ];
    if done < all {
        notes.push(format!(
            "Not the whole study: {done} of {all} runs are done. Arms are shown when all of their seeds are."
        ));
    }
    page.notes(&notes);
    arms_table(&mut page, rows);
    diverged_table(&mut page, diverged);
    if contrasts.is_empty() {
        let needed = format!(
            "Differences need {REFERENCE} and another arm, two seeds of each, and none that diverged."
        );
        page.notes(&[needed]);
    } else {
        page.figure(&forest(contrasts).draw());
        contrasts_table(&mut page, contrasts);
    }
    page.figure(&over_cost(rows).draw());
    page.finish("Made by tokenformer reproduce vision from the results of its runs; study.json has the numbers.")
}

fn arms_table(page: &mut Page, rows: &[Row<'_>]) {
    let row = |row: &Row<'_>| {
        let of = |get: fn(&VisionResult) -> Option<f64>| -> Vec<f64> {
            row.ended().filter_map(get).collect()
        };
        let ended = match (row.ended().count(), row.results.len()) {
            (ended, all) if ended == all => all.to_string(),
            (ended, all) => format!("{ended} of {all}"),
        };
        let weights = of(|r| r.test.map(|[weights, _]| 100.0 * weights.top1));
        let accuracies = of(|r| Some(100.0 - r.test_error()?));
        let seconds = of(|r| Some(r.seconds));
        let changes = row.results.iter().filter_map(|r| r.growth_logit_difference);
        let exact = match changes.reduce(f64::max) {
            Some(0.0) => "0 (exact)".into(),
            Some(most) => format!("{most:.1e}"),
            None => "–".into(),
        };
        vec![
            row.arm.to_string(),
            human_count(row.params),
            format!("{:.2e}", row.flops),
            format!("{:.1e}", row.rate),
            ended,
            spread(&accuracies),
            spread(&weights),
            exact,
            match seconds.is_empty() {
                true => "–".into(),
                false => human_duration(mean(&seconds)),
            },
        ]
    };
    let about = |row: &Row<'_>| vec![row.arm.to_string(), row.about.to_string()];
    let abouts: Vec<Vec<String>> = rows.iter().map(about).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    page.table(
        "Arms",
        &[
            "Arm",
            "Parameters",
            "Operations",
            "Rate",
            "Seeds",
            "Test top 1, average",
            "Of the weights",
            "Logit change",
            "Time",
        ],
        &rows,
        false,
    );
    page.table("What the arms are", &["Arm", "Model"], &abouts, true);
}

fn diverged_table(page: &mut Page, diverged: &[Diverged<'_>]) {
    let row = |run: &Diverged<'_>| {
        vec![
            run.arm.to_string(),
            format!("{:.1e}", run.rate),
            run.seed.to_string(),
            run.reason.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = diverged.iter().map(row).collect();
    page.table(
        "Runs that diverged; an arm with one at its rate is in no difference below",
        &["Arm", "Rate", "Seed", "Reason"],
        &rows,
        true,
    );
}

/// Mean and standard deviation over seeds.
fn spread(numbers: &[f64]) -> String {
    let middle = mean(numbers);
    match numbers.len() {
        0 => "–".into(),
        1 => format!("{middle:.2} %"),
        count => {
            let squares: f64 = numbers.iter().map(|n| (n - middle).powi(2)).sum();
            format!(
                "{middle:.2} ± {:.2} %",
                (squares / (count - 1) as f64).sqrt()
            )
        }
    }
}

fn contrasts_table(page: &mut Page, contrasts: &[Contrast]) {
    let rows: Vec<Vec<String>> = contrasts
        .iter()
        .map(|c| {
            vec![
                c.name.clone(),
                format!("{:+.2}", c.difference),
                format!("{:+.2} to {:+.2}", c.interval[0], c.interval[1]),
                format!("{:.3}", c.p_corrected),
                verdict(c).into(),
            ]
        })
        .collect();
    page.table(
        "Differences of the test error, in points; negative is better",
        &["Arms", "Difference", "95 % interval", "p (Holm)", "Verdict"],
        &rows,
        true,
    );
}

fn forest(contrasts: &[Contrast]) -> Forest {
    Forest {
        name: "contrasts".into(),
        title: "Differences of the test error".into(),
        unit: "points, left is better; 95 % intervals".into(),
        rows: contrasts
            .iter()
            .map(|c| Interval {
                label: c.name.clone(),
                value: c.difference,
                interval: c.interval,
                hue: Some(usize::from(c.difference > 0.0)),
            })
            .collect(),
    }
}

/// Held-out accuracy over operations, mean over seeds, of the arms that differ in cost.
fn over_cost(rows: &[Row<'_>]) -> Figure {
    let arms = [REFERENCE, "vit", "shorter", "grown", "grown-random"];
    let shown = rows.iter().filter(|row| arms.contains(&row.arm));
    let marks = shown.enumerate().map(|(hue, row)| Mark::Line {
        label: row.arm.into(),
        hue: Some(hue),
        dashed: row.arm == "grown-random",
        points: mean_curve(&row.ended().collect::<Vec<_>>()),
    });
    Figure {
        name: "cost".into(),
        title: "Held-out accuracy over cost".into(),
        y_label: "percent right, averaged weights, mean over seeds".into(),
        x_label: "floating-point operations of training, from the first".into(),
        log_x: false,
        height: 440.0,
        marks: marks.collect(),
    }
}

fn mean_curve(results: &[&VisionResult]) -> Vec<(f64, f64)> {
    let shortest = results.iter().map(|r| r.evals.len()).min().unwrap_or(0);
    (0..shortest)
        .map(|at| {
            let of = |i: usize| mean(&results.iter().map(|r| r.evals[at][i]).collect::<Vec<_>>());
            (of(0), 100.0 * of(2))
        })
        .collect()
}
