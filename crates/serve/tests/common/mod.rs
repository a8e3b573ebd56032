//! Shared by the tests: a small model that has grown, and what it generates alone.
#![allow(dead_code)]

pub mod client;

use std::sync::Arc;
use tokenformer_core::config::{ModelSpec, NormSpan, SegmentConfig, SiteKind, Theta};
use tokenformer_core::generate::{Sampler, Sampling, Session};
use tokenformer_core::{Device, Model, WeightFormat};
use tokenformer_cpu::Cpu;
use tokenformer_data::Tokenizer;
use tokenformer_serve::Served;
use tokenformer_testing::models::small;
use tokenformer_train::{Continuation, End};

pub const CONTEXT: usize = 48;

/// A model of bytes, see [`model_of`].
pub fn model(seed: u64) -> Model {
    model_of(257, seed)
}

/// A model with tokens of two stages; random, so that every token is about as likely as any other.
pub fn model_of(vocab: usize, seed: u64) -> Model {
    let spec = ModelSpec {
        width: 32,
        theta: Theta::GeluL2Norm,
        norm: NormSpan::Segment,
        ..small(vocab, CONTEXT)
    };
    let mut config = spec.build().unwrap();
    for block in &mut config.blocks {
        for kind in SiteKind::ALL {
            block.site_mut(kind).unwrap().segments.push(SegmentConfig {
                id: 1,
                tokens: 6,
                tau: 2.0,
                stage: 1,
                born_step: 10,
            });
        }
    }
    let device: Arc<dyn Device> = Cpu::new(Some(2));
    Model::fresh_for_inference(&device, &config, WeightFormat::F32, seed).unwrap()
}

pub fn served(name: &str, seed: u64) -> Served {
    Served::new(name, model(seed), Tokenizer::bytes()).unwrap()
}

/// A model that reads and writes with the tokenizer of a file.
pub fn served_with(name: &str, tokenizer: &serde_json::Value) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    Served::new(name, model_of(tokenizer.vocab_size(), 1), tokenizer).unwrap()
}

/// What a text is continued with alone: the tokens, their text, and why it ends.
pub struct Alone {
    pub tokens: Vec<u32>,
    pub text: String,
    pub end: End,
}

/// Continues a text as `generate` does.
pub fn alone(
    served: &Served,
    prompt: &[u32],
    max_tokens: usize,
    sampling: &Sampling,
    stops: &[String],
    newest_stage: Option<u32>,
) -> Alone {
    let capacity = (prompt.len() + max_tokens).min(served.model.context());
    let mut session = Session::new(&served.model, capacity)
        .unwrap()
        .until_stage(newest_stage);
    session.feed(prompt).unwrap();
    let sampler = Sampler::new(sampling.clone()).unwrap();
    let mut continuation = Continuation::new(&served.tokenizer, prompt, sampler, max_tokens, stops);
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        let piece = continuation
            .next(session.logits(), session.tokens(), session.room())
            .unwrap();
        tokens.extend(piece.token);
        text += &piece.text;
        match (piece.token, piece.end) {
            (Some(token), None) => session.feed(&[token]).unwrap(),
            (_, end) => {
                return Alone {
                    tokens,
                    text,
                    end: end.unwrap(),
                };
            }
        }
    }
}
