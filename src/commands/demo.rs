//! `demo`: shows how a model learns, grows without forgetting, and continues to learn.

use super::data::prepare_with_progress;
use super::device;
use super::train::train;
use crate::args::DemoArgs;
use crate::{outputs, shell, usage};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokenformer_core::config::NormSpan;
use tokenformer_core::growth::{Amount, Growth};
use tokenformer_core::optim::AdamW;
use tokenformer_core::{Device, Gradients, Graph, Model, ModelConfig, SiteKind};
use tokenformer_data::crate_sources::{CrateSourcesOptions, crate_sources};
use tokenformer_data::{
    CorpusOptions, Dataset, DocumentSource, PrepareOptions, Summary, TokenizerSpec,
};
use tokenformer_report::Record;
use tokenformer_report::table::{Table, human_bytes, human_count, human_duration};
use tokenformer_train::recipe::{GrowEvent, resolve, resolve_table};
use tokenformer_train::schedule::{Schedule, Shape};
use tokenformer_train::{Outcome, Recipe, Resolved, Result, Resume};

/// The dataset's folder in the run directory.
pub(super) const DATA: &str = "data";
/// Vocabulary of the demo's tokenizer.
const VOCAB: usize = 2048;
/// Text taken, at most.
const MAX_TEXT_BYTES: u64 = 12_000_000;
/// Tokens that the growth adds to query, key, value and output projection each.
const NEW_ATTENTION: usize = 128;
/// Tokens that the growth adds to the feed-forward network.
const NEW_FFN: usize = 1024;
/// Share of the steps before the growth.
pub(super) const FIRST_STAGE: f64 = 0.5;

/// Runs the verb.
pub fn run(args: &DemoArgs) -> Result<()> {
    let started = Instant::now();
    check_length(args)?;
    let device = device(&args.compute)?;
    let out = out_dir(args, "demo");
    outln!(
        "TokenFormer demo: a model learns to write, grows, and learns on. Everything goes to {}.\n",
        out.display()
    );

    // A demo that was stopped continues with its own recipe, because the same time would now give another number of
    // steps.
    let earlier = out.join("config.toml");
    let (recipe, vocab) = if earlier.exists() {
        outputs::run_folder(&out)?;
        ensure_demo(&out, "dataset.json")?;
        outln!("going on with the demo that is there, by its own settings");
        let mut recipe = resolve(Some(&earlier), &[])?;
        // Its data is inside its folder, even if the folder was moved or the demo is called from elsewhere.
        recipe.recipe.data.dir = out.join(DATA).display().to_string();
        let data = Dataset::open(Path::new(&recipe.recipe.data.dir))?;
        (recipe, data.tokenizer.vocab_size())
    } else {
        outputs::run_folder_with_data(&out, DATA)?;
        let data = prepare_data(args, &out)?;
        let recipe = recipe(args, &data, &out, &device)?;
        (recipe, data.tokenizer.vocab_size)
    };
    let steps = recipe.recipe.train.steps;
    let config = recipe.recipe.model.build(vocab)?;
    outln!(
        "model: {} parameters, {} layers of width {}; {} steps of {} tokens, growing after {}\n",
        human_count(config.params()),
        config.layers(),
        config.width,
        steps,
        recipe.recipe.train.batch * config.context,
        recipe.recipe.grow.first().map_or(0, |grow| grow.at_step),
    );
    let outcome = train(&recipe, &out, &Resume::Auto, &device)?;
    if outcome == Outcome::Finished {
        summary(&out)?;
        outln!("\nlook at     {}", out.join("report.html").display());
        outln!(
            "talk to it  {} generate --model {} --prompt \"fn main() {{\"",
            // When the demo runs through cargo, `tokenformer` is not on the path.
            shell::program(),
            shell::path(&out)
        );
        outln!(
            "took        {}",
            human_duration(started.elapsed().as_secs_f64())
        );
    }
    Ok(())
}

