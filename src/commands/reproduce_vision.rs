//! `reproduce vision`: the study on pictures.

use super::{device, stop_flag};
use crate::args::VisionArgs;
use crate::ui::StudyView;
use crate::{shell, usage};
use std::path::{Path, PathBuf};
use tokenformer_images::dataset::is_image_dataset;
use tokenformer_images::fractals;
use tokenformer_images::{PrepareOptions, prepare};
use tokenformer_report::table::{Table, human_count};
use tokenformer_study::vision::{VisionProfile, VisionRunner, named};
use tokenformer_train::{Outcome, Result};

/// Runs the verb.
pub fn run(args: &VisionArgs) -> Result<()> {
    const MAX_SEEDS: u64 = 100;
    const MAX_STEPS: u64 = 1 << 32;
    let mut profile = VisionProfile::named(&args.profile)?;
    let arms = named(&args.arms)?;
    let seeds = args.seeds.unwrap_or(profile.seeds);
    if seeds > MAX_SEEDS {
        let expected = format!("at most {MAX_SEEDS}");
        return Err(usage("--seeds", &expected, seeds, "3 are usual"));
    }
    profile.steps = args.steps.unwrap_or(profile.steps);
    if !(4..=MAX_STEPS).contains(&profile.steps) {
        let expected = format!("from 4 to {MAX_STEPS}");
        return Err(usage("--steps", &expected, profile.steps, "leave it out"));
    }
    let out = (args.out.clone())
        .unwrap_or_else(|| Path::new("runs").join(format!("vision-{}", profile.name)));
    let device = device(&args.compute)?;
    let data = pictures(args, &profile, &out)?;
    let mut study = VisionRunner::new(profile, arms, seeds, &data, &out, &device)?;
    if args.list {
        return list(&study);
    }
    let mut view = StudyView::new();
    let outcome = study.run(&mut view, stop_flag())?;
    view.finish();
    let report = study.report()?;
    match outcome {
        Outcome::Finished => outln!("done; report: {}", report.display()),
        Outcome::Interrupted => outln!(
            "stopped; nothing is lost. The same command goes on:\n  {} reproduce vision --profile {} --out {} ...",
            shell::program(),
            args.profile,
            shell::path(&out)
        ),
    }
    Ok(())
}

/// The pictures of the study, made if need be.
fn pictures(args: &VisionArgs, profile: &VisionProfile, out: &Path) -> Result<PathBuf> {
    if let Some(data) = &args.data {
        return Ok(data.clone());
    }
    let data = out.join("data");
    if !is_image_dataset(&data) {
        let mut options = PrepareOptions::new(data.clone());
        options.valid_share = profile.valid_share;
        options.seed = profile.fractals.seed;
        options.force = true;
        let source = fractals::source(&profile.fractals)?;
        prepare(&source, &options, &mut |_| {})?;
    }
    Ok(data)
}

/// Prints every arm with its model, and how many of its runs are done.
fn list(study: &VisionRunner) -> Result<()> {
    let mut table = Table::new(["arm", "parameters", "forward FLOP", "updates", "runs done"]);
    for &arm in study.arms() {
        let runs = study.runs_of(arm)?;
        let done = runs
            .iter()
            .filter(|run| study.result(run).is_some())
            .count();
        let Some(run) = runs.first() else { continue };
        let recipe = &run.recipe.recipe;
        let config = recipe.model.build(recipe.model.vocab)?;
        let grows = if recipe.grow.is_empty() {
            ""
        } else {
            ", grows"
        };
        table.row([
            arm.name.into(),
            format!("{}{grows}", human_count(config.params())),
            format!("{:.3e}", config.forward_flops()),
            recipe.train.steps.to_string(),
            format!("{done} of {} known so far", runs.len()),
        ]);
    }
    out!("{table}");
    Ok(())
}
