//! `plan growth`: when, how much and whether to grow.

use super::memory_plan::without_data;
use super::recipe::of_user;
use super::{dataset, print_json};
use crate::args::{PlanArgs, PlanCommand, PlanGrowthArgs};
use crate::{outputs, shell, usage};
use std::path::Path;
use tokenformer_data::Dataset;
use tokenformer_report::table::{Table, human_count};
use tokenformer_study::planner::{
    Advice, Budget, CONFIDENT, Candidate, Estimate, Evidence, Sizes, coverage, plan,
};
use tokenformer_train::Result;
use tokenformer_train::recipe::Recipe;

/// Runs the verb.
pub fn run(args: &PlanArgs) -> Result<()> {
    match &args.command {
        PlanCommand::Growth(args) => growth(args),
        PlanCommand::Sites(args) => super::plan_sites::run(args),
        PlanCommand::Cluster(args) => super::plan_cluster::run(args),
    }
}

fn growth(args: &PlanGrowthArgs) -> Result<()> {
    let mut evidence = Evidence::default();
    for dir in &args.evidence {
        evidence.add(dir)?;
    }
    if args.check {
        return check(&evidence, args.json);
    }
    let config = args.recipe.config.as_deref();
    let mut resolved = of_user(config, &args.recipe.sets)?;
    let inputs: Vec<&Path> = (args.evidence.iter().map(AsRef::as_ref))
        .chain(config)
        .collect();
    if let Some(out) = &args.out {
        outputs::new_files("--out", std::slice::from_ref(out), args.force, &inputs)?;
    }
    let vocab = match dataset::locate(&mut resolved, config) {
        Ok(()) if !resolved.recipe.data.dir.is_empty() => {
            let dir = Path::new(&resolved.recipe.data.dir);
            dataset::ensure_text("data.dir of the recipe", dir)?;
            let dataset = Dataset::open(dir)?;
            evidence.of_data("data.dir of the recipe", &dataset.train.hash())?;
            dataset.tokenizer.vocab_size()
        }
        _ => without_data(&resolved.recipe)?,
    };
    let budget = budget(args, &evidence)?;
    let sizes = Sizes::new(&resolved.recipe.model, vocab, args.max_params)?;
    let Some(advice) = plan(&evidence, budget, &|factor| sizes.of(factor)) else {
        let help = "name runs with evaluations in metrics.jsonl";
        return Err(usage("DIR", "runs with held-out losses", "none", help));
    };
    let planned = sizes.recipe(&resolved.recipe, &advice.recommended().schedule);
    if let Some(out) = &args.out {
        resolved.recipe = planned.clone();
        tokenformer_store::write_atomic(out, resolved.to_toml().as_bytes())?;
    }
    if args.json {
        print_json(&advice);
        return Ok(());
    }
    if args.explain {
        explain(&advice, &evidence);
    }
    show(&advice, &planned, sizes.tokens_per_step(&planned));
    if let Some(out) = &args.out {
        let out = shell::path(out);
        outln!(
            "recipe: {out}\nnext: {} train --config {out}",
            shell::program()
        );
    }
    Ok(())
}

fn budget(args: &PlanGrowthArgs, evidence: &Evidence) -> Result<Budget> {
    Ok(match (args.flops, args.tokens, args.hours) {
        (Some(flops), ..) => Budget::Flops(flops),
        (_, Some(tokens), _) => Budget::Tokens(tokens),
        (.., hours) => {
            let Some(rate) = args.flop_rate.or(evidence.flop_rate) else {
                let help = "give the speed with --flop-rate; `bench train` measures it";
                let expected = "evidence with a run's speed";
                return Err(usage("--hours", expected, "none", help));
            };
            Budget::Flops(hours.unwrap_or_default() * 3600.0 * rate)
        }
    })
}

/// Prints how well each training is predicted from the others.
fn check(evidence: &Evidence, json: bool) -> Result<()> {
    let found = coverage(&evidence.observations);
    if found.predictions.is_empty() {
        let expected = "two trainings or more, to predict each from the others";
        let help = "name more runs";
        return Err(usage("--check", expected, "fewer", help));
    }
    if json {
        print_json(&found);
        return Ok(());
    }
    let mut table = Table::new(["training", "loss", "predicted", "80 % interval", "inside"]);
    for (name, loss, interval) in &found.predictions {
        let inside = (interval.low..=interval.high).contains(loss);
        table.row([
            name.clone(),
            format!("{loss:.4}"),
            format!("{:.4}", interval.middle),
            format!("{:.4} to {:.4}", interval.low, interval.high),
            if inside { "yes" } else { "no" }.into(),
        ]);
    }
    out!("{table}");
    outln!(
        "\n{:.0} % of {} intervals hold the loss of a training that the law was not fitted to",
        100.0 * found.share(),
        found.predictions.len()
    );
    Ok(())
}

