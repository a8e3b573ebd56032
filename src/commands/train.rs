//! `train`: a run by a recipe.

use super::ranks;
use super::recipe::of_user;
use super::{dataset, device_in, find_model, run_of, stop_flag};
use crate::Failure;
use crate::args::{TrainArgs, TrainingPrecision};
use crate::ui::TrainingView;
use crate::{devices, outputs, shell, usage};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_core::device::{Collective, Single};
use tokenformer_core::{Device, Precision};
use tokenformer_store::Which;
use tokenformer_study::planner::Online;
use tokenformer_train::recipe::{Resolved, resolve};
use tokenformer_train::{Branch, Outcome, Result, Resume, Silent, Trainer, files};

/// Runs the verb; returns the exit code, which is that of the rank where this process only guards one.
pub fn run(args: &TrainArgs) -> std::result::Result<i32, Failure> {
    let collective = match ranks::join(args.ranks, ranks::ALONE)? {
        ranks::Role::Rank(collective) => collective,
        #[cfg(unix)]
        ranks::Role::Guard(code) => return Ok(code),
    };
    train_by(args, &collective)?;
    Ok(0)
}

fn train_by(args: &TrainArgs, collective: &Arc<dyn Collective>) -> Result<()> {
    let trunk = match &args.branch_from {
        Some(from) => Some(find_model(from, Which::Latest)?.dir),
        None => None,
    };
    let of_trunk = trunk.as_deref().and_then(recipe_of);
    let recipe = args.recipe.config.as_deref().or(of_trunk.as_deref());
    let out = args.out.clone().unwrap_or_else(|| {
        let name = recipe.and_then(Path::file_stem);
        Path::new("runs").join(name.unwrap_or_else(|| "run".as_ref()))
    });
    let mut sets = args.recipe.sets.clone();
    let begun = || of_trunk.clone().or_else(|| begun(&args.resume, &out));
    if let Some(precision) = precision(args, begun, &**collective)? {
        sets.push(format!("train.precision={precision}"));
    }
    let mut resolved = of_user(recipe, &sets)?;
    dataset::locate(&mut resolved, recipe)?;
    let resume = match (&trunk, args.resume.as_str()) {
        (Some(trunk), _) => branch(args, &mut resolved, trunk, &out)?,
        (_, "auto" | "never") if args.new_data => {
            let help = "name the run whose model is to learn the new data";
            return Err(usage(
                "--new-data",
                "--resume DIR beside it",
                &args.resume,
                help,
            ));
        }
        (None, "auto") => Resume::Auto,
        (None, "never") => Resume::Never,
        (None, path) if args.new_data => Resume::OnOtherData(PathBuf::from(path)),
        (None, path) => Resume::From(PathBuf::from(path)),
    };
    let device = device_in(
        &ranks::share(&args.compute),
        resolved.recipe.train.precision,
    )?;
    if collective.rank() == 0 {
        outputs::run_folder(&out)?;
    }
    train_together(&resolved, &out, &resume, &device, collective).map(|_| ())
}

/// The precision that was asked for. `auto` is that of the recipe `begun` of a run that goes on, otherwise what the device is
/// faster in: rank 0 finds out and says why, and the others take it, since machines may differ.
fn precision(
    args: &TrainArgs,
    begun: impl FnOnce() -> Option<PathBuf>,
    collective: &dyn Collective,
) -> Result<Option<Precision>> {
    let asked = match args.precision {
        None => return Ok(None),
        Some(TrainingPrecision::Named(precision)) => return Ok(Some(precision)),
        Some(TrainingPrecision::Auto) => args.compute.device.as_deref(),
    };
    let find = || {
        let (precision, reason) = match begun().and_then(|recipe| resolve(Some(&recipe), &[]).ok())
        {
            Some(run) => (run.recipe.train.precision, "the run has begun in it".into()),
            None if devices::is_gpu(asked) => {
                let reason = "tensor cores multiply it".to_string();
                (Precision::Bf16, reason)
            }
            None => {
                let recommended = tokenformer_cpu::recommended_precision();
                (recommended.precision, recommended.to_string())
            }
        };
        errln!("note: --precision auto is {precision} here: {reason}");
        precision
    };
    tokenformer_train::precision_of_first(collective, find).map(Some)
}

/// The recipe of the run that `--resume` means, if it has begun.
fn begun(resume: &str, out: &Path) -> Option<PathBuf> {
    let run = match resume {
        "never" => return None,
        "auto" => out,
        path => Path::new(path),
    };
    let recipe = Some(run.join("config.toml")).filter(|recipe| recipe.exists());
    recipe.or_else(|| recipe_of(run))
}

