//! Where a run starts: from scratch, or from a checkpoint that fits it.

use super::differences::differences;
use super::{Resume, RunDir};
use crate::ema::Ema;
use crate::error::{Error, Result};
use crate::files::{self, Snapshot, TrainState};
use crate::finite;
use crate::memory::{self, TrainingPlan};
use crate::planned;
use crate::ranks;
use crate::recipe::{MomentsOn, Recipe};
use crate::records::METRICS;
use crate::task::Task;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_core::Model;
use tokenformer_core::device::{Collective, Device};
use tokenformer_core::optim::{AdamW, Sharding};
use tokenformer_report::Unit;
use tokenformer_store::{MANIFEST_NAME, Warning, Which, write_atomic};

/// In the folder of a run: the manifest of the checkpoint elsewhere that it began from.
const BEGAN_FROM: &str = "began_from.json";

/// What a run starts with.
pub(crate) struct Start {
    pub model: Model,
    pub ema: Option<Ema>,
    pub optimizer: AdamW,
    pub state: TrainState,
    /// Messages about the data, or about a resumed run.
    pub notes: Vec<String>,
}

/// Loads or makes the initial state of the run, and brings its directory to that state. `collective` is all ranks, and `work` those
/// between which the micro-batches are divided.
pub(crate) fn start(
    dir: &mut RunDir,
    resume: &Resume,
    recipe: &Recipe,
    task: &dyn Task,
    device: &Arc<dyn Device>,
    [collective, work]: [&dyn Collective; 2],
    warn: &mut dyn FnMut(Warning),
) -> Result<Start> {
    let found = match dir.writes() {
        true => find(dir, resume, warn)?,
        false => None,
    };
    let found = ranks::share_path(collective, found)?;
    if let Some(from) = &found {
        ranks::ensure_readable(from, collective)?;
    }
    ensure_memory(found.as_deref(), recipe, task, &**device, collective)?;
    let among = Sharding {
        rank: work.rank(),
        world: work.world(),
        is_sharded: recipe.ranks.moments == MomentsOn::Owner && work.world() > 1,
    };
    let mut start = match &found {
        Some(from) => {
            // Its own checkpoints are on the other data already.
            let is_begun = dir.path().join(BEGAN_FROM).exists() && dir.owns(from);
            let may_change = matches!(resume, Resume::OnOtherData(_)) && !is_begun;
            load(from, may_change, recipe, task, device, among)?
        }
        None => fresh(recipe, task, device, among)?,
    };
    if found.as_ref().is_some_and(|from| !dir.owns(from)) {
        start.state.leave_others_behind();
    }
    start.state.measure_on(task.measured_on());
    planned::check_next(&start.model, recipe, &start.state, collective)?;
    let records = dir.path().join(METRICS);
    if let Some(from) = &found {
        if dir.writes() && !dir.owns(from) {
            // Before the first checkpoint, after which the same command goes on with the run.
            write_atomic(&dir.path().join(BEGAN_FROM), &manifest(from)?)?;
        }
        let now = Snapshot {
            model: &start.model,
            ema: start.ema.as_ref(),
            optimizer: &start.optimizer,
            state: &start.state,
            files: task.files(),
            ranks: collective,
        };
        dir.settle(&now, recipe.checkpoint.keep)?;
    } else if dir.writes() && records.exists() {
        // A run that was killed before its first checkpoint starts over, including its records.
        std::fs::remove_file(&records).map_err(|source| Error::Io {
            action: "remove the old records",
            path: records,
            source,
            help: "check the permissions, or choose another --out",
        })?;
    }
    Ok(start)
}

/// Refuses a run that the memory cannot hold: with the model of the checkpoint at `from`, which may have grown and be frozen in
/// parts, or with a fresh one.
pub(crate) fn ensure_memory(
    from: Option<&Path>,
    recipe: &Recipe,
    task: &dyn Task,
    device: &dyn Device,
    collective: &dyn Collective,
) -> Result<()> {
    let parts = device.token_ranks();
    let (config, frozen) = match from {
        Some(from) => (files::read_config(from)?, files::frozen_params(from)?),
        None => (task.config().clone(), 0),
    };
    let own = ranks::part_of(&config, parts);
    let plan = TrainingPlan::new(
        &own,
        recipe.train.batch,
        config.context,
        recipe.train.recompute,
        recipe.optimizer.moments,
    )
    .with_frozen(frozen / parts as u64, recipe.optimizer.moments)
    .with_activations_of(device.activation_bytes());
    let help =
        "choose a smaller model, train.batch or model.context, or train.recompute = \"blocks\"";
    let average_bytes = match recipe.ema.decay {
        0.0 => 0,
        _ => own.params().saturating_mul(size_of::<f32>() as u64),
    };
    let bytes = plan.total_bytes().saturating_add(average_bytes);
    memory::ensure_on_ranks(device, "this run", bytes, help, collective)
}

