//! `train`: a run by a recipe.

use super::{dataset, device_in, find_model, run_of, stop_flag};
use crate::args::{TrainArgs, TrainingPrecision};
use crate::ui::TrainingView;
use crate::{devices, outputs, shell};
use std::path::{Path, PathBuf};
use tokenformer_core::Precision;
use tokenformer_store::Which;
use tokenformer_train::recipe::{Resolved, resolve};
use tokenformer_train::{Branch, Outcome, Result, Resume, Trainer, files};

/// Runs the verb.
pub fn run(args: &TrainArgs) -> Result<()> {
    let mut sets = args.recipe.sets.clone();
    if let Some(precision) = args.precision.map(|asked| precision(asked, args)) {
        sets.push(format!("train.precision={}", precision));
    }
    let trunk = match &args.branch_from {
        Some(from) => Some(find_model(from, Which::Latest)?.dir),
        None => None,
    };
    let of_trunk = trunk.as_deref().and_then(recipe_of);
    let recipe = args.recipe.config.as_deref().or(of_trunk.as_deref());
    let mut resolved = resolve(recipe, &sets)?;
    dataset::locate(&mut resolved, recipe)?;
    let out = args.out.clone().unwrap_or_else(|| {
        let name = recipe.and_then(Path::file_stem);
        Path::new("runs").join(name.unwrap_or_else(|| "run".as_ref()))
    });
    let resume = match (&trunk, args.resume.as_str()) {
        (Some(trunk), _) => branch(args, &mut resolved, trunk, &out)?,
        (None, "auto") => Resume::Auto,
        (None, "never") => Resume::Never,
        (None, path) => Resume::From(PathBuf::from(path)),
    };
    let device = device_in(&args.compute, resolved.recipe.train.precision)?;
    outputs::run_folder(&out)?;
    train(&resolved, &out, &resume, &device).map(|_| ())
}

/// The precision that was asked for; says which one `auto` is, and why.
fn precision(asked: TrainingPrecision, args: &TrainArgs) -> Precision {
    match asked {
        TrainingPrecision::Named(precision) => precision,
        TrainingPrecision::Auto if devices::is_gpu(args.compute.device.as_deref()) => {
            errln!("note: --precision auto is bf16 here: tensor cores multiply it");
            Precision::Bf16
        }
        TrainingPrecision::Auto => {
            let recommended = tokenformer_cpu::recommended_precision();
            let name = recommended.precision.name();
            errln!("note: --precision auto is {name} here: {recommended}");
            recommended.precision
        }
    }
}

/// The recipe of the run that the checkpoint at `dir` lies in.
fn recipe_of(dir: &Path) -> Option<PathBuf> {
    let recipe = run_of(dir)?.join("config.toml");
    recipe.exists().then_some(recipe)
}

/// Makes `resolved`, the recipe of a run, that of its decay branch from the checkpoint at `trunk`, and says where the
/// branch in `out` starts: where it stands, if it has begun already.
fn branch(args: &TrainArgs, resolved: &mut Resolved, trunk: &Path, out: &Path) -> Result<Resume> {
    let branch = Branch {
        steps: args.decay.unwrap_or_default(),
        shape: args.decay_shape,
        min_ratio: args.min_ratio,
    };
    resolved.recipe = branch.recipe(&resolved.recipe, &files::read_state(trunk)?)?;
    let begun = out.join("config.toml");
    let is_same = begun.exists()
        && resolve(Some(&begun), &[]).is_ok_and(|there| there.recipe == resolved.recipe);
    Ok(match is_same {
        true => Resume::Auto,
        false => Resume::From(trunk.into()),
    })
}

/// Trains under a progress view, and says how the run ended and how to continue it.
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
