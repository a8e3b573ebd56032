//! The byte counts of tokens add up to the bytes of the text.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenformer_data::{ByteCounts, Tokenizer};

const TEXTS: [&str; 7] = [
    "low lower lowest",
    "ab ab a",
    "naïve é 語 😀",
    " begins with a space",
    "ends with one ",
    "\n\tline\n\n  indented   far\r\n",
    "x",
];

fn load(json: &Value) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    Tokenizer::from_file(&path).unwrap()
}

fn trained() -> Tokenizer {
    let text = TEXTS.join(" ").repeat(20);
    Tokenizer::train_bpe([text], 400, |_, _| {}).unwrap()
}

/// Spaces as "▁", characters without a token as bytes; `normalizer` and `pre_tokenizer` are what writes the spaces.
fn metaspace(normalizer: Value, pre_tokenizer: Value) -> Value {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["▁", "a", "b", "é", "ab", "▁ab", "▁▁"].map(str::to_owned));
    let vocab: serde_json::Map<String, Value> = (0..)
        .zip(tokens)
        .map(|(id, token): (u32, _)| (token, id.into()))
        .collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab, "merges": ["a b", "▁ ab", "▁ ▁"]},
    })
}

fn prepend_and_replace() -> Value {
    json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})
}

/// Documents one after the other, each with its end; the first end is only context.
fn check(tokenizer: &Tokenizer, texts: &[&str]) {
    let counts = ByteCounts::new(tokenizer).expect("a tokenizer whose tokens have bytes");
    let eod = tokenizer.eod().unwrap();
    let mut all = vec![eod];
    for text in texts {
        let start = all.len();
        all.extend(tokenizer.encode(text).unwrap());
        all.push(eod);
        let part = counts.sum(&all[start - 1..all.len() - 1], &all[start..]);
        assert_eq!(part, text.len() as u64, "{text:?}: {:?}", &all[start..]);
    }
    let sum = texts.iter().map(|text| text.len() as u64).sum::<u64>();
    assert_eq!(counts.sum(&all[..all.len() - 1], &all[1..]), sum);
}

#[test]
fn tokens_add_up_to_their_text() {
    check(&Tokenizer::bytes(), &TEXTS);
    check(&Tokenizer::gpt2(), &TEXTS);
    check(&trained(), &TEXTS);
    // As in GPT-NeoX: normalised to NFC, and runs of spaces are added tokens.
    let mut neox: Value = serde_json::from_slice(trained().json()).unwrap();
    neox["normalizer"] = json!({"type": "NFC"});
    let next = neox["model"]["vocab"].as_object().unwrap().len();
    for (id, spaces) in (next..).zip([2, 3]) {
        let token = json!({"id": id, "content": " ".repeat(spaces), "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": true, "special": false});
        neox["added_tokens"].as_array_mut().unwrap().push(token);
    }
    let neox = load(&neox);
    check(&neox, &TEXTS);
    // A letter and an accent that become one character: the text counts as the tokens spell it.
    let counts = ByteCounts::new(&neox).unwrap();
    let tokens = neox.encode("xe\u{301}").unwrap();
    let bytes = counts.sum(&tokens[..tokens.len() - 1], &tokens[1..]);
    assert_eq!(bytes, "é".len() as u64);
}

#[test]
fn a_space_put_in_front_of_a_document_is_not_its_text() {
    check(
        &load(&metaspace(prepend_and_replace(), Value::Null)),
        &TEXTS,
    );
    let plain = ["ab ab", "é 語 b", "\nb", "a  b"];
    for scheme in ["always", "first"] {
        let metaspace = metaspace(
            Value::Null,
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true}),
        );
        check(&load(&metaspace), &plain);
    }
    let mut byte_level: Value = serde_json::from_slice(trained().json()).unwrap();
    byte_level["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": true,
        "trim_offsets": true, "use_regex": true});
    check(&load(&byte_level), &plain);
}

#[test]
fn spaces_that_are_only_written_otherwise_all_count() {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let split = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
        "invert": false});
    check(&load(&metaspace(replace, split)), &TEXTS);
    let never =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true});
    check(&load(&metaspace(Value::Null, never)), &TEXTS);
}

/// The bytes of the tokens of a text, one after the other.
fn joined(tokenizer: &Tokenizer, text: &str) -> Vec<u8> {
    let ids = tokenizer.encode(text).unwrap();
    ids.iter()
        .flat_map(|&id| tokenizer.token_bytes(id))
        .collect()
}

