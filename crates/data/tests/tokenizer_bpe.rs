//! Byte-pair encodings: learning, encoding, decoding, files.

mod common;

use common::write;
use proptest::prelude::*;
use std::sync::LazyLock;
use tokenformer_data::{Error, Tokenizer};

/// Text in several scripts with the repetitions that merges live on.
fn sample() -> Vec<String> {
    let words =
        "the token former grows größer, 語彙を x = 42;\n if don't parameter attention keys \
                 and values are learned like weights, while queries come from text "
            .split_inclusive(' ')
            .collect::<Vec<_>>();
    (0..400_usize)
        .map(|n| {
            (0..20)
                .map(|k| words[(n * k + n / 3 + k * k) % words.len()])
                .collect()
        })
        .collect()
}

fn train(vocab_size: usize) -> Tokenizer {
    Tokenizer::train_bpe(sample(), vocab_size, |_, _| {}).unwrap()
}

static TRAINED: LazyLock<Tokenizer> = LazyLock::new(|| train(320));

fn load(json: &serde_json::Value) -> Result<Tokenizer, Error> {
    let dir = tempfile::tempdir().unwrap();
    Tokenizer::from_file(&write(dir.path(), "tokenizer.json", json.to_string()))
}

fn json_of(tokenizer: &Tokenizer) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
}

#[test]
fn learning_takes_the_most_frequent_pair_first() {
    // "ab" 6 times, then "abc" 4 times; ties and pairs seen once are not needed.
    let texts = ["ab ab abc abc abc abc".to_owned()];
    let tokenizer = Tokenizer::train_bpe(texts, 260, |_, _| {}).unwrap();
    let json = json_of(&tokenizer);
    // Pairs with the same count: the smaller ids first, and "Ġ", the space, comes after "a" and "b".
    assert_eq!(
        json["model"]["merges"],
        serde_json::json!([["a", "b"], ["Ġ", "ab"], ["Ġab", "c"]])
    );
    assert_eq!(tokenizer.encode("ab abc").unwrap(), [257, 259]);
    assert_eq!(tokenizer.eod(), Some(0));
}

#[test]
fn the_same_text_gives_the_same_tokenizer_on_any_number_of_threads() {
    let fingerprints: Vec<_> = [1, 2, 5]
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| train(300).fingerprint())
        })
        .into();
    assert_eq!(fingerprints[0], fingerprints[1]);
    assert_eq!(fingerprints[0], fingerprints[2]);
    assert_ne!(fingerprints[0], train(301).fingerprint());
}

#[test]
fn a_short_text_gives_a_smaller_vocabulary() {
    let tokenizer = Tokenizer::train_bpe(["xyxyxy".to_owned()], 4096, |_, _| {}).unwrap();
    assert!(
        (258..=260).contains(&tokenizer.vocab_size()),
        "{}",
        tokenizer.vocab_size()
    );
    let tokenizer = Tokenizer::train_bpe([], 4096, |_, _| {}).unwrap();
    assert_eq!(tokenizer.vocab_size(), 257);
    assert_eq!(tokenizer.decode(&tokenizer.encode("aé").unwrap()), "aé");
}

#[test]
fn learning_reports_progress_and_refuses_odd_sizes() {
    let mut calls = Vec::new();
    Tokenizer::train_bpe(sample(), 330, |done, wanted| calls.push((done, wanted))).unwrap();
    assert_eq!(calls, [(64, 73), (73, 73)]);
    for size in [0, 256, (1 << 20) + 1] {
        let error = Tokenizer::train_bpe(sample(), size, |_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
    }
}

#[test]
fn saving_and_loading_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["a.json", "b.json"].map(|name| dir.path().join(name));
    TRAINED.save(&first).unwrap();
    let loaded = Tokenizer::from_file(&first).unwrap();
    loaded.save(&second).unwrap();
    assert_eq!(
        std::fs::read(&first).unwrap(),
        std::fs::read(&second).unwrap()
    );
    assert_eq!(loaded.fingerprint(), TRAINED.fingerprint());
    assert_eq!(loaded.name(), "bpe-320");
    let text = &sample()[7];
    assert_eq!(loaded.encode(text).unwrap(), TRAINED.encode(text).unwrap());
    assert!(TRAINED.encode(text).unwrap().len() < text.len() / 2);
}