fn fresh(
    recipe: &Recipe,
    task: &dyn Task,
    device: &Arc<dyn Device>,
    among: Sharding,
) -> Result<Start> {
    let mut model = Model::fresh(device, task.config(), recipe.seed)?;
    model.scale_rates(&recipe.lr_base);
    Ok(Start {
        optimizer: AdamW::among(recipe.optimizer.clone(), &model, among)?,
        ema: Ema::new(recipe.ema, &model)?,
        model,
        state: TrainState::new(recipe.seed, recipe.model.clone(), task.identity()),
        notes: task.notes().to_vec(),
    })
}

fn load(
    from: &Path,
    may_change_data: bool,
    recipe: &Recipe,
    task: &dyn Task,
    device: &Arc<dyn Device>,
    among: Sharding,
) -> Result<Start> {
    let mut state = files::read_state(from)?;
    let others = task.identity();
    let changes_data = may_change_data && state.data_hash != others;
    if changes_data && state.step >= recipe.train.steps {
        return Err(Error::Recipe {
            place: "train.steps".into(),
            problem: "no step is left for the new data".into(),
            expected: format!(
                "more than the {} steps that the model has been trained for",
                state.step
            ),
            got: recipe.train.steps.to_string(),
            help: "train.steps counts from the model's first step: set it to theirs and those for the new data together".into(),
        });
    }
    if changes_data {
        refuse_pictures(from, task)?;
        check_files(from, task)?;
        state.change_data(others);
    }
    check(from, &state, &planned::with_past(recipe, &state), task)?;
    let model = files::load_for_training(from, device, &state)?;
    if let Some((name, number)) = finite::not_finite(&model)? {
        return Err(Error::Resume {
            path: from.into(),
            problem: "its weights are not finite".into(),
            expected: "a checkpoint from before the run diverged".into(),
            got: format!("{number} in {name}"),
            help: "go on from an earlier checkpoint with --resume and another --out".into(),
        });
    }
    let optimizer = files::load_optimizer(from, &model, recipe.optimizer.clone(), &state, among)?;
    let mut notes = vec![format!(
        "going on from {} at step {}",
        from.display(),
        state.step
    )];
    if changes_data {
        notes.push("the training data are others now, read from their beginning".into());
    } else if may_change_data {
        notes.push("these are the data that the model was trained on before: it goes on where it was in them".into());
    }
    if state.step >= recipe.train.steps {
        notes.push(format!(
            "train.steps = {} are done already: there is nothing left to train; a larger number would go on",
            recipe.train.steps
        ));
    }
    notes.extend(differences(from, recipe));
    let ema = Ema::load(recipe.ema, from, &model)?;
    Ok(Start {
        model,
        ema,
        optimizer,
        state,
        notes,
    })
}

/// The checkpoint to start from.
fn find(dir: &RunDir, resume: &Resume, warn: &mut dyn FnMut(Warning)) -> Result<Option<PathBuf>> {
    let (own, out) = (&dir.checkpoints, dir.path());
    let has_run = || Ok::<_, Error>(!own.list()?.is_empty() || out.join(METRICS).exists());
    let occupied = |got: &str| Error::Resume {
        path: out.into(),
        problem: "there is a run here".into(),
        expected: "a directory without a run".into(),
        got: got.into(),
        help: "choose another --out, or go on with --resume auto".into(),
    };
    match resume {
        Resume::Auto => Ok(own.latest_good(warn)?.map(|(_, found)| found.dir)),
        Resume::Never if has_run()? => Err(occupied("--resume never")),
        Resume::Never => Ok(None),
        Resume::From(path) | Resume::OnOtherData(path) => {
            let found = tokenformer_store::resolve(path, Which::Latest, warn)?;
            if !has_run()? {
                return Ok(Some(found.dir));
            }
            if std::fs::read(out.join(BEGAN_FROM))
                .is_ok_and(|began| manifest(&found.dir).is_ok_and(|manifest| manifest == began))
            {
                // The same command again: it goes on with what it began.
                let newest = own.latest_good(warn)?;
                return Ok(Some(newest.map_or(found.dir, |(_, newest)| newest.dir)));
            }
            let own_dir = found.step.map(|step| own.dir_for(step).canonicalize());
            if !matches!((own_dir, found.dir.canonicalize()), (Some(Ok(a)), Ok(b)) if a == b) {
                return Err(occupied(&format!("--resume {}", path.display())));
            }
            // Later checkpoints would be used by the next `--resume auto`.
            match own.latest_good(warn)? {
                Some((newest, _)) if Some(newest) > found.step => Err(Error::Resume {
                    path: found.dir,
                    problem: "the run has a later one".into(),
                    expected: "the newest checkpoint of the run in --out".into(),
                    got: format!("one before step {newest}"),
                    help:
                        "go on from the newest with --resume auto, or branch off with another --out"
                            .into(),
                }),
                _ => Ok(Some(found.dir)),
            }
        }
    }
}

