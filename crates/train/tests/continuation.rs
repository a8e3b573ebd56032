//! Continuing a text token by token: what comes out when, and why it ends.

use tokenformer_core::generate::{Sampler, Sampling};
use tokenformer_data::Tokenizer;
use tokenformer_train::Error;
use tokenformer_train::continuation::{Continuation, End, encode_prompt};

const EOD: u32 = 256;

/// The texts given out for `tokens`, each the likeliest when it is asked for, and the end.
fn run(
    tokens: &[u32],
    max_tokens: usize,
    stops: &[&str],
    room: usize,
) -> (Vec<String>, Option<End>) {
    let tokenizer = Tokenizer::bytes();
    let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
    let sampler = Sampler::new(Sampling::greedy()).unwrap();
    let mut continuation = Continuation::new(&tokenizer, &[65], sampler, max_tokens, &stops);
    let (mut texts, mut seen) = (Vec::new(), vec![65]);
    for (i, &token) in tokens.iter().enumerate() {
        let mut logits = vec![0.0; 257];
        logits[token as usize] = 1.0;
        let piece = continuation.next(&logits, &seen, room - i).unwrap();
        texts.push(piece.text);
        assert_eq!(piece.token, (max_tokens > 0).then_some(token));
        if piece.end.is_some() {
            assert_eq!(
                continuation.finish(),
                "",
                "nothing is held back after the end"
            );
            return (texts, piece.end);
        }
        seen.push(token);
    }
    texts.push(continuation.finish());
    (texts, None)
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn a_text_ends_for_a_reason() {
    let text = bytes("abcd");
    let with_end = [&text[..2], &[EOD]].concat();
    for (tokens, max, stops, room, want, end) in [
        (&text, 3, &[][..], 9, "abc", Some(End::Length)),
        (&text, 0, &[], 9, "", Some(End::Length)),
        (&text, 9, &[], 2, "abc", Some(End::Context)),
        (&text, 9, &["cd"], 9, "ab", Some(End::Stop)),
        // What is complete with the last token is a stop text, not the end of the length.
        (&text, 3, &["bc"], 9, "a", Some(End::Stop)),
        (&with_end, 9, &[], 9, "ab", Some(End::Document)),
        (&text, 9, &["x"], 9, "abcd", None),
    ] {
        let (texts, got) = run(tokens, max, stops, room);
        assert_eq!(
            (texts.concat().as_str(), got),
            (want, end),
            "{stops:?} {max} {room}"
        );
    }
}

#[test]
fn text_comes_as_soon_as_it_is_certain() {
    let (texts, _) = run(&bytes("aé"), 9, &[], 9);
    assert_eq!(texts, ["a", "", "é", ""]);
    let (texts, _) = run(&bytes("a-x"), 9, &["-b"], 9);
    assert_eq!(texts, ["a", "", "-x", ""]);
    // Half a character, and what could have become a stop text, are given out at the end.
    let (texts, end) = run(&bytes("aé")[..2], 2, &[], 9);
    assert_eq!(
        (texts.concat().as_str(), end),
        ("a\u{fffd}", Some(End::Length))
    );
    let (texts, end) = run(&bytes("a-"), 2, &["-b"], 9);
    assert_eq!((texts.concat().as_str(), end), ("a-", Some(End::Length)));
}

#[test]
fn logits_that_are_not_finite_are_refused() {
    let tokenizer = Tokenizer::bytes();
    let sampler = Sampler::new(Sampling::greedy()).unwrap();
    let mut continuation = Continuation::new(&tokenizer, &[65], sampler, 9, &[]);
    let mut logits = vec![0.0; 257];
    logits[7] = f32::NAN;
    let error = continuation.next(&logits, &[65], 9).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("the logit of token 7 after 1 tokens")
    );
}

#[test]
fn rows_without_a_token_are_never_chosen() {
    let tokenizer = Tokenizer::bytes();
    let sampler = Sampler::new(Sampling::greedy()).unwrap();
    let mut continuation = Continuation::new(&tokenizer, &[65], sampler, 9, &[]);
    let mut logits = vec![0.0; 300];
    (logits[299], logits[98]) = (9.0, 1.0);
    let piece = continuation.next(&logits, &[65], 9).unwrap();
    assert_eq!((piece.token, piece.text.as_str()), (Some(98), "b"));
}

#[test]
fn an_empty_prompt_starts_a_document() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(encode_prompt(&tokenizer, "").unwrap().0, [EOD]);
    assert_eq!(encode_prompt(&tokenizer, "a").unwrap().0, [97]);
}
