//! Encodings with unusual rules: the ids are those of the whole text, and lost characters are counted.

mod common;

use std::sync::LazyLock;

use common::write;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenformer_data::{Error, Losses, Tokenizer};

/// The characters that represent bytes in byte-level encodings.
fn byte_chars() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap()
        }
    })
}

fn spelled(text: &str) -> Vec<String> {
    text.bytes()
        .map(|byte| byte_chars()[usize::from(byte)].to_string())
        .collect()
}

/// A vocabulary of all bytes but `left_out`, with merges that make each of `words` one token.
fn model(words: &[&str], left_out: &[u8]) -> Value {
    let mut vocab = serde_json::Map::new();
    for (byte, c) in (0..=255_u8).zip(byte_chars()) {
        if !left_out.contains(&byte) {
            vocab.insert(c.to_string(), vocab.len().into());
        }
    }
    let mut merges: Vec<Value> = Vec::new();
    for word in words {
        let parts = spelled(word);
        let mut joined = parts[0].clone();
        for part in &parts[1..] {
            let merge = json!([joined, part]);
            if !merges.contains(&merge) {
                merges.push(merge);
            }
            joined.push_str(part);
            if !vocab.contains_key(&joined) {
                vocab.insert(joined.clone(), vocab.len().into());
            }
        }
    }
    json!({"type": "BPE", "vocab": vocab, "merges": merges})
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn sequence(steps: &[Value]) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn added(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special})
}

fn file(model: Value, pre_tokenizer: Value) -> Value {
    json!({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level(true), "model": model})
}

/// Adds a token, after the vocabulary if it is not in it.
fn add(file: &mut Value, content: &str, special: bool) {
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let is_new = |token: &&Value| !vocab.contains_key(token["content"].as_str().unwrap());
    let tokens = file["added_tokens"].as_array().unwrap();
    let next = vocab.len() + tokens.iter().filter(is_new).count();
    let known = vocab.get(content).and_then(Value::as_u64);
    let id = known.map_or(next, |id| id as usize);
    let tokens = file["added_tokens"].as_array_mut().unwrap();
    tokens.push(added(id, content, special));
}

fn load(file: &Value) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    Tokenizer::from_file(&write(dir.path(), "tokenizer.json", file.to_string())).unwrap()
}

fn reference(file: &Value) -> tokenizers::Tokenizer {
    let mut tokenizer: tokenizers::Tokenizer = serde_json::from_value(file.clone()).unwrap();
    tokenizer.set_encode_special_tokens(true);
    tokenizer
}

fn ids(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).unwrap().get_ids().to_vec()
}

/// The tokenizers of [`files`], each with that of the tokenizers crate.
static PAIRS: LazyLock<Vec<(&str, Tokenizer, tokenizers::Tokenizer)>> = LazyLock::new(|| {
    let pair = |(name, file)| (name, load(&file), reference(&file));
    files().into_iter().map(pair).collect()
});

