//! `train`: a run by a recipe.

use super::{device_in, stop_flag};
use crate::args::TrainArgs;
use crate::ui::TrainingView;
use std::path::{Path, PathBuf};
use tokenformer_train::recipe::{Resolved, resolve};
use tokenformer_train::{Outcome, Result, Resume, Trainer};

/// Runs the verb.
pub fn run(args: &TrainArgs) -> Result<()> {
    let mut sets = args.recipe.sets.clone();
    if let Some(precision) = args.precision {
        sets.push(format!("train.precision={}", precision.resolve()));
    }
    let resolved = resolve(args.recipe.config.as_deref(), &sets)?;
    let resume = match args.resume.as_str() {
        "auto" => Resume::Auto,
        "never" => Resume::Never,
        path => Resume::From(PathBuf::from(path)),
    };
    let out = args.out.clone().unwrap_or_else(|| {
        let name = args.recipe.config.as_deref().and_then(Path::file_stem);
        Path::new("runs").join(name.unwrap_or_else(|| "run".as_ref()))
    });
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
            out.join("config.toml").display(),
            out.display()
        ),
    }
    Ok(outcome)
}
