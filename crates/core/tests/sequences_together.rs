//! Sequences of different lengths that share a step: each gets the bits that it gets alone.

mod common;

use common::{bits, cpu, fresh, gpt, gpt2, reference, spec, tokens};
use proptest::prelude::*;
use std::sync::Arc;
use tokenformer_core::config::{ModelSpec, NormSpan, Theta};
use tokenformer_core::generate::{Feed, Session};
use tokenformer_core::{Cache, Device, Error, Graph, Model, WeightFormat};
use tokenformer_cpu::Cpu;

/// A sequence with the step at which it joins, and how many tokens it takes in at a time.
struct Sequence {
    text: Vec<u32>,
    joins: usize,
    piece: usize,
    cache: Cache,
}

/// The last logits that each of `sequences` gets where they share steps.
fn together(model: &Model, sequences: &mut [Sequence]) -> Vec<Vec<f32>> {
    let mut last = vec![Vec::new(); sequences.len()];
    for step in 0.. {
        let (mut feeds, mut whose, mut rows, mut end) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (i, s) in sequences.iter_mut().enumerate() {
            let seen = s.cache.len();
            if step < s.joins || seen == s.text.len() {
                continue;
            }
            let tokens = &s.text[seen..s.text.len().min(seen + s.piece)];
            end += tokens.len();
            feeds.push(Feed {
                cache: &mut s.cache,
                tokens,
            });
            whose.push(i);
            rows.push(end as u32 - 1);
        }
        if feeds.is_empty() {
            if sequences.iter().all(|s| s.joins <= step) {
                return last;
            }
            continue;
        }
        let mut logits = Vec::new();
        let mut g = Graph::inference(model.device());
        model
            .logits_each(&mut g, &mut feeds, &rows, &mut logits)
            .unwrap();
        for (i, logits) in whose.into_iter().zip(logits.chunks(model.vocab())) {
            last[i] = logits.to_vec();
        }
    }
    unreachable!("the steps go on until every sequence has ended")
}

fn alone(model: &Model, text: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, text.len()).unwrap();
    session.feed(text).unwrap();
    session.logits().to_vec()
}

fn check(model: &Model, seed: u64, mix: &[(usize, usize, usize)]) {
    let mut sequences: Vec<Sequence> = (mix.iter().zip(0..))
        .map(|(&(len, joins, piece), i)| Sequence {
            text: tokens(seed + i, len, model.vocab()),
            joins,
            piece,
            cache: model
                .cache(1, len + i as usize % 3)
                .unwrap_or_else(|_| model.cache(1, len).unwrap()),
        })
        .collect();
    let got = together(model, &mut sequences);
    for (sequence, got) in sequences.iter().zip(got) {
        let want = alone(model, &sequence.text);
        assert_eq!(bits(&got), bits(&want), "{mix:?}");
    }
}

fn specs() -> [ModelSpec; 4] {
    let wide = |spec: ModelSpec| ModelSpec {
        width: 160,
        heads: 5,
        ..spec
    };
    let segments = ModelSpec {
        theta: Theta::GeluL2Norm,
        norm: NormSpan::Segment,
        ..spec()
    };
    [wide(spec()), segments, gpt(), wide(gpt2())]
}

proptest! {
    #![proptest_config(common::cases(12))]
    #[test]
    fn any_mix_gives_each_what_it_gets_alone(
        seed in 0u64..1000,
        threads in 1usize..4,
        mix in prop::collection::vec((1usize..24, 0usize..9, 1usize..9), 1..8),
    ) {
        let device: Arc<dyn Device> = Cpu::new(Some(threads));
        for spec in specs() {
            check(&fresh(&device, &spec, 3), seed, &mix);
            for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
                let config = spec.build().unwrap();
                let model = Model::fresh_for_inference(&device, &config, format, 3).unwrap();
                check(&model, seed, &mix);
            }
        }
    }
}

#[test]
fn the_plainest_device_gives_the_same() {
    let mix = [(5, 0, 2), (9, 1, 9), (3, 3, 1)];
    for spec in [spec(), gpt2()] {
        check(&fresh(&reference(), &spec, 3), 1, &mix);
    }
}

#[test]
fn a_prefix_goes_on_as_if_it_had_been_computed() {
    let model = fresh(&cpu(), &spec(), 2);
    let text = tokens(3, 20, model.vocab());
    let mut cache = model.cache(1, 20).unwrap();
    let mut logits = Vec::new();
    let mut feed = |cache: &mut Cache, tokens: &[u32]| {
        let last = tokens.len() as u32 - 1;
        let feed = Feed { cache, tokens };
        let mut g = Graph::inference(model.device());
        model
            .logits_each(&mut g, &mut [feed], &[last], &mut logits)
            .unwrap();
        logits.clone()
    };
    feed(&mut cache, &text);
    let mut prefix = cache.prefix(model.device(), 7, 9).unwrap();
    assert_eq!((prefix.len(), prefix.capacity()), (7, 9));
    let end = [5, 11];
    let got = feed(&mut prefix, &end);
    let want = alone(&model, &[&text[..7], &end].concat());
    assert_eq!(bits(&got), bits(&want));
    assert_eq!(cache.len(), 20, "the first cache stays as it was");
}

#[test]
fn what_cannot_be_taken_in_spoils_nothing() {
    let model = fresh(&cpu(), &spec(), 2);
    let (mut a, mut b) = (model.cache(1, 3).unwrap(), model.cache(1, 9).unwrap());
    let step = |a: &mut Cache, b: &mut Cache, tokens: [&[u32]; 2]| {
        let caches = [a, b].into_iter().zip(tokens);
        let mut feeds: Vec<Feed<'_>> = caches
            .map(|(cache, tokens)| Feed { cache, tokens })
            .collect();
        let mut logits = Vec::new();
        let mut g = Graph::inference(model.device());
        (model.logits_each(&mut g, &mut feeds, &[0], &mut logits)).map(|()| logits)
    };
    step(&mut a, &mut b, [&[1, 2], &[3]]).unwrap();
    let full = step(&mut a, &mut b, [&[4, 5], &[6]]).unwrap_err();
    assert!(
        matches!(
            full,
            Error::ContextFull {
                context: 3,
                needed: 4
            }
        ),
        "{full}"
    );
    let unknown = step(&mut a, &mut b, [&[4], &[29]]).unwrap_err();
    assert!(
        matches!(unknown, Error::TokenOutOfRange { token: 29, .. }),
        "{unknown}"
    );
    assert_eq!((a.len(), b.len()), (2, 1));
    let got = step(&mut a, &mut b, [&[4], &[6]]).unwrap();
    assert_eq!(bits(&got), bits(&alone(&model, &[1, 2, 4])));
}
