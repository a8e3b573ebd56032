//! Continues a text with the model of a folder: `cargo run --release --example generate -- runs/demo "fn main"`.
//! Without arguments it writes noise with a fresh model, to show the calls.

use std::path::Path;
use std::sync::Arc;
use tokenformer_core::generate::{Sampler, Sampling, Session};
use tokenformer_core::presets::Preset;
use tokenformer_core::{Device, Model, WeightFormat};
use tokenformer_cpu::Cpu;
use tokenformer_data::Tokenizer;
use tokenformer_store::Which;
use tokenformer_train::files::{self, Weights};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let device: Arc<dyn Device> = Cpu::new(None);
    // A run, a checkpoint or a model folder; its weights are packed for inference as they are read.
    let (model, tokenizer) = match args.next() {
        Some(folder) => {
            let mut warn = |warning| eprintln!("warning: {warning}");
            let dir = tokenformer_store::resolve(Path::new(&folder), Which::Best, &mut warn)?.dir;
            let model =
                files::load_for_inference(&dir, &device, Weights::Trained, WeightFormat::Bf16)?;
            (model, files::load_tokenizer(&dir)?.1)
        }
        None => {
            let tokenizer = Tokenizer::bytes();
            let mut spec = Preset::named("nano")?.spec();
            spec.vocab = tokenizer.vocab_size();
            (Model::fresh(&device, &spec.build()?, 1)?, tokenizer)
        }
    };
    let prompt = args.next().unwrap_or_else(|| "Once".into());

    let mut sampler = Sampler::new(Sampling::default())?;
    let mut session = Session::new(&model, model.context())?;
    session.feed(&tokenizer.encode(&prompt)?)?;
    let mut tokens = Vec::new();
    while tokens.len() < 60 && session.room() > 0 {
        let next = sampler.choose(session.logits(), session.tokens());
        if Some(next) == tokenizer.eod() {
            break;
        }
        tokens.push(next);
        session.feed(&[next])?;
    }
    println!("{prompt}{}", tokenizer.decode(&tokens));
    Ok(())
}
