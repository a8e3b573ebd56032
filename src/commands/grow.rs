//! `grow`: append parameter tokens or blocks to a checkpoint.

use super::{device, find_model, print_json, run_of};
use crate::args::GrowArgs;
use crate::ui::growth_text;
use crate::{outputs, shell, usage};
use std::path::Path;
use tokenformer_core::Model;
use tokenformer_core::config::Input;
use tokenformer_core::device::Single;
use tokenformer_core::growth::{Amount, Birth, Growth, GrowthReport, Probe, grow, params_after};
use tokenformer_core::init;
use tokenformer_core::optim::{AdamWConfig, Sharding};
use tokenformer_store::{DirWriter, Which};
use tokenformer_train::files::{self, KIND_CHECKPOINT, KIND_MODEL, Snapshot, TrainState};
use tokenformer_train::recipe::{EmaTable, MAX_NEW_LAYERS, resolve};
use tokenformer_train::{Ema, Growing, Result, memory};

/// An average that is read and grown; its decay is that of the recipe with which it continues.
const AVERAGE: EmaTable = EmaTable {
    decay: 0.5,
    warmup: 0,
};

/// Runs the verb.
pub fn run(args: &GrowArgs) -> Result<()> {
    let layers = match args.layers {
        Amount::Add(n) if n <= MAX_NEW_LAYERS => n,
        Amount::Add(n) => {
            let expected = format!("at most +{MAX_NEW_LAYERS}");
            return Err(usage("--layers", &expected, n, "is this what you meant?"));
        }
        Amount::To(_) => return Err(usage("--layers", "+N", args.layers, "blocks are appended")),
    };
    let growth = Growth {
        method: args.method,
        qkv: args.qkv,
        query: args.query,
        key: args.key,
        value: args.value,
        proj: args.proj,
        ffn: args.ffn,
        sites: args.sites.iter().cloned().collect(),
        layers,
        blocks: args.blocks,
        at: args.at,
        width: args.width,
        noise: args.noise,
        shrink: args.shrink,
        keys: args.keys,
        values: args.values,
        norm: args.norm,
        tau: args.tau,
        warmup: args.warmup,
        rate: args.rate,
        moments: args.moments,
        freeze_old: args.freeze_old,
        old_lr: args.old_lr,
    };
    let kinds = [KIND_CHECKPOINT, KIND_MODEL];
    outputs::folder("--to", &args.to, args.force, &kinds, &[&args.from])?;
    let device = device(&args.compute)?;
    let found = find_model(&args.from, Which::Latest)?;
    outputs::folder("--to", &args.to, args.force, &kinds, &[&found.dir])?;
    let mut state = match found.dir.join(files::STATE).exists() {
        true => Some(files::read_state(&found.dir)?),
        false => None,
    };
    let mut model = match &state {
        Some(state) => files::load_for_training(&found.dir, &device, state)?,
        None => files::load_model(&found.dir, &device)?,
    };
    let more = params_after(&model, &growth)?.saturating_sub(model.param_count());
    memory::ensure(
        &*device,
        "the growth",
        more.saturating_mul(12),
        "grow by fewer tokens",
    )?;
    let mut optimizer = match &state {
        Some(state) => Some(files::load_optimizer(
            &found.dir,
            &model,
            AdamWConfig::default(),
            state,
            Sharding::default(),
        )?),
        None => None,
    };
    let mut ema = match &state {
        Some(_) if found.dir.join(files::EMA).exists() => Ema::load(AVERAGE, &found.dir, &model)?,
        _ => None,
    };

    let grow = |model: &mut Model, birth| grow_on_probe(model, &growth, birth);
    let report = match (&mut state, &mut optimizer) {
        (Some(state), Some(optimizer)) => {
            let growing = Growing {
                model: &mut model,
                ema: ema.as_mut(),
                optimizer,
                state,
            };
            let report = growing.grow(&growth, None, grow)?;
            // They were measured before the growth.
            state.forget_best();
            report
        }
        _ => {
            let birth = Birth {
                stage: model.config().stages().last().map_or(0, |last| last + 1),
                step: 0,
                seed: args.seed,
            };
            grow(&mut model, birth)?
        }
    };
    let task_files = files::task_files(&found.dir)?;

    let kind = if state.is_some() {
        KIND_CHECKPOINT
    } else {
        KIND_MODEL
    };
    let mut to = DirWriter::begin(&args.to, kind)?;
    match (&state, &optimizer) {
        (Some(state), Some(optimizer)) if !task_files.is_empty() => {
            let now = Snapshot {
                model: &model,
                ema: ema.as_ref(),
                optimizer,
                state,
                files: &task_files,
                ranks: &Single,
            };
            files::write_checkpoint(&mut to, &now)?;
        }
        _ => files::write_model_of_task(&mut to, &model, &task_files)?,
    }
    to.write_json("growth.json", &report)?;
    to.commit()?;
    match args.json {
        true => print_json(&report),
        false => {
            outln!("{}", growth_text(&report));
            outln!("written to {}", args.to.display());
            if let Some(state) = &state {
                outln!("{}", next_command(&found.dir, &args.to, state));
            }
        }
    }
    Ok(())
}

/// Grows a model, and compares what it computes of made-up inputs before and after.
fn grow_on_probe(model: &mut Model, growth: &Growth, birth: Birth) -> Result<GrowthReport> {
    let (tokens, pixels);
    let probe = match model.input() {
        Input::Tokens => {
            tokens = random_tokens(model.vocab(), model.context());
            Probe::text(&tokens)
        }
        Input::Image(image) => {
            let batch = 2;
            pixels = init::normal(0, "growth probe", batch * image.pixels(), 1.0);
            let pixels = &pixels;
            Probe::Images { pixels, batch }
        }
    };
    Ok(grow(model, growth, birth, probe)?)
}

/// How to train on from the checkpoint at `to`, grown from the one at `from`: by the recipe of its run, where that is
/// known.
fn next_command(from: &Path, to: &Path, state: &TrainState) -> String {
    // `--resume` has two special values.
    let resume = match to.to_str() {
        Some("auto" | "never") => Path::new(".").join(to),
        _ => to.into(),
    };
    let resume = shell::path(&resume);
    let recipe = run_of(from).map(|run| run.join("config.toml"));
    let known = recipe.and_then(|path| Some((resolve(Some(&path), &[]).ok()?, path)));
    let Some((resolved, recipe)) = known else {
        return format!("train on from it with --resume {resume} and the recipe of its run");
    };
    let steps = resolved.recipe.train.steps;
    // A run that has done all its steps would end at once.
    let more = match state.step < steps {
        true => String::new(),
        false => format!(" --set train.steps={}", state.step.saturating_add(steps)),
    };
    let mut out = to.file_name().unwrap_or_default().to_os_string();
    out.push("-run");
    format!(
        "train on with: tokenformer train --config {}{more} --resume {resume} --out {}",
        shell::path(&recipe),
        shell::path(&to.with_file_name(out))
    )
}

/// Tokens drawn over the whole vocabulary.
fn random_tokens(vocab: usize, context: usize) -> Vec<u32> {
    let draws = init::normal(0, "growth probe", context.min(256), 1e6);
    draws
        .iter()
        .map(|x| (x.abs() as usize % vocab) as u32)
        .collect()
}
