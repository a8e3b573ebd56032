//! Held-out loss under both protocols, held against logits of one window at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokenformer_core::{Device, Model};
use tokenformer_cpu::Cpu;
use tokenformer_data::{ByteCounts, TokenFile, TokenFileWriter, Tokenizer};
use tokenformer_testing::models::small;
use tokenformer_train::{EvalOptions, Evaluation, HeldOut, Protocol, ScoredBytes};

const VOCAB: usize = 29;
const CONTEXT: usize = 12;
const TOKENS: usize = 101;
const TEXT_BYTES: u64 = 333;

fn model(vocab: usize) -> Model {
    let device: Arc<dyn Device> = Cpu::new(Some(2));
    Model::fresh(&device, &small(vocab, 24).build().unwrap(), 3).unwrap()
}

fn tokens() -> Vec<u32> {
    (0..TOKENS as u32)
        .map(|i| (i * i + 3 * i) % VOCAB as u32)
        .collect()
}

/// Loss in nats of `tokens[at]` after the tokens from `start` on.
fn nll(model: &Model, tokens: &[u32], start: usize, at: usize) -> f64 {
    let logits = model.infer(&tokens[start..at], 1).unwrap();
    let last = &logits[logits.len() - model.vocab()..];
    let sum: f64 = last.iter().map(|&l| f64::from(l).exp()).sum();
    sum.ln() - f64::from(last[tokens[at] as usize])
}

fn token_file(dir: &tempfile::TempDir, tokens: &[u32], vocab: usize, text_bytes: u64) -> TokenFile {
    let path = dir.path().join("text.tokens");
    let mut writer = TokenFileWriter::create(&path, vocab).unwrap();
    writer.push_document(tokens, text_bytes).unwrap();
    writer.finish().unwrap().publish().unwrap();
    TokenFile::open(&path).unwrap()
}

fn run(model: &Model, held_out: &HeldOut<'_>, options: EvalOptions) -> Evaluation {
    let go_on = AtomicBool::new(false);
    let found = held_out.evaluate(model, options, &go_on, |_| {}).unwrap();
    found.expect("nobody stopped it")
}

#[test]
fn each_token_is_scored_once_after_what_its_protocol_lets_it_see() {
    let dir = tempfile::tempdir().unwrap();
    let (model, tokens) = (model(VOCAB), tokens());
    let text = &token_file(&dir, &tokens, VOCAB, TEXT_BYTES);
    let bytes = &ScoredBytes::Mean(TEXT_BYTES as f64 / TOKENS as f64);
    let held_out = HeldOut { text, bytes };

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
            let found = run(&model, &held_out, options);
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
        run(&model, &held_out, options).loss.to_bits()
    };
    for (protocol, _) in protocols {
        assert_eq!(loss(protocol, 1), loss(protocol, 8), "{protocol:?}");
    }
}

/// Sixty documents of one short token each, then longer words: the mean of the text is right nowhere.
#[test]
fn bits_per_byte_are_those_of_the_scored_tokens() {
    let words = "station morning library together mountain ".repeat(40);
    let tokenizer = Tokenizer::train_bpe([words.clone()], 300, |_, _| {}).unwrap();
    let mut tokens: Vec<u32> = Vec::new();
    let mut text_bytes = 0;
    for document in ["7"; 60].into_iter().chain([&*words]) {
        tokens.extend(tokenizer.encode(document).unwrap());
        tokens.extend(tokenizer.eod());
        text_bytes += document.len() as u64;
    }
    let dir = tempfile::tempdir().unwrap();
    let text = &token_file(&dir, &tokens, tokenizer.vocab_size(), text_bytes);
    let bytes = &ScoredBytes::Counted(ByteCounts::new(&tokenizer).unwrap());
    let held_out = HeldOut { text, bytes };
    let model = model(tokenizer.vocab_size());
    for protocol in [Protocol::Chunked, Protocol::Sliding { stride: 5 }] {
        // 70 tokens end inside a window, in both protocols; 0 are all.
        for (max_tokens, count) in [(70, 70), (150, 150), (0, tokens.len() - 1)] {
            let options = EvalOptions {
                protocol,
                context: CONTEXT,
                batch: 3,
                max_tokens,
            };
            let found = run(&model, &held_out, options);
            let scored_bytes = tokenizer.decode(&tokens[1..=count]).len() as f64;
            assert_eq!(found.bytes, Some(scored_bytes));
            let bits = found.loss * count as f64 / std::f64::consts::LN_2 / scored_bytes;
            assert!((found.bits_per_byte.unwrap() / bits - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn a_stop_ends_an_evaluation_between_two_passes_without_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let (model, tokens) = (model(VOCAB), tokens());
    let text = &token_file(&dir, &tokens, VOCAB, TEXT_BYTES);
    let bytes = &ScoredBytes::Unknown;
    let held_out = HeldOut { text, bytes };
    let options = EvalOptions {
        protocol: Protocol::Chunked,
        context: CONTEXT,
        batch: 2,
        max_tokens: 0,
    };
    let evaluate = |stop_at: u64| {
        let stop = AtomicBool::new(stop_at == 0);
        let mut last = 0;
        let progress = |done: u64| {
            last = done;
            stop.store(done >= stop_at, Ordering::Relaxed);
        };
        let found = held_out.evaluate(&model, options, &stop, progress);
        (found.unwrap(), last)
    };
    assert_eq!(evaluate(0), (None, 0));
    assert_eq!(evaluate(30), (None, 48));
    // Also before the last pass, which has the remaining windows.
    assert_eq!(evaluate(96), (None, 96));
    let (found, last) = evaluate(100);
    assert_eq!(last, 100);
    assert_eq!(found.unwrap().bits_per_byte, None);
}