/// Refuses a length that is none.
pub(super) fn check_length(args: &DemoArgs) -> Result<()> {
    if !(args.minutes > 0.0 && args.minutes <= 1e5) {
        return Err(usage(
            "--minutes",
            "above 0, at most 100000",
            args.minutes,
            "3 is the default",
        ));
    }
    if args.steps.is_some_and(|steps| steps < 2) {
        let help = "one step before the growth and one after it";
        return Err(usage(
            "--steps",
            "at least 2",
            args.steps.unwrap_or(0),
            help,
        ));
    }
    Ok(())
}

/// Refuses the run in `out` if it is not a demo whose data have this description: another run has a length and data of its own.
pub(super) fn ensure_demo(out: &Path, description: &str) -> Result<()> {
    match out.join(DATA).join(description).exists() {
        true => Ok(()),
        false => Err(usage(
            "--out",
            "a new folder, or one that this demo has made, with its data inside",
            shell::path(out),
            "choose another folder; `train` goes on with other runs",
        )),
    }
}

/// The directory asked for, or the first free one of those called `name`.
pub(super) fn out_dir(args: &DemoArgs, name: &str) -> PathBuf {
    if let Some(out) = &args.out {
        return out.clone();
    }
    let names = (1..).map(|i| {
        if i == 1 {
            name.to_string()
        } else {
            format!("{name}-{i}")
        }
    });
    let mut free = names
        .map(|name| Path::new("runs").join(name))
        .filter(|dir| !dir.exists());
    free.next().unwrap_or_else(|| Path::new("runs").join(name))
}

fn prepare_data(args: &DemoArgs, out: &Path) -> Result<Summary> {
    let source = if args.data.is_empty() {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let mut options = CrateSourcesOptions::new(here);
        options.max_total_bytes = MAX_TEXT_BYTES;
        let sources = crate_sources(&options)?;
        outln!(
            "text: {} source files of the {} crates that this program is built from (--data PATH takes your own)",
            sources.documents.len(),
            sources.crates.iter().filter(|c| c.files > 0).count()
        );
        DocumentSource::Memory {
            label: "sources of the crates in Cargo.lock".into(),
            documents: sources.documents,
        }
    } else {
        DocumentSource::Paths(CorpusOptions::new(args.data.clone()))
    };
    let mut options = PrepareOptions::new(source, out.join(DATA));
    options.tokenizer = TokenizerSpec::TrainBpe { vocab_size: VOCAB };
    options.seed = args.seed;
    options.force = true;
    let summary = prepare_with_progress(&options)?;
    outln!(
        "data: {} to train on, {} held out in whole files; {:.2} bytes per token with a vocabulary of {}",
        human_bytes(summary.train.text_bytes),
        human_bytes(summary.valid.text_bytes),
        summary.valid.bytes_per_token(),
        summary.tokenizer.vocab_size
    );
    Ok(summary)
}

