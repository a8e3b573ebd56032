//! The tables.

use crate::analysis::{Analysis, Ends, GROWN, MARGIN};
use crate::arms::{ARMS, Arm, Kind};
use crate::stats::{mean, rank_correlation};
use crate::verdicts::{Finding, Verdict};
use tokenformer_report::Page;
use tokenformer_report::table::{human_count, human_duration};

/// The table of claims.
pub(super) fn verdicts(page: &mut Page, verdicts: &[Verdict]) {
    let rows: Vec<Vec<String>> = (verdicts.iter())
        .map(|verdict| {
            let finding = match verdict.finding {
                Finding::Supported => "supported",
                Finding::Refuted => "refuted",
                Finding::Open => "open",
            };
            vec![
                verdict.claim.into(),
                verdict.text.into(),
                finding.into(),
                verdict.numbers.clone(),
            ]
        })
        .collect();
    page.table(
        "Verdicts",
        &["claim", "what it says", "finding", "numbers"],
        &rows,
        true,
    );
}

/// The table of arms.
pub(super) fn arms(page: &mut Page, analysis: &Analysis) {
    let rows: Vec<Vec<String>> = (analysis.rows.iter())
        .filter(|row| !has_own_table(&row.arm))
        .map(|row| {
            let known = |numbers: &[f64], text: &dyn Fn(f64) -> String| match numbers.is_empty() {
                true => "diverged".to_string(),
                false => text(mean(numbers)),
            };
            let worst = row.spikes.iter().copied().reduce(f64::max);
            vec![
                format!("{} {}", row.arm, row.size),
                human_count(row.params),
                human_count(row.tokens),
                format!("{:.2}", row.epochs),
                format!("{:.2e}", row.flops),
                human_duration(row.seconds),
                format!("{:.2e}", row.lr),
                row.seeds.len().to_string(),
                known(&row.losses, &|loss| format!("{loss:.4}")),
                known(&row.bits_per_byte, &|bits| format!("{bits:.4}")),
                worst.map_or("-".into(), |spike| format!("{:+.1} %", 100.0 * spike)),
                row.moved
                    .map_or("-".into(), |(_, relative)| format!("{relative:.1e}")),
            ]
        })
        .collect();
    let headers = [
        "arm",
        "parameters",
        "tokens",
        "epochs",
        "FLOP",
        "time",
        "rate",
        "seeds",
        "nats",
        "bits/byte",
        "spike",
        "logits moved",
    ];
    page.table("Ends of all arms", &headers, &rows, false);
    let names: Vec<Vec<String>> = (ARMS.iter())
        .filter(|arm| analysis.rows.iter().any(|row| row.arm == arm.name))
        .map(|arm| vec![arm.name.into(), arm.about.into()])
        .collect();
    page.table("What the arms are", &["arm", "what it is"], &names, true);
}

/// Whether an arm's ends are in the table of the map or of the second text.
fn has_own_table(arm: &str) -> bool {
    let has = |known: &Arm| matches!(known.kind, Kind::Map | Kind::Shift(..));
    ARMS.iter().any(|known| known.name == arm && has(known))
}

/// The table of what was forgotten and learnt.
pub(super) fn shift(page: &mut Page, analysis: &Analysis) {
    let about = |name: &str| {
        ARMS.iter()
            .find(|arm| arm.name == name)
            .map_or("", |arm| arm.about)
    };
    let rows: Vec<Vec<String>> = (analysis.shift.iter())
        .map(|arm| {
            let [old, new] = arm.bits_per_byte.map(|bits| format!("{bits:.4}"));
            vec![
                arm.arm.into(),
                about(arm.arm).into(),
                human_count(arm.params),
                arm.old.len().to_string(),
                old,
                new,
            ]
        })
        .collect();
    let headers = [
        "arm",
        "what it is",
        "parameters",
        "seeds",
        "first text",
        "second text",
    ];
    page.table(
        "Bits per byte after learning the second text",
        &headers,
        &rows,
        true,
    );
}

