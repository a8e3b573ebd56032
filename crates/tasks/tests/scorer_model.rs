//! The scorer of a model against one pass per request.

use std::sync::Arc;

use tokenformer_core::{Device, Model};
use tokenformer_cpu::Cpu;
use tokenformer_tasks::{ModelScorer, Request, Scored, Scorer};
use tokenformer_testing::models::small;

const CONTEXT: usize = 64;
const VOCAB: usize = 31;

fn model(device: &Arc<dyn Device>) -> Model {
    Model::fresh(device, &small(VOCAB, CONTEXT).build().unwrap(), 5).unwrap()
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn tokens(&mut self, len: usize) -> Vec<u32> {
        (0..len).map(|_| self.below(VOCAB) as u32).collect()
    }
}

/// Questions with one to five choices after one context of any length, and some of another context.
fn requests(count: usize) -> Vec<Request> {
    let mut dice = Dice(11);
    let mut all = Vec::new();
    for group in 0..count {
        let len = 1 + dice.below(45);
        let mut context = dice.tokens(len);
        for choice in 0..1 + dice.below(5) {
            if dice.below(9) == 0 {
                let at = dice.below(context.len());
                context[at] = (context[at] + 1) % VOCAB as u32;
            }
            let scored = 1 + dice.below(18);
            all.push(Request {
                group,
                tokens: [context.clone(), dice.tokens(scored)].concat(),
                scored,
                greedy: choice % 2 == 0,
                truncated: false,
                lost: 0,
            });
        }
    }
    all
}

/// One pass per request, log-softmax in f64.
fn plainly(model: &Model, request: &Request) -> Scored {
    let logits = model.infer(request.inputs(), 1).unwrap();
    let rows: Vec<&[f32]> = logits
        .chunks_exact(VOCAB)
        .skip(request.first_scored())
        .collect();
    assert_eq!(rows.len(), request.scored);
    let (mut loglik, mut greedy) = (0.0, true);
    for (row, &target) in rows.iter().zip(request.targets()) {
        let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
        loglik += f64::from(row[target as usize]) - sum.ln();
        let first_best = (0..VOCAB).rev().max_by(|&a, &b| row[a].total_cmp(&row[b]));
        greedy &= first_best == Some(target as usize);
    }
    Scored {
        loglik,
        greedy: request.greedy.then_some(greedy),
    }
}

fn assert_close(got: &[Scored], want: &[Scored]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (got.loglik - want.loglik).abs();
        assert!(
            error <= 1e-5 * want.loglik.abs().max(1.0),
            "{i}: {got:?} {want:?}"
        );
        assert_eq!(got.greedy, want.greedy, "{i}");
    }
}

#[test]
fn batches_and_shared_beginnings_change_nothing() {
    let device: Arc<dyn Device> = Cpu::new(Some(2));
    let model = model(&device);
    let requests = requests(160);
    let want: Vec<Scored> = requests.iter().map(|r| plainly(&model, r)).collect();
    assert_close(&ModelScorer::new(&model).score(&requests).unwrap(), &want);
    // Requests in separate groups share nothing.
    let alone: Vec<Request> = (requests.iter().cloned().enumerate())
        .map(|(group, request)| Request { group, ..request })
        .collect();
    assert_close(&ModelScorer::new(&model).score(&alone).unwrap(), &want);
}

#[test]
fn what_the_model_would_say_is_greedy() {
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let model = model(&device);
    let mut requests = Vec::new();
    for (group, start) in (0..20u32).enumerate() {
        let mut tokens = vec![start, 3, start];
        for _ in 0..4 {
            let logits = model.infer(&tokens, 1).unwrap();
            let last = &logits[logits.len() - VOCAB..];
            let best = (0..VOCAB)
                .rev()
                .max_by(|&a, &b| last[a].total_cmp(&last[b]));
            tokens.push(best.unwrap() as u32);
        }
        let mut other = tokens.clone();
        other[4] = (other[4] + 1) % VOCAB as u32;
        requests.extend([tokens, other].map(|tokens| Request {
            group,
            tokens,
            scored: 4,
            greedy: true,
            truncated: false,
            lost: 0,
        }));
    }
    let scores = ModelScorer::new(&model).score(&requests).unwrap();
    for pair in scores.chunks_exact(2) {
        assert_eq!((pair[0].greedy, pair[1].greedy), (Some(true), Some(false)));
    }
}

#[test]
fn a_full_context_fits_and_unknown_tokens_are_refused() {
    let device: Arc<dyn Device> = Cpu::new(Some(1));
    let model = model(&device);
    let mut scorer = ModelScorer::new(&model);
    assert_eq!(scorer.context(), CONTEXT);
    let mut dice = Dice(3);
    let mut full = Request {
        group: 0,
        tokens: dice.tokens(CONTEXT + 1),
        scored: CONTEXT,
        greedy: true,
        truncated: true,
        lost: 0,
    };
    let want = plainly(&model, &full);
    assert_close(&scorer.score(std::slice::from_ref(&full)).unwrap(), &[want]);
    assert!(scorer.score(&[]).unwrap().is_empty());

    *full.tokens.last_mut().unwrap() = VOCAB as u32;
    let message = scorer.score(&[full]).unwrap_err().to_string();
    assert!(
        message.starts_with("token 31: not in the vocabulary"),
        "{message}"
    );
}