/// The demo as a recipe, its length chosen for the time it may take.
fn recipe(
    args: &DemoArgs,
    data: &Summary,
    out: &Path,
    device: &Arc<dyn Device>,
) -> Result<Resolved> {
    let mut recipe = Recipe {
        seed: args.seed,
        ..Recipe::default()
    };
    recipe.data.dir = out.join(DATA).display().to_string();
    recipe.model = tokenformer_train::recipe::ModelTable::from_preset("nano")?;
    recipe.model.norm = NormSpan::Segment;
    recipe.train.batch = 16;
    let grow = GrowEvent {
        growth: Growth {
            qkv: Amount::Add(NEW_ATTENTION),
            proj: Amount::Add(NEW_ATTENTION),
            ffn: Amount::Add(NEW_FFN),
            ..Growth::default()
        },
        ..GrowEvent::default()
    };
    let base = recipe.model.build(data.tokenizer.vocab_size)?;
    let mut grown = base.clone();
    for block in &mut grown.blocks {
        for kind in SiteKind::ALL {
            if let Some(site) = block.site_mut(kind) {
                site.segments[0].tokens += match kind {
                    SiteKind::Ffn => NEW_FFN,
                    _ => NEW_ATTENTION,
                };
            }
        }
    }
    let steps = match args.steps {
        Some(steps) => steps,
        None => {
            let batch = recipe.train.batch;
            let first = step_seconds(&base, batch, device)?;
            let second = step_seconds(&grown, batch, device)?;
            // A tenth for evaluation, samples and files.
            let mean = FIRST_STAGE * first + (1.0 - FIRST_STAGE) * second;
            steps_for(args.minutes * 60.0 * 0.9 / mean)
        }
    };
    let at_step = ((steps as f64 * FIRST_STAGE) as u64).clamp(1, steps - 1);
    recipe.train.steps = steps;
    recipe.schedule = Schedule {
        shape: Shape::Wsd,
        lr: 3e-3,
        warmup_steps: (steps / 20).clamp(1, 100),
        min_ratio: 0.05,
        decay_share: 0.3,
        ..Schedule::default()
    };
    recipe.eval.every = (steps / 10).max(1);
    recipe.eval.tokens = 32_768;
    recipe.checkpoint.every = (steps / 5).max(1);
    recipe.sample.prompt = if args.data.is_empty() {
        "/// Returns".into()
    } else {
        String::new()
    };
    recipe.log.every = (steps / 200).clamp(1, 50);
    recipe.grow = vec![GrowEvent { at_step, ..grow }];
    let table = toml::Table::try_from(&recipe)
        .map_err(|e| usage("demo", "a recipe", e, "choose smaller numbers"))?;
    resolve_table(table, "demo", &[])
}

/// As many whole steps, at least two; a multiple of ten, so that the growth falls on an evaluation.
pub(super) fn steps_for(steps: f64) -> u64 {
    match steps as u64 {
        few @ 0..20 => few.max(2),
        steps => steps / 10 * 10,
    }
}

/// Time of a training step, from a few steps on made-up tokens.
fn step_seconds(config: &ModelConfig, batch: usize, device: &Arc<dyn Device>) -> Result<f64> {
    const STEPS: usize = 4;
    let mut model = Model::fresh(device, config, 0)?;
    let mut optimizer = AdamW::new(tokenformer_core::optim::AdamWConfig::default(), &model)?;
    let mut gradients = Gradients::zeros(device, model.params())?;
    let len = batch * config.context;
    let tokens: Vec<u32> = (0..len).map(|i| (i * 7919 % config.vocab) as u32).collect();
    let mut best = f64::INFINITY;
    for _ in 0..STEPS {
        let started = Instant::now();
        gradients.reset();
        let mut g = Graph::training(device, &mut gradients);
        model.loss(&mut g, &tokens, &tokens, batch, 1.0 / len as f32)?;
        g.backward()?;
        optimizer.step(&mut model, &gradients, 1e-4)?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    device.trim();
    Ok(best)
}

/// Held-out loss at the beginning and the end of each stage.
pub(super) fn summary(out: &Path) -> Result<()> {
    let records = tokenformer_report::read(out.join("metrics.jsonl"))?;
    let evals = records.iter().filter_map(|r| match r {
        Record::Eval(e) => Some(e),
        _ => None,
    });
    let evals: Vec<_> = evals.collect();
    let of_pictures = evals.iter().any(|e| e.top1.is_some());
    let measure = if of_pictures {
        "top 1"
    } else {
        "bits per byte"
    };
    let mut table = Table::new(["stage", "parameters", "step", "held-out loss", measure]);
    for (i, e) in evals.iter().enumerate() {
        let first = i == 0 || evals[i - 1].stage != e.stage;
        let last = evals.get(i + 1).is_none_or(|next| next.stage != e.stage);
        if first || last {
            let measured = match of_pictures {
                true => e.top1.map(|top1| format!("{:.2} %", 100.0 * top1)),
                false => e.bits_per_byte.map(|b| format!("{b:.3}")),
            };
            table.row([
                (e.stage + 1).to_string(),
                human_count(e.params),
                e.step.to_string(),
                format!("{:.4}", e.loss),
                measured.unwrap_or_else(|| "-".into()),
            ]);
        }
    }
    out!("\n{table}");
    Ok(())
}
