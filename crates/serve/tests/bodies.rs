//! Bodies of requests, changed at random: each is read or answered with an error that says what to do.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokenformer_serve::ApiError;
use tokenformer_serve::request::{
    ChatRequest, CompletionRequest, DetokenizeRequest, FiredRequest, TokenizeRequest, parse,
};

/// The bodies of the examples of the documentation.
fn examples() -> Vec<&'static [u8]> {
    let text = include_str!("../../../docs/serve.md");
    let bodies = text.lines().filter_map(|line| line.split_once(" -d '"));
    bodies
        .map(|(_, body)| body.trim_end_matches('\'').as_bytes())
        .collect()
}

#[derive(Clone, Debug)]
enum Change {
    Set(u16, u8),
    Insert(u16, Vec<u8>),
    Remove(u16, u8),
    /// Copies a part to another place.
    Copy(u16, u8, u16),
}

fn change() -> impl Strategy<Value = Change> {
    let words = [
        "[",
        "]",
        "{",
        "}",
        "\"",
        ",",
        ":",
        "null",
        "true",
        "-1",
        "1e999",
        "0.1",
        "\\ud800",
        "18446744073709551616",
        "99999999999",
        "[[[[[[[[",
        "\"n\":",
        "\"stop\":",
        "\"logit_bias\":{\"1\":",
        "\"stage\":",
        "\"logprobs\":",
        "\u{0}",
        "é",
    ];
    let word = prop::sample::select(words.map(|word| word.as_bytes().to_vec()).to_vec());
    prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<u16>(), word).prop_map(|(at, word)| Change::Insert(at, word)),
        (any::<u16>(), any::<u8>()).prop_map(|(at, len)| Change::Remove(at, len)),
        (any::<u16>(), any::<u8>(), any::<u16>())
            .prop_map(|(from, len, to)| Change::Copy(from, len, to)),
    ]
}

fn apply(body: &mut Vec<u8>, change: &Change) {
    let place = |at: u16, len: usize| at as usize % (len + 1);
    let part = |body: &[u8], at: u16, len: u8| {
        let start = place(at, body.len());
        start..(start + len as usize).min(body.len())
    };
    match change {
        Change::Set(at, byte) => {
            let at = place(*at, body.len());
            if let Some(old) = body.get_mut(at) {
                *old = *byte;
            }
        }
        Change::Insert(at, word) => {
            let at = place(*at, body.len());
            body.splice(at..at, word.iter().copied());
        }
        Change::Remove(at, len) => {
            let part = part(body, *at, *len % 16);
            body.drain(part);
        }
        Change::Copy(from, len, to) => {
            let copied = body[part(body, *from, *len)].to_vec();
            let to = place(*to, body.len());
            body.splice(to..to, copied);
        }
    }
}

/// Checks that an error is an answer.
fn ensure_answer<T>(read: Result<T, ApiError>) {
    if let Err(error) = read {
        assert_eq!(error.status.as_u16(), 400);
        assert!(
            !error.help.is_empty() && error.body().to_string().len() < 8192,
            "{error:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // More for a long search: PROPTEST_CASES=1000000.
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4000),
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn a_changed_body_is_read_or_explained(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 0..6),
    ) {
        let examples = examples();
        let mut body = examples[which.index(examples.len())].to_vec();
        for change in &changes {
            apply(&mut body, change);
        }
        ensure_answer(parse::<CompletionRequest>(&body).and_then(|request| request.common()));
        ensure_answer(parse::<ChatRequest>(&body).and_then(|request| request.common()));
        ensure_answer(parse::<TokenizeRequest>(&body));
        ensure_answer(parse::<DetokenizeRequest>(&body));
        ensure_answer(parse::<FiredRequest>(&body));
    }
}
