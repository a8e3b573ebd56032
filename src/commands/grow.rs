//! `grow`: append parameter tokens or blocks to a checkpoint.

use super::{device, find_model, print_json};
use crate::args::{FillArg, GrowArgs, NormArg};
use crate::ui::growth_text;
use crate::usage;
use tokenformer_core::config::NormSpan;
use tokenformer_core::growth::{Amount, Birth, Fill, Growth, grow, params_after};
use tokenformer_core::init;
use tokenformer_core::optim::AdamWConfig;
use tokenformer_store::{DirWriter, Which};
use tokenformer_train::files::{self, KIND_CHECKPOINT, KIND_MODEL, PastGrowth};
use tokenformer_train::recipe::MAX_NEW_LAYERS;
use tokenformer_train::{Result, memory};

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
    let fill = |arg: FillArg| match arg {
        FillArg::Zero => Fill::Zero,
        FillArg::Random => Fill::Random,
    };
    let growth = Growth {
        qkv: args.qkv,
        proj: args.proj,
        ffn: args.ffn,
        layers,
        keys: args.keys.map(fill),
        values: args.values.map(fill),
        norm: args.norm.map(|norm| match norm {
            NormArg::Joint => NormSpan::Joint,
            NormArg::Segment => NormSpan::Segment,
        }),
        tau: args.tau,
        freeze_old: args.freeze_old,
        ..Growth::default()
    };
    let device = device(&args.compute)?;
    let found = find_model(&args.from, Which::Latest)?;
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
        )?),
        None => None,
    };

    let birth = match &state {
        Some(state) => Birth {
            stage: state.stage + 1,
            step: state.step,
            seed: state.seed,
        },
        None => Birth {
            stage: 1,
            step: 0,
            seed: args.seed,
        },
    };
    let probe = probe(model.vocab(), model.context());
    let report = grow(&mut model, &growth, birth, &probe, 1)?;
    if let Some(optimizer) = &mut optimizer {
        optimizer.extend(&model)?;
    }
    let tokenizer = match found.dir.join(files::TOKENIZER).exists() {
        true => Some(files::load_tokenizer(&found.dir)?.0),
        false => None,
    };
    if let Some(state) = &mut state {
        if report.params_after > report.params_before {
            state.stage += 1;
        }
        state.growths.push(PastGrowth {
            event: None,
            report: report.clone(),
        });
    }

    let kind = if state.is_some() {
        KIND_CHECKPOINT
    } else {
        KIND_MODEL
    };
    let mut to = DirWriter::begin(&args.to, kind)?;
    match (&state, &optimizer, &tokenizer) {
        (Some(state), Some(optimizer), Some(tokenizer)) => {
            let tokenizer = [(files::TOKENIZER, tokenizer.clone())];
            files::write_checkpoint(&mut to, &model, optimizer, state, &tokenizer)?;
        }
        _ => files::write_model(&mut to, &model, tokenizer.as_deref())?,
    }
    to.write_json("growth.json", &report)?;
    to.commit()?;
    match args.json {
        true => print_json(&report),
        false => {
            outln!("{}", growth_text(&report));
            outln!("written to {}", args.to.display());
            if state.is_some() {
                outln!(
                    "train on with: tokenformer train --config RECIPE --resume {} --out NEW-RUN",
                    args.to.display()
                );
            }
        }
    }
    Ok(())
}

/// Tokens drawn over the whole vocabulary.
fn probe(vocab: usize, context: usize) -> Vec<u32> {
    let draws = init::normal(0, "growth probe", context.min(256), 1e6);
    draws
        .iter()
        .map(|x| (x.abs() as usize % vocab) as u32)
        .collect()
}
