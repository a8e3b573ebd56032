//! The byte tokenizer and tokenizer specifications.

use proptest::prelude::*;
use tokenformer_data::{Error, Tokenizer, TokenizerSpec};

proptest! {
    #[test]
    fn text_survives_a_round_trip(text in any::<String>()) {
        let tokenizer = Tokenizer::bytes();
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert!(ids.iter().all(|&id| id < 256));
        prop_assert_eq!(tokenizer.decode(&ids), text);
    }
}

#[test]
fn the_byte_tokenizer_is_saved_as_a_small_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let tokenizer = Tokenizer::bytes();
    tokenizer.save(&path).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "{\"version\":1,\"type\":\"bytes\"}\n"
    );
    let again = Tokenizer::from_file(&path).unwrap();
    assert_eq!(
        (again.name(), again.vocab_size(), again.eod()),
        ("bytes".into(), 257, Some(256))
    );
    assert_eq!(again.fingerprint(), tokenizer.fingerprint());
    assert_eq!(
        again.describe(),
        "bytes of UTF-8, 257 tokens, end of document = 256"
    );

    std::fs::write(&path, "{\"version\":2,\"type\":\"bytes\"}").unwrap();
    let error = Tokenizer::from_file(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("version 2 of the byte tokenizer is unknown"),
        "{error}"
    );
}

#[test]
fn specifications_parse_and_print() {
    for spec in ["bytes", "bpe:257", "bpe:4096", "some/file.json"] {
        assert_eq!(Tokenizer::parse_spec(spec).unwrap().to_string(), spec);
    }
    assert_eq!(
        Tokenizer::parse_spec("x.json").unwrap(),
        TokenizerSpec::File("x.json".into())
    );
    for spec in [
        "",
        "byte",
        "bpe",
        "bpe:",
        "bpe:-1",
        "bpe:256",
        "bpe:1048577",
        "bpe:4k",
        "file.txt",
    ] {
        let error = Tokenizer::parse_spec(spec).unwrap_err();
        assert!(matches!(error, Error::TokenizerSpec { .. }), "{error}");
    }
}