/// The table of single growths.
pub(super) fn map(page: &mut Page, analysis: &Analysis) {
    let percent = |nats: Option<f64>| {
        nats.map_or("-".into(), |nats| {
            format!("{:+.2} %", 100.0 * nats.exp_m1())
        })
    };
    let times = |factor: Option<f64>, bound: &str| match (factor, bound) {
        (None, _) => "-".into(),
        (Some(s), "=") => format!("{s:.2}"),
        (Some(s), bound) => format!("{bound} {s:.2}"),
    };
    let rows: Vec<Vec<String>> = (analysis.map.iter())
        .map(|cell| {
            vec![
                human_count(cell.base_tokens),
                format!("x{}", cell.factor),
                human_count(cell.tokens),
                format!("{:.2e}", cell.flops),
                format!("{:.4}", cell.bits_per_byte),
                percent(cell.against_base),
                percent(cell.against_scratch),
                times(cell.speed_up, cell.bound),
                times(cell.speed_up_of_stage, cell.bound),
            ]
        })
        .collect();
    let headers = [
        "tokens before",
        "growth",
        "tokens after",
        "FLOP",
        "bits/byte",
        "perplexity against no growth",
        "against the best scratch",
        "S",
        "S, base not charged",
    ];
    page.table("Single growths, one seed", &headers, &rows, false);
}

/// The table of speed-ups.
pub(super) fn speed_ups(page: &mut Page, analysis: &Analysis) {
    let rows: Vec<Vec<String>> = (analysis.speed_ups.values())
        .map(|found| {
            let by_seed: Vec<String> = found.by_seed.iter().map(|s| format!("{s:.2}")).collect();
            vec![
                found.name.clone(),
                format!("{:.2}", found.factor),
                found.reach(),
                by_seed.join(", "),
                if found.is_bound {
                    "a bound".into()
                } else {
                    String::new()
                },
            ]
        })
        .collect();
    let headers = ["model", "S", "95 % interval", "by seed", ""];
    page.table(
        "FLOPs of scratch over those of growth",
        &headers,
        &rows,
        false,
    );
}

/// Whether the loss soon after a growth predicts the final loss.
pub(super) fn lag(page: &mut Page, ends: &Ends<'_>) {
    let graph = &ends.plan.graph;
    let mut rows = Vec::new();
    let size = ends.sizes(GROWN).into_iter().next().unwrap_or_default();
    let of_size = ends
        .plan
        .endpoints
        .iter()
        .filter(|end| end.size == size && end.counts && end.settled);
    let found: Vec<(f64, Vec<(u64, f64)>)> = of_size
        .filter_map(|end| {
            let last = ends
                .results
                .of(graph.node(end.node))?
                .held_out
                .as_ref()?
                .loss;
            let grown = graph.path(end.node).find(|&at| graph.node(at).grows)?;
            let grown = ends.results.of(graph.node(grown))?;
            let evals = grown
                .evals
                .iter()
                .map(|eval| (eval.step - grown.from_step, eval.loss));
            Some((last, evals.collect()))
        })
        .collect();
    let mut lags: Vec<u64> = found
        .iter()
        .flat_map(|(_, evals)| evals.iter().map(|e| e.0))
        .collect();
    lags.sort_unstable();
    lags.dedup();
    for lag in lags {
        let pairs: Vec<(f64, f64)> = (found.iter())
            .filter_map(|(last, evals)| Some((evals.iter().find(|e| e.0 == lag)?.1, *last)))
            .collect();
        if let Some(correlation) = rank_correlation(&pairs) {
            rows.push(vec![
                lag.to_string(),
                pairs.len().to_string(),
                format!("{correlation:.2}"),
            ]);
        }
    }
    let headers = [
        "updates after the growth",
        "runs",
        "rank correlation with the end",
    ];
    page.table(
        &format!("Does the loss soon after a growth tell the end? ({size})"),
        &headers,
        &rows,
        false,
    );
}

/// Settings that were tried and did not help.
pub(super) fn negative(page: &mut Page, analysis: &Analysis) {
    let rows: Vec<Vec<String>> = (analysis.forest.iter())
        .filter(|(_, contrast)| contrast.name.starts_with("a-") || contrast.name.starts_with("t-"))
        .filter_map(|(size, contrast)| {
            let what = match contrast {
                c if c.is_equal_within(MARGIN) => "no difference: equal within 0.5 %",
                c if c.interval[0] > 0.0 => "worse",
                c if c.interval[1] >= 0.0 => "not decided",
                _ => return None,
            };
            let percent = |nats: f64| format!("{:+.2} %", 100.0 * nats.exp_m1());
            let [low, high] = contrast.interval.map(percent);
            Some(vec![
                format!("{} {size}", contrast.name),
                percent(contrast.difference),
                format!("{low} to {high}"),
                what.into(),
            ])
        })
        .collect();
    let headers = ["arm", "perplexity", "95 % interval", "finding"];
    page.table(
        &format!("What did not beat {GROWN}"),
        &headers,
        &rows,
        false,
    );
}