#[test]
fn the_bytes_of_a_token_are_those_inside_a_text() {
    let llama = load(&metaspace(prepend_and_replace(), Value::Null));
    let at = |token: u32| llama.token_bytes(token);
    let first = 3 + 256;
    assert_eq!(at(first), b" ", "the mark");
    assert_eq!(at(first + 1), b"a");
    assert_eq!(at(first + 5), b" ab");
    assert_eq!(at(first + 6), b"  ");
    for byte in 0..=255 {
        assert_eq!(at(3 + u32::from(byte)), [byte], "<0x{byte:02X}>");
    }
    for silent in [0, 1, 2, 1000] {
        assert_eq!(at(silent), b"", "{silent}");
    }
    for text in TEXTS {
        // The space in front of the text is the encoding's.
        assert_eq!(joined(&llama, text), format!(" {text}").as_bytes());
    }
    for text in TEXTS {
        assert_eq!(joined(&Tokenizer::gpt2(), text), text.as_bytes());
        assert_eq!(joined(&Tokenizer::bytes(), text), text.as_bytes());
    }
}

#[test]
fn the_bytes_of_a_token_follow_the_decoders_of_the_file() {
    let first = 3 + 256;
    let with = |decoder: Value| {
        let mut json = metaspace(prepend_and_replace(), Value::Null);
        json["decoder"] = decoder;
        load(&json)
    };
    let mark =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    let mark = with(mark);
    assert_eq!(mark.token_bytes(first + 5), b" ab");
    // These decoders write the name of a byte as it is.
    assert_eq!(mark.token_bytes(3 + 0xc3), b"<0xC3>");
    // Words with an end: it is a space before the next word.
    let ends = with(json!({"type": "BPEDecoder", "suffix": "b"}));
    assert_eq!(ends.token_bytes(first + 4), b"a ");
    // Byte-level tokens among other decoders; the mark is none.
    let bytes = with(json!({"type": "Sequence", "decoders": [{"type": "Fuse"},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]}));
    assert_eq!(bytes.token_bytes(first + 3), b"\xe9", "é");
    assert_eq!(bytes.token_bytes(first), "▁".as_bytes());
    // Without decoders, tokens are joined by spaces.
    assert_eq!(with(Value::Null).token_bytes(first + 4), b" ab");
}

#[test]
fn where_tokens_do_not_tell_their_bytes_there_are_no_counts() {
    type Change = fn(&mut Value);
    let byte_level: [(&str, Change); 5] = [
        ("lower case", |json| {
            json["normalizer"] = json!({"type": "Lowercase"})
        }),
        ("white space is dropped", |json| {
            json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false,
                    "trim_offsets": true}]});
        }),
        ("what a split finds is dropped", |json| {
            json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"String": "-"}, "behavior": "Removed", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true,
                    "trim_offsets": true}]});
        }),
        ("words have an end", |json| {
            json["model"]["end_of_word_suffix"] = "</w>".into()
        }),
        ("a token takes in spaces", |json| {
            let next = json["model"]["vocab"].as_object().unwrap().len();
            json["added_tokens"]
                .as_array_mut()
                .unwrap()
                .push(json!({"id": next, "content": "@@",
                "single_word": false, "lstrip": true, "rstrip": false, "normalized": false,
                "special": false}));
        }),
    ];
    let good: Value = serde_json::from_slice(trained().json()).unwrap();
    for (name, change) in byte_level {
        let mut json = good.clone();
        change(&mut json);
        assert_eq!(ByteCounts::new(&load(&json)), None, "{name}");
    }
    let characters: [(&str, Change); 3] = [
        ("unknown characters", |json| {
            json["model"]["byte_fallback"] = false.into()
        }),
        (
            "no end of documents behind which a space was added",
            |json| {
                json["added_tokens"][2]["content"] = "<end>".into();
                let vocab = json["model"]["vocab"].as_object_mut().unwrap();
                vocab.remove("</s>");
                vocab.insert("<end>".into(), 2.into());
            },
        ),
        ("another mark than the normaliser's", |json| {
            json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "_",
                "prepend_scheme": "never", "split": true});
        }),
    ];
    let good = metaspace(prepend_and_replace(), Value::Null);
    assert!(ByteCounts::new(&load(&good)).is_some());
    for (name, change) in characters {
        let mut json = good.clone();
        change(&mut json);
        assert_eq!(ByteCounts::new(&load(&json)), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_adds_up(texts in prop::collection::vec("[ab é▂語\n 0-9]{1,40}", 1..5)) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        check(&trained(), &texts);
        check(&load(&metaspace(prepend_and_replace(), Value::Null)), &texts);
    }
}
