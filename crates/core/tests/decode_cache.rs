//! Decoding with a cache computes what one pass over the whole text computes.

mod common;

use common::{
    ROTARY, bits, cpu, encoder, fresh, gpt, gpt2, max_abs_difference, reference, spec, tokens,
};
use std::sync::Arc;
use tokenformer_core::config::{ModelSpec, NormSpan, Positions, Theta};
use tokenformer_core::generate::Session;
use tokenformer_core::{Cache, Device, Error, Graph, Model};

/// Logits of the next tokens of every sequence.
fn step(model: &Model, tokens: &[u32], batch: usize, cache: &mut Cache) -> Vec<f32> {
    let mut g = Graph::inference(model.device());
    let hidden = model.hidden(&mut g, tokens, batch, Some(cache)).unwrap();
    model
        .logits(&mut g, &hidden)
        .unwrap()
        .to_host(&**model.device())
        .unwrap()
}

/// Positions `range` of all sequences in rows of `t` numbers or logits.
fn columns<T: Copy>(all: &[T], t: usize, width: usize, range: std::ops::Range<usize>) -> Vec<T> {
    all.chunks(t * width)
        .flat_map(|s| s[range.start * width..range.end * width].to_vec())
        .collect()
}

fn check_cuts(device: &Arc<dyn Device>, spec: &ModelSpec, batch: usize, bar: f64) -> f64 {
    let model = fresh(device, spec, 9);
    let (t, v) = (spec.context, spec.vocab);
    let text = tokens(1, batch * t, v);
    let whole = model.infer(&text, batch).unwrap();
    let mut worst = 0.0f64;
    // A prompt cut after `cut` tokens, and the rest in steps of 1 to 5.
    for cut in 1..=t {
        let mut cache = model.cache(batch, t).unwrap();
        let (mut from, mut to) = (0, cut);
        while from < t {
            let logits = step(&model, &columns(&text, t, 1, from..to), batch, &mut cache);
            assert_eq!(cache.len(), to);
            let error = max_abs_difference(&logits, &columns(&whole, t, v, from..to));
            assert!(
                error <= bar,
                "positions {from}..{to} are off by {error:e}: {spec:?}"
            );
            worst = worst.max(error);
            (from, to) = (to, (to + 1 + cut % 5).min(t));
        }
    }
    worst
}

#[test]
fn any_cut_of_any_model() {
    let mut worst = 0.0f64;
    for (theta, norm, positions) in [
        (Theta::L2NormGelu, NormSpan::Joint, ROTARY),
        (Theta::GeluL2Norm, NormSpan::Segment, Positions::None),
        (Theta::Softmax, NormSpan::Joint, ROTARY),
    ] {
        for batch in [1, 3] {
            let spec = ModelSpec {
                theta,
                norm,
                positions,
                ..spec()
            };
            worst = worst.max(check_cuts(&cpu(), &spec, batch, 0.0));
            check_cuts(&reference(), &spec, batch, 0.0);
        }
    }
    println!("largest difference of a logit: {worst:.1e}");
}

#[test]
fn any_cut_of_a_plain_transformer_to_the_bit() {
    for base in [gpt(), gpt2()] {
        for (batch, context, width) in [(1, 24, 16), (3, 24, 16), (1, 70, 48)] {
            let spec = ModelSpec {
                context,
                width,
                ..base.clone()
            };
            check_cuts(&cpu(), &spec, batch, 0.0);
        }
        check_cuts(&reference(), &base, 1, 0.0);
    }
}

#[test]
fn an_encoder_cannot_be_continued() {
    let model = fresh(&cpu(), &encoder(), 2);
    for refused in [model.cache(1, 5).err(), Session::new(&model, 5).err()] {
        let error = refused.expect("an encoder has no cache");
        assert!(matches!(error, Error::NotCausal), "{error}");
        assert!(error.to_string().contains("help:"));
    }
    assert_eq!(model.infer(&tokens(1, 5, 29), 1).unwrap().len(), 5 * 29);
}