#[test]
fn text_never_becomes_the_end_of_a_document() {
    let text = "a<|endoftext|>b";
    let ids = TRAINED.encode(text).unwrap();
    assert!(!ids.contains(&0));
    assert_eq!(TRAINED.decode(&ids), text);
    assert_eq!(TRAINED.decode(&[&[0], &ids[..], &[0, 9999]].concat()), text);
}

#[test]
fn long_texts_are_encoded_in_pieces_as_if_whole() {
    let text: String = sample().concat().repeat(40);
    assert!(text.len() > 1 << 20);
    let whole = hugging_face(&json_of(&TRAINED))
        .encode_fast(text.as_str(), false)
        .unwrap();
    assert_eq!(TRAINED.encode(&text).unwrap(), whole.get_ids());
}

fn hugging_face(json: &serde_json::Value) -> tokenizers::Tokenizer {
    serde_json::from_value(json.clone()).unwrap()
}

static REFERENCE: LazyLock<tokenizers::Tokenizer> =
    LazyLock::new(|| hugging_face(&json_of(&TRAINED)));

proptest! {
    #[test]
    fn any_text_survives_a_round_trip_and_encodes_like_the_reference(
        parts in proptest::collection::vec(
            prop_oneof![any::<String>(), "[a-z ]{0,9}", "\\s{0,5}", "('s|'ll|\r\n|  x|語彙|1234|!?)"],
            0..8,
        )
    ) {
        let text = parts.concat();
        let ids = TRAINED.encode(&text).unwrap();
        prop_assert_eq!(TRAINED.decode(&ids), text.as_str());
        // Special tokens in a text are the one difference, and random text has none.
        let reference = REFERENCE.encode_fast(text.as_str(), false).unwrap();
        prop_assert_eq!(ids, reference.get_ids());
    }
}

/// A tokenizer in the style of SentencePiece: spaces as "▁", unknown characters as bytes.
fn metaspace() -> serde_json::Value {
    let mut vocab = serde_json::Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.into(), vocab.len().into());
    }
    for byte in 0..=255 {
        vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
    }
    for token in ["▁", "a", "b", "ab", "▁ab"] {
        vocab.insert(token.into(), vocab.len().into());
    }
    let special = |id: u32, content: &str| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    serde_json::json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 4_000_000_000_u64}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": 0.5, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "vocab": vocab, "merges": ["a b", "▁ ab"]},
    })
}

#[test]
fn other_styles_of_encoding_work_and_ignore_padding_truncation_and_dropout() {
    let tokenizer = load(&metaspace()).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.eod()), (264, Some(2)));
    for _ in 0..20 {
        assert_eq!(tokenizer.encode("ab ab").unwrap(), [263, 263]);
    }
    let text = "ab é ab 語 a";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids), text);
    let mut stream = tokenizer.decode_stream();
    let chunks: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    assert!(
        chunks.iter().all(|chunk| !chunk.contains('\u{fffd}')),
        "{chunks:?}"
    );
    assert_eq!(chunks.concat() + &stream.finish(), text);
}