/// Prints the law and what it was fitted to.
fn explain(advice: &Advice, evidence: &Evidence) {
    outln!(
        "L(N, D) = E + A·(N/{:.3e})^-alpha + B·(D/{:.3e})^-beta, N = training FLOP of a token / 6, D = tokens",
        advice.law.n0,
        advice.law.d0
    );
    let mut table = Table::new(["parameter", "median", "80 % interval"]);
    for (name, estimate) in &advice.parameters {
        table.row([
            (*name).to_string(),
            format!("{:.4}", estimate.middle),
            format!("{:.4} to {:.4}", estimate.low, estimate.high),
        ]);
    }
    out!("{table}");
    outln!(
        "A growth by c times the cost of a token pays once (D/D')^(beta+1) = k·c, where D' gives the larger model the \
         same loss.\nTrainings that were left out are missed by {:.2} %.\n",
        100.0 * advice.error
    );
    let mut table = Table::new(["evidence", "stages (N x tokens)", "loss", "decayed"]);
    for observation in &evidence.observations {
        let stages = observation.stages.iter();
        let stages: Vec<String> = stages
            .map(|stage| format!("{:.2e} x {:.2e}", stage.size, stage.tokens))
            .collect();
        table.row([
            observation.name.clone(),
            stages.join(", "),
            format!("{:.4}", observation.loss),
            if observation.decayed { "yes" } else { "no" }.into(),
        ]);
    }
    outln!("{table}");
}

fn show(advice: &Advice, planned: &Recipe, tokens_per_step: f64) {
    let mut table = Table::new([
        "training",
        "FLOP",
        "tokens",
        "loss (80 % interval)",
        "cost from scratch",
        "P(beats scratch)",
        "far from evidence",
    ]);
    for candidate in std::iter::once(&advice.scratch).chain(&advice.grown) {
        table.row(row(candidate));
    }
    out!("{table}");
    let best = advice.recommended();
    match advice.grow {
        true => {
            outln!(
                "\nGrow: better than the best training from scratch with a probability of {:.0} %.",
                100.0 * best.beats_scratch
            );
            for event in &planned.grow {
                outln!(
                    "  after step {} ({} tokens): {}",
                    event.at_step,
                    count(event.at_step as f64 * tokens_per_step),
                    event.growth.summary()
                );
            }
        }
        false => outln!(
            "\nTrain from scratch: no growth is better with a probability above {:.0} %.",
            100.0 * CONFIDENT
        ),
    }
    let pays = |(factor, tokens): &(f64, f64)| format!("x{factor} after {}", count(*tokens));
    let pays: Vec<String> = advice.pays_after.iter().map(pays).collect();
    if !pays.is_empty() {
        outln!(
            "Tokens of the base after which a growth pays: {}",
            pays.join(", ")
        );
    }
    let (size, _) = best.schedule.legs[best.schedule.legs.len() - 1];
    outln!(
        "{} steps, {} parameters at the end, the learning rate falls over the last 20 %",
        planned.train.steps,
        human_count(size.params)
    );
}

/// A number of tokens for people; far beyond any text if a growth hardly ever pays.
fn count(tokens: f64) -> String {
    human_count(tokens.min(1e15) as u64)
}

/// A candidate as a row: sizes as multiples of the base, with the tokens of each.
fn row(candidate: &Candidate) -> [String; 7] {
    let legs = candidate.schedule.legs.iter();
    let legs: Vec<String> = legs
        .map(|(size, tokens)| format!("x{} {}", size.factor, count(*tokens)))
        .collect();
    let kind = match candidate.schedule.grows() {
        true => "grow",
        false => "scratch",
    };
    let Estimate { low, middle, high } = candidate.loss;
    let saving = candidate.saving;
    let times = |factor: f64| match factor.is_finite() {
        true => format!("{factor:.2}x"),
        false => "more".into(),
    };
    [
        format!("{kind} {}", legs.join(" > ")),
        format!("{:.2e}", candidate.schedule.flops()),
        count(candidate.schedule.tokens()),
        format!("{middle:.3} ({low:.3} to {high:.3})"),
        format!(
            "{} ({} to {})",
            times(saving.middle),
            times(saving.low),
            times(saving.high)
        ),
        match candidate.schedule.grows() {
            true => format!("{:.2}", candidate.beats_scratch),
            false => "-".into(),
        },
        candidate.extrapolated.join(", "),
    ]
}
