//! Encodings that are applied here, held against the tokenizers and tiktoken crates.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenformer_data::{Tokenizer, TokenizerSpec};
use tokenizers::Tokenizer as HfTokenizer;

/// An encoding here and in the tokenizers crate.
struct Both {
    ours: Tokenizer,
    theirs: HfTokenizer,
}

impl Both {
    fn new(json: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        let mut theirs = HfTokenizer::from_file(&path).unwrap();
        theirs.set_encode_special_tokens(true);
        let ours = Tokenizer::from_file(&path).unwrap();
        Self { ours, theirs }
    }

    fn check(&self, text: &str) {
        let theirs = self.theirs.encode_fast(text, false).unwrap();
        assert_eq!(
            self.ours.encode(text).unwrap(),
            theirs.get_ids(),
            "{text:?}"
        );
    }
}

static GPT2: LazyLock<Both> =
    LazyLock::new(|| Both::new(&serde_json::from_slice(Tokenizer::gpt2().json()).unwrap()));

/// As GPT-NeoX has it: text in normal form, and runs of 2 to 24 spaces as tokens.
static NEOX: LazyLock<Both> = LazyLock::new(|| {
    let mut json: Value = serde_json::from_slice(Tokenizer::gpt2().json()).unwrap();
    json["normalizer"] = json!({"type": "NFC"});
    let added = json["added_tokens"].as_array_mut().unwrap();
    for (id, length) in (50257..).zip((2..=24).rev()) {
        added.push(json!({
            "id": id, "content": " ".repeat(length), "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": false,
        }));
    }
    Both::new(&json)
});

fn check(text: &str) {
    GPT2.check(text);
    NEOX.check(text);
}

#[test]
fn gpt2_gives_the_known_ids() {
    let tokenizer = Tokenizer::gpt2();
    let known: [(&str, &[u32]); 6] = [
        ("Hello world", &[15496, 995]),
        ("Hello, world!", &[15496, 11, 995, 0]),
        (" ", &[220]),
        ("\n", &[198]),
        ("\n\n", &[628]),
        // As text the name of the special token is no special token.
        ("<|endoftext|>", &[27, 91, 437, 1659, 5239, 91, 29]),
    ];
    for (text, ids) in known {
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids), text);
    }
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.eod()),
        (50257, Some(50256))
    );
    assert_eq!(tokenizer.decode(&[15496, 50256, 995]), "Hello world");
    let spec: TokenizerSpec = "gpt2".parse().unwrap();
    assert_eq!(spec.to_string(), "gpt2");
    let named = Tokenizer::from_spec(&spec).unwrap().unwrap();
    assert_eq!(named.fingerprint(), tokenizer.fingerprint());
}

#[test]
fn every_token_of_gpt2_is_made_by_its_merges() {
    let tokenizer = Tokenizer::gpt2();
    let tiktoken = tiktoken_rs::r50k_base().unwrap();
    let mut whole = 0;
    for id in 0..50256 {
        let bytes = tiktoken.decode_bytes(&[id]).unwrap();
        let Ok(text) = String::from_utf8(bytes) else {
            // Half a character, which decodes to a sign of it.
            assert!(tokenizer.decode(&[id]).contains('\u{fffd}'), "{id}");
            continue;
        };
        assert_eq!(tokenizer.decode(&[id]), text);
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(ids, tiktoken.encode_ordinary(&text), "{text:?}");
        whole += usize::from(ids == [id]);
    }
    // Few tokens are joined by merges and parted by words, such as some of white space.
    assert!(whole > 49_500, "{whole}");
}

#[test]
fn nasty_texts_encode_as_in_the_tokenizers_crate() {
    let long = |part: &str, times: usize| part.repeat(times);
    let texts = [
        String::new(),
        " ".into(),
        "  ".into(),
        "a  b   c    d".into(),
        long(" ", 23),
        long(" ", 24),
        long(" ", 25),
        long(" ", 26),
        long(" ", 49),
        format!("x{}y", long(" ", 75)),
        " \n \t  \r\n\u{a0}\u{3000} \u{85}x".into(),
        "<|endoftext|> a<|endoftext|>  <|padding|>".into(),
        "it's I'LL we've don't 's 'sa ''s '".into(),
        "e\u{301} \u{301}e\u{323}\u{301} \u{1100}\u{1161}\u{11a8} \u{f900} \u{2126}".into(),
        "q\u{307}\u{323}  q\u{323}\u{307}".into(),
        "語彙を育てる。한국어 مرحبا नमस्ते 👩‍👩‍👧‍👦🇨🇭".into(),
        "١٢٣ ½ ⅷ 一 ²".into(),
        "\0\u{1}\u{7f}\u{fffd}\u{feff}\u{10ffff}".into(),
        "fn main() {\n        println!(\"{}\", 1_000);\n    }\n\n\n".into(),
        long("a", 10_000),
        long("aab", 3_000),
        long("antidisestablishmentarianism", 60),
        long("-=", 500),
        long("中文", 300),
        long("\u{301}", 100),
        long("word ", 100_000),
    ];
    for text in &texts {
        check(text);
    }
    check(&texts.concat());
}

fn nasty() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just(" ".to_owned()),
        " {2,50}",
        "[a-z]{1,12}",
        "[ \n\t]{1,4}",
        "'(s|t|re|ve|m|ll|d|x)",
        "[0-9]{1,6}",
        r"\PC{1,6}",
        "[\u{300}-\u{340}\u{e0}-\u{ff}\u{1100}-\u{11ff}]{1,5}",
        any::<char>().prop_map(String::from),
        Just("<|endoftext|>".to_owned()),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn random_texts_encode_as_in_the_tokenizers_crate(text in nasty()) {
        check(&text);
    }

    #[test]
    fn random_texts_encode_as_in_tiktoken(text in nasty()) {
        static TIKTOKEN: LazyLock<tiktoken_rs::CoreBPE> =
            LazyLock::new(|| tiktoken_rs::r50k_base().unwrap());
        prop_assert_eq!(GPT2.ours.encode(&text).unwrap(), TIKTOKEN.encode_ordinary(&text));
    }
}

/// Set `TOKENFORMER_TOKENIZER` to a byte-level `tokenizer.json` and `TOKENFORMER_TEXT` to a text.
#[test]
#[ignore = "needs files from outside"]
fn a_given_text_and_random_ones_encode_as_in_the_tokenizers_crate() {
    let file = |name| std::fs::read_to_string(std::env::var(name).unwrap()).unwrap();
    let both = Both::new(&serde_json::from_str(&file("TOKENFORMER_TOKENIZER")).unwrap());
    let text = file("TOKENFORMER_TEXT");
    for part in text.split_inclusive("\n\n") {
        both.check(part);
    }
    proptest!(|(text in nasty())| both.check(&text));
}