const DIGITS: &str = r"(?=(\d{3})+(?!\d))";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Files whose rules part a text at different places.
fn files() -> Vec<(&'static str, Value)> {
    let words = &["the", " the", "one of the best", " and", "\n\n", "best\n"][..];
    let model = || model(words, &[]);
    let mut files = vec![
        ("usual", file(model(), byte_level(true))),
        ("no expression", file(model(), byte_level(false))),
        (
            "across words",
            file(model(), sequence(&[split(DIGITS), byte_level(false)])),
        ),
        (
            "lines",
            file(model(), sequence(&[split("\n"), byte_level(false)])),
        ),
        (
            "llama",
            file(model(), sequence(&[split(LLAMA3), byte_level(false)])),
        ),
        (
            "runs",
            file(model(), sequence(&[split(r"\s+|\S+"), byte_level(false)])),
        ),
        (
            "digits",
            file(
                model(),
                sequence(&[
                    json!({"type": "Digits", "individual_digits": true}),
                    byte_level(true),
                ]),
            ),
        ),
        (
            "prefix",
            file(
                model(),
                json!({"type": "ByteLevel", "add_prefix_space": true,
            "trim_offsets": true, "use_regex": true}),
            ),
        ),
    ];
    for (name, normalizer) in [
        (
            "strip",
            json!({"type": "Strip", "strip_left": true, "strip_right": true}),
        ),
        ("nfc", json!({"type": "NFC"})),
        (
            "replace",
            json!({"type": "Replace", "pattern": {"Regex": "\\s*$"}, "content": ""}),
        ),
        ("lower", json!({"type": "Lowercase"})),
    ] {
        let mut file = file(model(), byte_level(true));
        file["normalizer"] = normalizer;
        files.push((name, file));
    }
    for (name, tokens) in [
        ("two words", ["one of", "the best"]),
        ("end of line", ["best\n", "\n\nthe"]),
    ] {
        for steps in [
            byte_level(true),
            sequence(&[split("\n"), byte_level(false)]),
        ] {
            let mut file = file(model(), steps);
            add(&mut file, "<|endoftext|>", true);
            for token in tokens {
                add(&mut file, token, false);
            }
            files.push((name, file));
        }
    }
    let mut stripped = file(model(), byte_level(true));
    add(&mut stripped, "best", false);
    stripped["added_tokens"][0]["rstrip"] = true.into();
    files.push(("stripped", stripped));
    files
}

#[test]
fn a_long_text_has_the_ids_of_the_whole() {
    let texts = [
        "one of the best and ".repeat(20_000),
        "one of the best\nand the best\n\nthe 1234567 ".repeat(8_000),
        format!(
            "  {}e\u{301}  ",
            "one of the best, 语言。模型e\u{301}é1\nthe 'll ".repeat(8_000)
        ),
    ];
    for (name, tokenizer, reference) in PAIRS.iter() {
        for text in &texts {
            let expected = ids(reference, text);
            assert!(
                tokenizer.encode(text).unwrap() == expected,
                "{name}: {:.20}",
                text
            );
        }
    }
}

proptest! {
    #[test]
    fn any_text_has_the_ids_of_the_reference(
        parts in proptest::collection::vec(
            prop_oneof![any::<String>(), "[a-z ]{0,9}", "\\s{0,5}", "(one of the best|'ll|\r\n|语言。|1234|e\u{301})"],
            0..8,
        )
    ) {
        let text = parts.concat();
        for (name, tokenizer, reference) in PAIRS.iter() {
            prop_assert_eq!(tokenizer.encode(&text).unwrap(), ids(reference, &text), "{}", name);
        }
    }
}

#[test]
fn the_end_of_a_document_never_comes_from_text() {
    let names = ["<|endoftext|>", "</s>", "<eos>"];
    for name in names {
        let text = format!("a{name}b {name}{name}\n{name}");
        let vocab_of = |words: &[&str]| model(words, &[]);
        let mut not_special = file(vocab_of(&["the"]), byte_level(true));
        add(&mut not_special, name, false);
        let mut normalized = not_special.clone();
        normalized["added_tokens"][0]["normalized"] = true.into();
        normalized["normalizer"] = json!({"type": "NFC"});
        // Merges that make the name one token, and a look-up of whole words that finds it.
        let merged = file(vocab_of(&[name]), byte_level(false));
        let mut looked_up = file(vocab_of(&["the"]), split(&regex_escape(name)));
        looked_up["pre_tokenizer"] =
            sequence(&[looked_up["pre_tokenizer"].clone(), byte_level(false)]);
        let id = looked_up["model"]["vocab"].as_object().unwrap().len();
        looked_up["model"]["vocab"][name] = id.into();
        looked_up["model"]["ignore_merges"] = true.into();
        for (case, file) in [
            ("not special", not_special),
            ("normalized", normalized),
            ("merged", merged),
            ("looked up", looked_up),
        ] {
            let tokenizer = load(&file);
            let eod = tokenizer.eod().unwrap();
            let (ids, losses) = tokenizer.encode_counted(&text).unwrap();
            assert!(!ids.contains(&eod), "{name} {case}: {ids:?}");
            assert_eq!(tokenizer.decode(&ids), text, "{name} {case}");
            assert_eq!(losses, Losses::default(), "{name} {case}");
            assert_eq!(tokenizer.decode(&[eod]), "", "{name} {case}");
        }
    }
}

