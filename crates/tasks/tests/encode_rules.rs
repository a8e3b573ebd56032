//! Which tokens are fed to the model and which are scored.

use tokenformer_data::Tokenizer;
use tokenformer_tasks::Request;
use tokenformer_tasks::encode::Encoder;
use tokenformer_tasks::task::{Pair, Question};

fn pair(context: &str, continuation: &str) -> Pair {
    Pair {
        context: context.into(),
        continuation: continuation.into(),
    }
}

fn bytes(context: usize, before: &str, after: &str) -> Result<Request, String> {
    let tokenizer = &Tokenizer::bytes();
    let encoder = Encoder { tokenizer, context };
    let made = encoder.pair(&pair(before, after), "here:1");
    made.map_err(|error| error.to_string())
}

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn white_space_moves_to_the_continuation() {
    let request = bytes(100, "ab \n", " cd").unwrap();
    assert_eq!(request.tokens, ids("ab \n cd"));
    assert_eq!(request.targets(), ids(" \n cd"));
    assert_eq!(request.inputs(), ids("ab \n c"));
    // The input at this position predicts the first target.
    assert_eq!(request.first_scored(), 1);
    assert!(!request.truncated);
}

#[test]
fn an_empty_context_is_the_end_of_a_document() {
    const EOD: u32 = 256;
    let request = bytes(100, "", " ab").unwrap();
    assert_eq!(request.tokens, [&[EOD], &*ids(" ab")].concat());
    assert_eq!(request.targets(), ids(" ab"));
    // So is one of white space only, which moves.
    let request = bytes(100, " ", " ab").unwrap();
    assert_eq!(request.tokens, [&[EOD], &*ids("  ab")].concat());
    assert_eq!(request.scored, 4);
}

#[test]
fn long_contexts_lose_their_beginning() {
    // 6 positions: 7 tokens, of which the last is only a target.
    let request = bytes(6, "abcdefgh", " ij").unwrap();
    assert_eq!(request.tokens, ids("efgh ij"));
    assert_eq!(
        (request.inputs().len(), request.targets()),
        (6, &*ids(" ij"))
    );
    assert!(request.truncated);
    assert!(!bytes(10, "abcdefgh", " ij").unwrap().truncated);
    assert!(bytes(9, "abcdefgh", " ij").unwrap().truncated);
    // A continuation as long as the model's context still has one token before it.
    let request = bytes(3, "abcdefgh", " ij").unwrap();
    assert_eq!((request.tokens, request.scored), (ids("h ij"), 3));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    for (context, after) in [(2, " ij"), (100, "")] {
        let message = bytes(context, "abc", after).unwrap_err();
        assert!(
            message.starts_with("here:1: a continuation cannot be scored"),
            "{message}"
        );
    }
}

#[test]
fn tokens_across_the_border_are_split_by_count() {
    let text = "the river the river the rivers and the rivers ".repeat(40);
    let tokenizer = &Tokenizer::train_bpe([text], 300, |_, _| {}).unwrap();
    let encoder = Encoder {
        tokenizer,
        context: 100,
    };
    let mut split_inside_a_token = 0;
    for (before, after) in [
        ("the river", " the rivers"),
        ("the riv", "ers and the river the rivers"),
        ("the r", "iver the river the"),
        ("a", " river"),
    ] {
        let whole = tokenizer.encode(&format!("{before}{after}")).unwrap();
        let context = tokenizer.encode(before).unwrap();
        let request = encoder.pair(&pair(before, after), "here:1").unwrap();
        let rest = &whole[context.len()..];
        assert_eq!(request.tokens, [&*context, rest].concat());
        assert_eq!(request.targets(), rest);
        split_inside_a_token += usize::from(whole[..context.len()] != context);
    }
    assert!(split_inside_a_token > 0, "no case is interesting");
    // " riv" alone has more tokens than the one of the whole word: nothing is left to score.
    let message = (encoder.pair(&pair("the riv", "ers"), "here:1")).unwrap_err();
    assert!(message.to_string().contains("0 tokens"), "{message}");
}

#[test]
fn a_question_shares_what_it_can_and_gives_the_same() {
    let tokenizer = &Tokenizer::bytes();
    let encoder = Encoder {
        tokenizer,
        context: 12,
    };
    let question = Question {
        pairs: vec![
            pair("a long context", " b"),
            pair("a long context ", " c"),
            pair("another", " longer one"),
            pair("a long context", " d"),
        ],
        gold: 0,
        lengths: vec![1, 1, 10, 1],
    };
    let requests = encoder.question(&question, true, 7, "here:1").unwrap();
    for (request, pair) in requests.into_iter().zip(&question.pairs) {
        let alone = encoder.pair(pair, "here:1").unwrap();
        let want = Request {
            group: 7,
            greedy: true,
            ..alone
        };
        assert_eq!(request, want);
    }
}

#[test]
fn characters_without_tokens_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let json = r#"{
        "version": "1.0", "added_tokens": [{"id": 3, "content": "<|endoftext|>", "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, " ": 2}, "merges": []}
    }"#;
    std::fs::write(&path, json).unwrap();
    let tokenizer = &Tokenizer::from_file(&path).unwrap();
    let encoder = Encoder {
        tokenizer,
        context: 100,
    };
    let request = encoder
        .pair(&pair("a\u{e9}b", " a\u{e9}\u{e9}"), "here:1")
        .unwrap();
    assert_eq!((request.tokens, request.lost), (vec![0, 1, 2, 0], 3));
    assert_eq!(encoder.pair(&pair("ab", " a"), "here:1").unwrap().lost, 0);
}