/// The recipe of the run that the checkpoint at `dir` lies in.
fn recipe_of(dir: &Path) -> Option<PathBuf> {
    let recipe = run_of(dir)?.join("config.toml");
    recipe.exists().then_some(recipe)
}

/// Makes `resolved`, the recipe of a run, that of its decay branch from the checkpoint at `trunk`, and says where the
/// branch in `out` starts: where it stands, if it has begun already.
fn branch(args: &TrainArgs, resolved: &mut Resolved, trunk: &Path, out: &Path) -> Result<Resume> {
    ensure_undecided(args, resolved)?;
    let branch = Branch {
        steps: args.decay.unwrap_or_default(),
        shape: args.decay_shape,
        min_ratio: args.min_ratio,
    };
    resolved.recipe = branch.recipe(&resolved.recipe, &files::read_state(trunk)?)?;
    let begun = out.join("config.toml");
    let there = match begun.exists() {
        true => resolve(Some(&begun), &[]).ok().map(|there| there.recipe),
        false => None,
    };
    let wanted = &resolved.recipe;
    Ok(match there {
        Some(there) if there == *wanted => Resume::Auto,
        // It would go on in a branch that has decayed already.
        Some(there)
            if !is_within(trunk, out)
                && (there.train.steps != wanted.train.steps
                    || there.schedule != wanted.schedule) =>
        {
            let got = format!(
                "{} with a run to step {} by another schedule",
                shell::path(out),
                there.train.steps
            );
            let expected = "a folder without a run, or with this very branch";
            return Err(usage("--out", expected, got, "choose another --out"));
        }
        _ => Resume::From(trunk.into()),
    })
}

/// Whether the checkpoint is one of the run in `out`.
fn is_within(checkpoint: &Path, out: &Path) -> bool {
    match (checkpoint.canonicalize(), out.canonicalize()) {
        (Ok(checkpoint), Ok(out)) => checkpoint.starts_with(out),
        _ => false,
    }
}

/// Refuses values of `--set` that the flags of a decay branch decide.
fn ensure_undecided(args: &TrainArgs, resolved: &Resolved) -> Result<()> {
    let decided = [
        ("train.steps", "--decay", true),
        ("schedule.shape", "--decay", true),
        ("schedule.decay_steps", "--decay", true),
        ("schedule.decay_share", "--decay", true),
        (
            "schedule.decay",
            "--decay-shape",
            args.decay_shape.is_some(),
        ),
        (
            "schedule.min_ratio",
            "--min-ratio",
            args.min_ratio.is_some(),
        ),
    ];
    let is_set = |key: &str| resolved.origin(key) == Some("--set");
    match decided
        .iter()
        .find(|(key, _, is_decided)| *is_decided && is_set(key))
    {
        Some((key, flag, _)) => Err(usage(
            &format!("--set {key}"),
            &format!("no such value with --branch-from, where {flag} decides it"),
            key,
            "leave it out; --decay N ends the branch N steps after the checkpoint, and the learning rate falls over them",
        )),
        None => Ok(()),
    }
}

/// Trains under a progress view, and says how the run ended and how to continue it.
pub fn train(
    resolved: &Resolved,
    out: &Path,
    resume: &Resume,
    device: &Arc<dyn Device>,
) -> Result<Outcome> {
    let alone: Arc<dyn Collective> = Arc::new(Single);
    train_together(resolved, out, resume, device, &alone)
}

/// The trainer with the planner of its recipe, if growths are left to it.
fn planned<'a>(trainer: Trainer<'a>, resolved: &Resolved, out: &Path) -> Result<Trainer<'a>> {
    if !trainer.awaits_planner() {
        return Ok(trainer);
    }
    let planner = Online::of(&resolved.recipe, out, &trainer.state().data_hash)?;
    Ok(trainer.planned_by(Box::new(planner)))
}

/// As [`train`], with other ranks, of which rank 0 tells how it goes.
fn train_together(
    resolved: &Resolved,
    out: &Path,
    resume: &Resume,
    device: &Arc<dyn Device>,
    collective: &Arc<dyn Collective>,
) -> Result<Outcome> {
    let task = tokenformer_train::task::open(&resolved.recipe)?;
    if collective.rank() > 0 {
        let (ranks, mut silent) = (Arc::clone(collective), Silent);
        let trainer = Trainer::together(task, resolved, out, resume, device, ranks, &mut silent);
        return trainer?.run(stop_flag());
    }
    let mut view = TrainingView::new(resolved.recipe.train.steps);
    let ranks = Arc::clone(collective);
    let trainer = Trainer::together(task, resolved, out, resume, device, ranks, &mut view)?;
    let mut trainer = planned(trainer, resolved, out)?;
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