fn regex_escape(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn an_unknown_character_is_not_the_end_of_a_document() {
    let mut file = file(model(&["the"], b"x"), byte_level(true));
    add(&mut file, "<|endoftext|>", true);
    let id = file["added_tokens"][0]["id"].clone();
    file["model"]["vocab"]["<|endoftext|>"] = id.clone();
    file["model"]["unk_token"] = "<|endoftext|>".into();
    let tokenizer = load(&file);
    assert_eq!(tokenizer.eod().map(u64::from), id.as_u64());
    let (ids, losses) = tokenizer.encode_counted("the xx axe").unwrap();
    assert_eq!(tokenizer.decode(&ids), "the  ae");
    assert_eq!(
        losses,
        Losses {
            dropped: 3,
            unknown: 0
        }
    );
}

#[test]
fn what_is_lost_is_counted_in_characters() {
    // Neither byte of "í", and the second of "ñ" and "é" among others.
    let lost = model(&["the"], &[0xad, 0xb1]);
    let text = "the mañana, íñ";
    let cases: [(&str, Value, Losses); 6] = [
        (
            "bytes",
            file(lost.clone(), byte_level(true)),
            Losses {
                dropped: 3,
                unknown: 0,
            },
        ),
        (
            "removed",
            file(
                model(&["the"], &[]),
                json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Removed", "invert": false},
                byte_level(true)]}),
            ),
            Losses {
                dropped: 3,
                unknown: 0,
            },
        ),
        (
            "white space",
            file(
                model(&["the"], &[]),
                sequence(&[json!({"type": "WhitespaceSplit"}), byte_level(false)]),
            ),
            Losses {
                dropped: 2,
                unknown: 0,
            },
        ),
        (
            "accents",
            {
                let mut file = file(model(&["the"], &[]), byte_level(true));
                file["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]});
                file
            },
            Losses {
                dropped: 3,
                unknown: 0,
            },
        ),
        (
            "replaced by nothing",
            {
                let mut file = file(model(&["the"], &[]), byte_level(true));
                file["normalizer"] =
                    json!({"type": "Replace", "pattern": {"String": "ñ"}, "content": ""});
                file
            },
            Losses {
                dropped: 2,
                unknown: 0,
            },
        ),
        (
            "unknown",
            {
                let mut file = file(lost, byte_level(true));
                let id = file["model"]["vocab"].as_object().unwrap().len();
                file["model"]["vocab"]["<unk>"] = id.into();
                file["model"]["unk_token"] = "<unk>".into();
                file
            },
            Losses {
                dropped: 0,
                unknown: 3,
            },
        ),
    ];
    for (case, file, expected) in cases {
        let tokenizer = load(&file);
        let (got, losses) = tokenizer.encode_counted(text).unwrap();
        assert_eq!(losses, expected, "{case}");
        assert_eq!(got, ids(&reference(&file), text), "{case}");
    }
    // A normal form joins characters and loses none.
    let mut nfc = file(
        model(&["the"], &[]),
        sequence(&[split(LLAMA3), byte_level(false)]),
    );
    nfc["normalizer"] = json!({"type": "NFC"});
    let (_, losses) = load(&nfc).encode_counted("man\u{303}ana e\u{301}").unwrap();
    assert_eq!(losses, Losses::default());
}

#[test]
fn an_expression_that_gives_up_is_an_error() {
    // More white space than the library goes back over.
    let text = format!("the{}the the", " ".repeat(1_100_000));
    let llama = file(
        model(&["the"], &[]),
        sequence(&[split(LLAMA3), byte_level(false)]),
    );
    let mut replace = file(model(&["the"], &[]), byte_level(true));
    replace["normalizer"] =
        json!({"type": "Replace", "pattern": {"Regex": r"\s+(?!\S)"}, "content": " "});
    for file in [llama, replace] {
        let error = load(&file).encode(&text).unwrap_err();
        assert!(
            matches!(&error, Error::Encode { reason, .. } if reason.contains("gave up")),
            "{error}"
        );
    }
    // Where the words can be found without an expression, they are.
    let mut usual = file(model(&["the"], &[]), byte_level(true));
    let expected = load(&usual).encode(&text).unwrap();
    usual["normalizer"] = json!({"type": "Lowercase"});
    assert!(load(&usual).encode(&text).unwrap() == expected);
}