/// The bytes of a checkpoint's manifest, which name all of its bytes.
fn manifest(dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join(MANIFEST_NAME);
    std::fs::read(&path).map_err(|source| Error::Io {
        action: "read the manifest",
        path,
        source,
        help: "the checkpoint is not complete; use another one",
    })
}

/// Refuses other pictures than the checkpoint's: their mean and deviation are part of the model's preparation, so that the same
/// picture would become another input.
fn refuse_pictures(from: &Path, task: &dyn Task) -> Result<()> {
    match task.unit() {
        Unit::Token => Ok(()),
        Unit::Image => Err(Error::Resume {
            path: from.into(),
            problem: "a model of pictures cannot go on with others".into(),
            expected: "text with --new-data".into(),
            got: "pictures, which are normalised by mean and deviation of their own set".into(),
            help: "go on with the pictures of the run, or train a new model on the others, with another --out".into(),
        }),
    }
}

/// Returns an error if the numbers of the data mean something else than those that the checkpoint was trained on.
fn check_files(from: &Path, task: &dyn Task) -> Result<()> {
    for (name, now) in task.files() {
        let path = from.join(name);
        let before = std::fs::read(&path).map_err(|source| Error::Io {
            action: "read what the checkpoint's numbers mean",
            path: path.clone(),
            source,
            help: "the checkpoint is not complete; use another one",
        })?;
        if before != *now {
            return Err(Error::Resume {
                path: from.into(),
                problem: format!("the new training data have another {name}"),
                expected: format!("the bytes of {}", path.display()),
                got: format!("a file of {} bytes that differs", now.len()),
                help: "make the data with the checkpoint's: data prepare --tokenizer FILE".into(),
            });
        }
    }
    Ok(())
}

/// Returns an error if model, data, seed or past growths differ from those of the checkpoint.
fn check(from: &Path, state: &TrainState, recipe: &Recipe, task: &dyn Task) -> Result<()> {
    let differs = |problem: &str, expected: String, got: String| Error::Resume {
        path: from.into(),
        problem: problem.into(),
        expected,
        got,
        help: "go on with the recipe in the run's config.toml, or start anew with another --out"
            .into(),
    };
    if state.model != recipe.model {
        let (old, new) = (format!("{:?}", state.model), format!("{:?}", recipe.model));
        let (old, new) = first_difference(&old, &new);
        return Err(differs("the recipe's [model] has changed", old, new));
    }
    if state.seed != recipe.seed {
        let (old, new) = (state.seed.to_string(), recipe.seed.to_string());
        return Err(differs("another seed", old, new));
    }
    if state.training.base != recipe.lr_base {
        let (old, new) = (state.training.base, recipe.lr_base);
        let problem = "the recipe's [lr_base] has changed";
        return Err(differs(problem, format!("{old:?}"), format!("{new:?}")));
    }
    let data = task.identity();
    if state.data_hash != data {
        return Err(Error::Resume {
            path: from.into(),
            problem: "other training data".into(),
            expected: state.data_hash.clone(),
            got: data,
            help: match task.unit() {
                Unit::Token => "go on with the data of the run, or train its model on others with --resume DIR --new-data and \
                                another --out",
                Unit::Image => "go on with the pictures of the run, or train a new model on the others, with another --out",
            }
            .into(),
        });
    }
    planned::check_past(recipe, state, differs)
}

/// The parts where two debug texts differ, with some context before them.
fn first_difference(a: &str, b: &str) -> (String, String) {
    let at = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let start = a[..at].rfind([',', '{']).map_or(0, |i| i + 1);
    let cut = |s: &str| {
        s[start..]
            .split(',')
            .next()
            .unwrap_or_default()
            .trim()
            .to_string()
    };
    (cut(a), cut(b))
}
