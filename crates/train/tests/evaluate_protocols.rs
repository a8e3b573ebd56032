//! Held-out loss under both protocols, held against logits of one window at a time.

use std::sync::Arc;

use tokenformer_core::config::{
    FinalNorm, Init, LogitScale, ModelSpec, NormSpan, Positions, Slots, Theta,
};
use tokenformer_core::{Cpu, Device, Model};
use tokenformer_data::{TokenFile, TokenFileWriter};
use tokenformer_train::{EvalOptions, Evaluation, Protocol, evaluate};

const VOCAB: usize = 29;
const CONTEXT: usize = 12;
const TOKENS: usize = 101;
const TEXT_BYTES: u64 = 333;

fn model() -> Model {
    let device: Arc<dyn Device> = Cpu::new(Some(2));
    let spec = ModelSpec {
        vocab: VOCAB,
        width: 16,
        layers: 2,
        heads: 2,
        context: 24,
        slots: Slots {
            qkv: 12,
            proj: 10,
            ffn: 20,
        },
        theta: Theta::L2NormGelu,
        norm: NormSpan::Joint,
        positions: Positions::Rotary {
            fraction: 0.5,
            base: 10_000.0,
        },
        final_norm: FinalNorm::Affine,
        logit_scale: LogitScale::One,
        init: Init::FanIn,
    };
    Model::fresh(&device, &spec.build().unwrap(), 3).unwrap()
}

fn tokens() -> Vec<u32> {
    (0..TOKENS as u32)
        .map(|i| (i * i + 3 * i) % VOCAB as u32)
        .collect()
}

/// Loss in nats of `tokens[at]` after the tokens from `start` on.
fn nll(model: &Model, tokens: &[u32], start: usize, at: usize) -> f64 {
    let logits = model.infer(&tokens[start..at], 1).unwrap();
    let last = &logits[logits.len() - VOCAB..];
    let sum: f64 = last.iter().map(|&l| f64::from(l).exp()).sum();
    sum.ln() - f64::from(last[tokens[at] as usize])
}

fn run(model: &Model, text: &TokenFile, options: EvalOptions) -> Evaluation {
    evaluate(model, text, options, |_| {}).unwrap()
}

#[test]
fn each_token_is_scored_once_after_what_its_protocol_lets_it_see() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.tokens");
    let mut writer = TokenFileWriter::create(&path, VOCAB).unwrap();
    writer.push_document(&tokens(), TEXT_BYTES).unwrap();
    writer.finish().unwrap().publish().unwrap();
    let text = TokenFile::open(&path).unwrap();
    let (model, tokens) = (model(), tokens());

    // Where the window begins in which a token is scored.
    let chunked = |at: usize| (at - 1) / CONTEXT * CONTEXT;
    let sliding = |stride: usize| {
        move |at: usize| {
            let end = match at <= CONTEXT {
                true => CONTEXT + 1,
                false => CONTEXT + 1 + (at - CONTEXT).div_ceil(stride) * stride,
            };
            end.min(TOKENS) - CONTEXT - 1
        }
    };
    type Start = Box<dyn Fn(usize) -> usize>;
    let protocols: [(Protocol, Start); 4] = [
        (Protocol::Chunked, Box::new(chunked)),
        (Protocol::Sliding { stride: 1 }, Box::new(sliding(1))),
        (Protocol::Sliding { stride: 5 }, Box::new(sliding(5))),
        (Protocol::Sliding { stride: 12 }, Box::new(sliding(12))),
    ];
    for (protocol, start) in &protocols {
        for (max_tokens, batch) in [(0, 1), (0, 8), (40, 3)] {
            let count = if max_tokens == 0 {
                TOKENS - 1
            } else {
                max_tokens
            };
            let sum: f64 = (1..=count)
                .map(|at| nll(&model, &tokens, start(at), at))
                .sum();
            let expected = sum / count as f64;
            let options = EvalOptions {
                protocol: *protocol,
                context: CONTEXT,
                batch,
                max_tokens,
            };
            let found = run(&model, &text, options);
            assert_eq!(found.tokens, count as u64);
            assert!(
                (found.loss - expected).abs() < 1e-5,
                "{options:?}: {} and {expected}",
                found.loss
            );
            let bits = expected / std::f64::consts::LN_2 * TOKENS as f64 / TEXT_BYTES as f64;
            assert!((found.bits_per_byte.unwrap() - bits).abs() < 1e-5);
            assert!((found.perplexity() / expected.exp() - 1.0).abs() < 1e-5);
        }
    }
    let loss = |protocol, batch| {
        let options = EvalOptions {
            protocol,
            context: CONTEXT,
            batch,
            max_tokens: 0,
        };
        run(&model, &text, options).loss.to_bits()
    };
    for (protocol, _) in protocols {
        assert_eq!(loss(protocol, 1), loss(protocol, 8), "{protocol:?}");
    }
}