#[test]
fn a_wider_model_with_more_rows_than_a_block() {
    let spec = ModelSpec {
        width: 64,
        heads: 4,
        context: 80,
        ..spec()
    };
    check_cuts(&cpu(), &spec, 1, 0.0);
}

#[test]
fn sessions_feed_in_any_pieces() {
    let model = fresh(&cpu(), &spec(), 2);
    let text = tokens(3, 24, 29);
    let whole = model.infer(&text, 1).unwrap();
    for pieces in [&[24][..], &[1; 24], &[5, 1, 7, 11], &[23, 1]] {
        let mut session = Session::new(&model, 24).unwrap();
        assert!(session.logits().is_empty());
        let mut at = 0;
        for piece in pieces {
            session.feed(&text[at..at + piece]).unwrap();
            at += piece;
            let want = &whole[(at - 1) * 29..at * 29];
            assert!(max_abs_difference(session.logits(), want) <= 1e-4);
            assert_eq!((session.tokens(), session.room()), (&text[..at], 24 - at));
        }
    }
}

#[test]
fn nothing_to_feed_changes_nothing() {
    let model = fresh(&cpu(), &spec(), 2);
    let mut session = Session::new(&model, 24).unwrap();
    session.feed(&[1, 2]).unwrap();
    let before = session.logits().to_vec();
    session.feed(&[]).unwrap();
    assert_eq!(
        (session.logits(), session.tokens()),
        (&before[..], &[1, 2][..])
    );
}

#[test]
fn a_full_context_is_an_error_that_spoils_nothing() {
    let model = fresh(&cpu(), &spec(), 2);
    let mut session = Session::new(&model, 10).unwrap();
    session.feed(&tokens(1, 8, 29)).unwrap();
    let before = session.logits().to_vec();
    let full = session.feed(&[1, 2, 3]).unwrap_err();
    assert!(
        matches!(
            full,
            Error::ContextFull {
                context: 10,
                needed: 11
            }
        ),
        "{full}"
    );
    assert!(
        full.to_string()
            .starts_with("context: full\n  expected: at most 10 tokens\n  got:      11\n  help:")
    );
    assert_eq!((session.room(), session.logits()), (2, &before[..]));
    session.feed(&[1, 2]).unwrap();
    assert_eq!(session.room(), 0);
    assert!(session.feed(&[1]).is_err());
}

#[test]
fn the_context_of_the_model_is_the_limit() {
    let model = fresh(&cpu(), &spec(), 2);
    assert_eq!(Session::new(&model, 1000).unwrap().room(), 24);
    let long = model.cache(1, 25).unwrap_err();
    assert!(
        matches!(
            long,
            Error::ContextFull {
                context: 24,
                needed: 25
            }
        ),
        "{long}"
    );
    assert!(model.infer(&tokens(1, 24, 29), 1).is_ok());
    assert!(matches!(
        model.infer(&tokens(1, 25, 29), 1),
        Err(Error::ContextFull {
            context: 24,
            needed: 25
        })
    ));
}

#[test]
fn an_unknown_token_is_an_error_that_spoils_nothing() {
    let model = fresh(&cpu(), &spec(), 2);
    let mut session = Session::new(&model, 10).unwrap();
    session.feed(&[3]).unwrap();
    let unknown = session.feed(&[4, 29]).unwrap_err();
    assert!(
        matches!(
            unknown,
            Error::TokenOutOfRange {
                token: 29,
                vocab: 29
            }
        ),
        "{unknown}"
    );
    assert_eq!(session.tokens(), [3]);
    assert!(model.infer(&[u32::MAX], 1).is_err());
    let mut g = Graph::inference(model.device());
    assert!(matches!(
        model.loss(&mut g, &[1], &[77], 1, 1.0),
        Err(Error::TokenOutOfRange { token: 77, .. })
    ));
}

