//! The claims of the study and their results.

use crate::analysis::{Analysis, GROWN, MARGIN, RECIPES, Shifted};
use crate::stats::Contrast;
use serde::Serialize;
use tokenformer_core::config::Family;

/// Largest spike of a growth that counts as none.
const NO_SPIKE: f64 = 0.02;
/// Relative difference of logits that rounding explains.
const ROUNDING: f64 = 1e-5;
/// Arms whose growth keeps every bit.
const EXACT: [&str; 5] = ["t-seg", "t-zero", "t-zero-track", "t-zero-anneal", "g-id"];
/// Arms whose growth keeps the function up to rounding.
const NEARLY_EXACT: [&str; 2] = ["g-clone", "g-lemon"];

/// The finding on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// The claim holds.
    Supported,
    /// The claim does not hold.
    Refuted,
    /// The numbers are missing or not sufficient.
    Open,
}

/// A claim and its finding.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Number of the claim.
    pub claim: &'static str,
    /// The claim.
    pub text: &'static str,
    /// The finding.
    pub finding: Finding,
    /// The numbers.
    pub numbers: String,
}

/// All claims.
pub fn verdicts(analysis: &Analysis) -> Vec<Verdict> {
    vec![
        exact(analysis),
        no_spike(analysis),
        better(
            analysis,
            "C2",
            "a grown model is better than one from scratch with the stage's tokens (base not charged)",
        ),
        better(
            analysis,
            "C3",
            "a grown model is better than one of its size from scratch at equal cost, base included",
        ),
        of_any_size(
            analysis,
            better(
                analysis,
                "C4",
                "a grown model is better than the best of any size from scratch at equal cost",
            ),
        ),
        of_any_size(
            analysis,
            saving(
                analysis,
                "C5",
                "the same quality for half of the cost or less",
                &{
                    let size = analysis.rows.iter().rev().find(|row| row.arm == GROWN);
                    format!("{GROWN} {}, within 2 %", size.map_or("", |row| &row.size))
                },
            ),
        ),
        pattention(analysis),
        recipe(analysis),
        of_any_size(
            analysis,
            saving(
                analysis,
                "C8",
                "a series of sizes for half of the cost or less",
                "series",
            ),
        ),
        shift(analysis),
    ]
}

/// A verdict from rules on an interval; open if there is no interval.
fn verdict(
    claim: &'static str,
    text: &'static str,
    finding: Option<Finding>,
    numbers: String,
) -> Verdict {
    Verdict {
        claim,
        text,
        finding: finding.unwrap_or(Finding::Open),
        numbers,
    }
}

/// The verdict of a comparison with models of any size from scratch. If some sizes were left out, it cannot support the claim: one of
/// them may be better.
fn of_any_size(analysis: &Analysis, mut found: Verdict) -> Verdict {
    if !analysis.left_out.is_empty() && found.numbers != MISSING {
        found.numbers += &format!("; without {}", analysis.left_out.join(", "));
        if found.finding == Finding::Supported {
            found.finding = Finding::Open;
        }
    }
    found
}

fn exact(analysis: &Analysis) -> Verdict {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    let mut worst_rounding = 0.0_f64;
    for row in &analysis.rows {
        let Some((max, relative)) = row.moved else {
            continue;
        };
        let arm = &*row.arm;
        if EXACT.contains(&arm) || arm == "g-ffn" {
            seen += 1;
            if max != 0.0 {
                wrong.push(format!("{arm} {}: {max:.1e}", row.size));
            }
        } else if NEARLY_EXACT.contains(&arm) {
            seen += 1;
            worst_rounding = worst_rounding.max(relative);
            if relative > ROUNDING {
                wrong.push(format!("{arm} {}: {relative:.1e}", row.size));
            }
        }
    }
    let text = "growths that promise it keep the function";
    let (finding, numbers) = match (seen, wrong.is_empty()) {
        (0, _) => (None, "no growth has a result".into()),
        (_, true) => (
            Some(Finding::Supported),
            format!("{seen} ends of arms: 0; copies at most {worst_rounding:.1e} of the logits"),
        ),
        (_, false) => (Some(Finding::Refuted), wrong.join("; ")),
    };
    verdict("C0", text, finding, numbers)
}