#[test]
fn hostile_files_are_refused() {
    let good = json_of(&TRAINED);
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 24] = [
        ("not an object", |json| *json = 7.into()),
        ("no model", |json| json["model"] = serde_json::Value::Null),
        ("another model", |json| {
            json["model"]["type"] = "Unigram".into()
        }),
        ("a model without a type", |json| {
            json["model"] = serde_json::json!({"vocab": {"a": 0}})
        }),
        ("an empty vocabulary", |json| {
            json["model"]["vocab"] = serde_json::json!({})
        }),
        ("an id twice", |json| json["model"]["vocab"]["a"] = 1.into()),
        ("a far id", |json| {
            json["model"]["vocab"]["a"] = 4_000_000_000_u64.into()
        }),
        ("a huge id", |json| {
            json["model"]["vocab"]["a"] = u64::MAX.into()
        }),
        ("a negative id", |json| {
            json["model"]["vocab"]["a"] = (-1).into()
        }),
        ("merges that are none", |json| {
            json["model"]["merges"] = "ab".into()
        }),
        ("a merge of three", |json| {
            json["model"]["merges"][0] = serde_json::json!(["a", "b", "c"])
        }),
        ("a merge of unknown tokens", |json| {
            json["model"]["merges"][0] = "a 語".into()
        }),
        ("a merge without a result", |json| {
            json["model"]["merges"][0] = serde_json::json!(["Ġformer", "Ġformer"]);
        }),
        ("a prefix", |json| {
            json["model"]["continuing_subword_prefix"] = "語語語語".into()
        }),
        ("an added token with a wrong id", |json| {
            json["added_tokens"][0]["id"] = 5.into()
        }),
        ("a regular expression that is none", |json| {
            json["pre_tokenizer"] = serde_json::json!({"type": "Split", "pattern": {"Regex": "("},
                "behavior": "Isolated", "invert": false});
        }),
        ("pieces of length zero", |json| {
            json["pre_tokenizer"] = serde_json::json!({"type": "FixedLength", "length": 0});
        }),
        ("text that explodes", |json| {
            let double =
                serde_json::json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
            json["normalizer"] =
                serde_json::json!({"type": "Sequence", "normalizers": vec![double; 40]});
        }),
        ("bytes that double as they are normalized", |json| {
            let double = serde_json::json!({"type": "ByteLevel"});
            json["normalizer"] =
                serde_json::json!({"type": "Sequence", "normalizers": vec![double; 40]});
        }),
        ("bytes that double as they are split", |json| {
            let double = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false,
                "trim_offsets": true, "use_regex": false});
            json["pre_tokenizer"] =
                serde_json::json!({"type": "Sequence", "pretokenizers": vec![double; 40]});
        }),
        ("many regular expressions", |json| {
            let split = serde_json::json!({"type": "Split", "pattern": {"Regex": "\\p{L}+"},
                "behavior": "Isolated", "invert": false});
            json["pre_tokenizer"] =
                serde_json::json!({"type": "Sequence", "pretokenizers": vec![split; 17]});
        }),
        ("a short regular expression for a large program", |json| {
            json["normalizer"] = serde_json::json!({"type": "Replace",
                "pattern": {"Regex": "((x{10}){9}){1,3}"}, "content": "x"});
        }),
        ("a number that no repetition has", |json| {
            json["normalizer"] = serde_json::json!({"type": "Replace",
                "pattern": {"Regex": format!("(x{{2,{}}}){{{}}}", usize::MAX, usize::MAX)},
                "content": "x"});
        }),
        ("binary tables", |json| {
            json["normalizer"] =
                serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
        }),
    ];
    for (name, change) in changes {
        let mut json = good.clone();
        change(&mut json);
        match load(&json) {
            Err(Error::TokenizerFile { location, .. }) => {
                assert!(location.ends_with("tokenizer.json"))
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_file_cut_short_is_refused_at_every_length() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::train_bpe(["aa".to_owned()], 258, |_, _| {}).unwrap();
    let path = dir.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err();
        assert!(
            matches!(error, Error::TokenizerFile { .. }),
            "{length}: {error}"
        );
    }
}

proptest! {
    #[test]
    fn a_damaged_file_never_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = metaspace().to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let path = write(dir.path(), "tokenizer.json", bytes);
        if let Ok(tokenizer) = Tokenizer::from_file(&path)
            && let Ok(ids) = tokenizer.encode("ab é\0")
        {
            prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            tokenizer.decode(&ids);
        }
    }
}