#[test]
fn a_truncated_cache_forgets() {
    let model = fresh(&cpu(), &spec(), 2);
    let text = tokens(3, 20, 29);
    let mut cache = model.cache(1, 24).unwrap();
    step(&model, &text[..7], 1, &mut cache);
    let want = step(&model, &text[7..9], 1, &mut cache);
    step(&model, &text[9..20], 1, &mut cache);
    cache.truncate(7);
    assert_eq!((cache.len(), cache.capacity()), (7, 24));
    let got = step(&model, &text[7..9], 1, &mut cache);
    assert_eq!(bits(&got), bits(&want));
    cache.truncate(100);
    assert_eq!(cache.len(), 9, "truncating never lengthens");
    cache.truncate(0);
    assert!(cache.is_empty());
    let again = step(&model, &text[..7], 1, &mut cache);
    assert_eq!(
        bits(&again),
        bits(&step(
            &model,
            &text[..7],
            1,
            &mut model.cache(1, 24).unwrap()
        ))
    );
}

#[test]
fn decoding_is_the_same_for_any_number_of_threads() {
    let run = |threads| {
        let device: Arc<dyn Device> = tokenformer_cpu::Cpu::new(Some(threads));
        let model = fresh(
            &device,
            &ModelSpec {
                width: 160,
                context: 24,
                ..spec()
            },
            2,
        );
        let mut session = Session::new(&model, 24).unwrap();
        session.feed(&tokens(1, 20, 29)).unwrap();
        session.feed(&[5]).unwrap();
        bits(session.logits())
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}

#[test]
fn no_tokens_have_no_logits() {
    for device in [cpu(), reference()] {
        assert!(fresh(&device, &spec(), 1).infer(&[], 1).unwrap().is_empty());
    }
}

#[test]
fn a_forked_cache_goes_on_where_the_first_one_was() {
    for device in [cpu(), reference()] {
        let model = fresh(&device, &spec(), 2);
        let text = tokens(3, 2 * 20, 29);
        let mut shared = model.cache(2, 9).unwrap();
        step(&model, &columns(&text, 20, 1, 0..7), 2, &mut shared);
        // Sequence 1 twice, sequence 0 once, each with a different end.
        let mut fork = shared.fork(&device, &[1, 0, 1], 24).unwrap();
        assert_eq!((fork.len(), fork.capacity()), (7, 24));
        let ends = tokens(4, 3 * 5, 29);
        let got = step(&model, &ends, 3, &mut fork);
        for (i, sequence) in [1, 0, 1].into_iter().enumerate() {
            let all = [
                &text[sequence * 20..sequence * 20 + 7],
                &ends[i * 5..(i + 1) * 5],
            ]
            .concat();
            let want = &model.infer(&all, 1).unwrap()[7 * 29..];
            let error = max_abs_difference(&got[i * 5 * 29..(i + 1) * 5 * 29], want);
            assert!(error <= 1e-4, "fork {i} is off by {error:e}");
        }
        assert_eq!(shared.len(), 7, "the first cache stays as it was");
    }
}

#[test]
fn a_fork_goes_on_from_what_was_seen() {
    let model = fresh(&cpu(), &spec(), 9);
    let heads = tokens(4, 2 * 6, model.vocab());
    let tails = tokens(5, 3 * 5, model.vocab());
    let mut cache = model.cache(2, 8).unwrap();
    step(&model, &heads, 2, &mut cache);
    let sequences = [1, 0, 1];
    let mut forked = cache.fork(model.device(), &sequences, 11).unwrap();
    assert_eq!((forked.len(), forked.capacity()), (6, 11));
    let got = step(&model, &tails, 3, &mut forked);
    for (i, &s) in sequences.iter().enumerate() {
        let text = [&heads[s * 6..(s + 1) * 6], &tails[i * 5..(i + 1) * 5]].concat();
        let want = model.infer(&text, 1).unwrap();
        let rows = 5 * model.vocab();
        let error = max_abs_difference(&got[i * rows..(i + 1) * rows], &want[want.len() - rows..]);
        assert!(error <= 1e-5, "sequence {i} is off by {error:e}");
    }
    // The original is as it was.
    let again = step(&model, &tails[..4], 2, &mut cache);
    let text = [&heads[..6], &tails[..2]].concat();
    let want = model.infer(&text, 1).unwrap();
    let rows = 2 * model.vocab();
    assert!(max_abs_difference(&again[..rows], &want[want.len() - rows..]) <= 1e-5);
}