fn no_spike(analysis: &Analysis) -> Verdict {
    let claim = "C1";
    let text = "a growth does not raise the loss by more than 2 %";
    let rows = analysis.rows.iter().filter(|row| row.arm == GROWN);
    let spikes: Vec<(f64, Option<f64>)> = rows
        .flat_map(|row| row.spikes.iter().copied().zip(row.controls.iter().copied()))
        .collect();
    let Some(worst) = spikes.iter().map(|(spike, _)| *spike).reduce(f64::max) else {
        return verdict(claim, text, None, "no growth has a result".into());
    };
    let over_control: Vec<f64> = (spikes.iter())
        .filter_map(|(spike, control)| Some(spike - (*control)?))
        .collect();
    let mut numbers = format!(
        "worst mean of 20 losses after a growth, over the mean before: {:+.2} %; ",
        100.0 * worst
    );
    let worst = over_control.iter().copied().reduce(f64::max);
    if let Some(worst) = worst {
        numbers += &format!("less the same without a growth: {:+.2} %; ", 100.0 * worst);
    }
    numbers += &format!(
        "what happens without one was measured for {} of {} growths",
        over_control.len(),
        spikes.len()
    );
    // A growth without its control may still be worse.
    let is_whole = over_control.len() == spikes.len();
    let finding = match worst {
        Some(worst) if worst > NO_SPIKE => Some(Finding::Refuted),
        Some(_) if is_whole => Some(Finding::Supported),
        _ => None,
    };
    verdict(claim, text, finding, numbers)
}

/// The contrast of a claim.
fn contrast<'a>(analysis: &'a Analysis, claim: &str) -> Option<&'a Contrast> {
    let mut found = analysis.contrasts.values();
    found.find(|contrast| contrast.name.starts_with(claim))
}

fn percent(contrast: &Contrast) -> String {
    let perplexity = |nats: f64| 100.0 * nats.exp_m1();
    let [low, high] = contrast.interval.map(perplexity);
    format!(
        "perplexity {:+.2} % ({low:+.2} to {high:+.2}), p {:.3} after correction, {} seeds",
        perplexity(contrast.difference),
        contrast.p_corrected,
        contrast.seeds
    )
}

fn better(analysis: &Analysis, claim: &'static str, text: &'static str) -> Verdict {
    let Some(found) = contrast(analysis, claim) else {
        return verdict(claim, text, None, MISSING.into());
    };
    let [low, high] = found.interval;
    let finding = match (low, high) {
        (_, high) if high < 0.0 => Some(Finding::Supported),
        (low, _) if low > 0.0 => Some(Finding::Refuted),
        _ => None,
    };
    verdict(claim, text, finding, percent(found))
}

const MISSING: &str = "not enough results: two seeds that both sides have, at least";

fn saving(analysis: &Analysis, claim: &'static str, text: &'static str, name: &str) -> Verdict {
    let Some(found) = analysis.speed_ups.get(name) else {
        return verdict(claim, text, None, MISSING.into());
    };
    let [low, high] = found.interval;
    let mut numbers = format!("S = {:.2} ({})", found.factor, found.reach());
    if found.by_seed.len() < 2 {
        numbers += "; a claim needs two seeds at least";
        return verdict(claim, text, None, numbers);
    }
    if found.is_bound {
        numbers += ", a bound: the loss lies outside the range of the models from scratch";
    }
    let finding = match (low, high) {
        (low, _) if low >= 2.0 => Some(Finding::Supported),
        (_, high) if high < 1.2 => Some(Finding::Refuted),
        (low, high) if low >= 1.2 && high < 2.0 => {
            numbers += ": saves, not greatly";
            None
        }
        _ => None,
    };
    verdict(claim, text, finding, numbers)
}

