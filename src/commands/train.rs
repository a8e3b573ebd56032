//! `train`: a run by a recipe.

use super::{dataset, device_in, stop_flag};
use crate::args::TrainArgs;
use crate::ui::TrainingView;
use crate::{outputs, shell};
use std::path::{Path, PathBuf};
use tokenformer_train::recipe::{Resolved, resolve};
use tokenformer_train::{Outcome, Result, Resume, Trainer};

/// Runs the verb.
pub fn run(args: &TrainArgs) -> Result<()> {
    let mut sets = args.recipe.sets.clone();
    if let Some(precision) = args.precision {
        sets.push(format!("train.precision={}", precision));
    }
    let recipe = args.recipe.config.as_deref();
    let mut resolved = resolve(recipe, &sets)?;
    dataset::locate(&mut resolved, recipe)?;
    let resume = match args.resume.as_str() {
        "auto" => Resume::Auto,
        "never" => Resume::Never,
        path => Resume::From(PathBuf::from(path)),
    };
    let out = args.out.clone().unwrap_or_else(|| {
        let name = recipe.and_then(Path::file_stem);
        Path::new("runs").join(name.unwrap_or_else(|| "run".as_ref()))
    });
    outputs::run_folder(&out)?;
    let device = device_in(&args.compute, resolved.recipe.train.precision)?;
    train(&resolved, &out, &resume, &device).map(|_| ())
}

/// Trains under a progress view, and says how the run ended and how to go on.
pub fn train(
    resolved: &Resolved,
    out: &Path,
    resume: &Resume,
    device: &std::sync::Arc<dyn tokenformer_core::Device>,
) -> Result<Outcome> {
    let mut view = TrainingView::new(resolved.recipe.train.steps);
    let mut trainer = Trainer::new(resolved, out, resume, device, &mut view)?;
    let outcome = trainer.run(stop_flag())?;
    let step = trainer.state().step;
    drop(trainer);
    view.finish();
    match outcome {
        Outcome::Finished => outln!(
            "done after {step} steps; report: {}",
            out.join("report.html").display()
        ),
        Outcome::Interrupted => outln!(
            "stopped after {step} steps; nothing is lost. Go on with:\n  tokenformer train --config {} --out {}",
            shell::path(&out.join("config.toml")),
            shell::path(out)
        ),
    }
    Ok(outcome)
}