/// A tokenizer in the style of Llama 2: a space before each text, spaces as "▁", unknown characters as bytes.
fn llama2() -> Value {
    let mut vocab = serde_json::Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.into(), vocab.len().into());
    }
    for byte in 0..=255 {
        vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
    }
    for token in ["▁", "t", "h", "e", "O", "n", "c", "▁t", "▁th", "▁the"] {
        vocab.insert(token.into(), vocab.len().into());
    }
    let special = |id, content| added(id, content, true);
    json!({
        "version": "1.0",
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab, "merges": ["▁ t", "▁t h", "▁th e"]},
    })
}

#[test]
fn a_continuation_keeps_the_space_of_its_first_word() {
    let mut metaspace = llama2();
    metaspace["normalizer"] = Value::Null;
    metaspace["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    metaspace["decoder"] = json!({"type": "Sequence", "decoders":
        [{"type": "ByteFallback"}, metaspace["pre_tokenizer"].clone()]});
    for file in [llama2(), metaspace] {
        let tokenizer = load(&file);
        let reference: tokenizers::Tokenizer = serde_json::from_value(file.clone()).unwrap();
        let the = reference.token_to_id("▁the").unwrap();
        let byte = |byte: u8| reference.token_to_id(&format!("<0x{byte:02X}>")).unwrap();
        let new = [the, byte(0xe8), byte(0xaa), byte(0x9e), the];
        for prompt in ["Once", "Once 語", "the the", ""] {
            let mut ids = tokenizer.encode(prompt).unwrap();
            if ids.is_empty() {
                ids.push(2);
            }
            let mut stream = tokenizer.decode_stream_after(&ids);
            let mut text: String = new.iter().map(|&id| stream.push(id)).collect();
            text.push_str(&stream.finish());
            let whole = reference.decode(&[&ids[..], &new].concat(), true).unwrap();
            assert_eq!(format!("{prompt}{text}"), whole, "{prompt}");
        }
        // Where a text begins, there is no space to keep.
        let mut stream = tokenizer.decode_stream();
        assert_eq!(stream.push(the), "the");
    }
    let bytes = Tokenizer::bytes();
    let mut stream = bytes.decode_stream_after(&[0xc3]);
    assert_eq!(stream.push(b'a'.into()), "a");
}

#[test]
fn tokens_without_text_do_not_end_a_character() {
    let file = llama2();
    let tokenizer = load(&file);
    let reference: tokenizers::Tokenizer = serde_json::from_value(file).unwrap();
    let byte = |byte: u8| reference.token_to_id(&format!("<0x{byte:02X}>")).unwrap();
    let the = reference.token_to_id("▁the").unwrap();
    // Special tokens, and ids that the tokenizer does not have.
    for silent in [1, 2, 1_000_000] {
        for count in [1, 3, 9] {
            let silent = vec![silent; count];
            for at in 0..=3 {
                let mut ids = vec![the, byte(0xe8), byte(0xaa), byte(0x9e), the];
                ids.splice(at..at, silent.iter().copied());
                let mut stream = tokenizer.decode_stream();
                let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
                text.push_str(&stream.finish());
                assert_eq!(text, "the語 the", "{ids:?}");
                assert_eq!(tokenizer.decode(&ids), text);
            }
        }
    }
    // A space that the decoder strips is no part of a character either.
    let space = reference.token_to_id("▁").unwrap();
    let ids = [space, byte(0xf0), byte(0x9f), byte(0x98), byte(0x80)];
    let mut stream = tokenizer.decode_stream();
    let text: String = ids.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(text, "😀");
}