fn pattention(analysis: &Analysis) -> Verdict {
    let text = "it is the parameter tokens: the best grown TokenFormer beats the best grown plain Transformer by 0.5 %";
    let Some(found) = contrast(analysis, "C6") else {
        return verdict("C6", text, None, MISSING.into());
    };
    let [low, high] = found.interval;
    let finding = match (low, high) {
        (_, high) if high < -MARGIN => Some(Finding::Supported),
        (low, _) if low > -MARGIN || found.is_equal_within(MARGIN) => Some(Finding::Refuted),
        _ => None,
    };
    let mut numbers = format!("{}: {}", found.name, percent(found));
    if finding == Some(Finding::Refuted) {
        numbers += ": growth works, tokens are one way";
    }
    verdict("C6", text, finding, numbers)
}

fn recipe(analysis: &Analysis) -> Verdict {
    let text = "tokens with a norm of their own are the best recipe";
    let found: Vec<&Contrast> = analysis
        .contrasts
        .values()
        .filter(|c| c.name.starts_with("C7"))
        .collect();
    if found.is_empty() {
        return verdict("C7", text, None, MISSING.into());
    }
    let is_whole = found.len() == RECIPES.len();
    let finding = match () {
        () if is_whole && found.iter().all(|c| c.interval[1] < 0.0) => Some(Finding::Supported),
        () if found.iter().any(|c| c.interval[0] > 0.0) => Some(Finding::Refuted),
        () => None,
    };
    let said = found.iter().map(|c| {
        let equal = match c.is_equal_within(MARGIN) {
            true => ", equal within 0.5 %",
            false => "",
        };
        format!(
            "{}: {}{equal}",
            c.name.trim_start_matches("C7: "),
            percent(c)
        )
    });
    let mut numbers = said.collect::<Vec<_>>().join("; ");
    if !is_whole {
        numbers += &format!("; of {}", RECIPES.join(", "));
    }
    verdict("C7", text, finding, numbers)
}

fn shift(analysis: &Analysis) -> Verdict {
    let text = "a grown TokenFormer learns new text and keeps the old: no grown plain Transformer does both better";
    let grown = || analysis.shift.iter().filter(|arm| arm.grown);
    // Of different seeds the luckier would win.
    let have_all = |seed: &u64| grown().all(|arm| arm.seeds.contains(seed));
    let seeds = grown().next().map_or(&[][..], |arm| arm.seeds.as_slice());
    let seeds: Vec<u64> = seeds.iter().copied().filter(have_all).collect();
    let grown: Vec<Shifted> = grown().map(|arm| arm.of_seeds(&seeds)).collect();
    let of = |family| grown.iter().filter(move |arm| arm.family == family);
    let has = |family| of(family).next().is_some();
    if seeds.len() < 2 || !has(Family::Tokenformer) || !has(Family::Gpt) {
        let numbers = match analysis.shift.is_empty() {
            true => "not measured: it needs a second text".into(),
            false => MISSING.into(),
        };
        return verdict("C9", text, None, numbers);
    }
    let is_dominated = |arm: &Shifted| of(Family::Gpt).any(|plain| arm.is_dominated_by(plain));
    let finding = match of(Family::Tokenformer).all(is_dominated) {
        true => Finding::Refuted,
        false => Finding::Supported,
    };
    let said = grown.iter().map(|arm| {
        let [old, new] = arm.bits_per_byte;
        format!(
            "{}: old text {old:.4}, new text {new:.4} bits per byte",
            arm.arm
        )
    });
    let mut numbers = said.collect::<Vec<_>>().join("; ");
    numbers += &format!("; {} seeds", seeds.len());
    verdict("C9", text, Some(finding), numbers)
}
