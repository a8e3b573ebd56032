//! Decoding token by token.

use proptest::prelude::*;
use tokenformer_data::Tokenizer;

fn tokenizers() -> [Tokenizer; 2] {
    let texts = ["naïve 語彙 😀😀 ok ok ok".to_owned()];
    [
        Tokenizer::bytes(),
        Tokenizer::train_bpe(texts, 262, |_, _| {}).unwrap(),
    ]
}

#[test]
fn characters_appear_with_their_last_byte() {
    let tokenizer = Tokenizer::bytes();
    let mut stream = tokenizer.decode_stream();
    let mut push = |byte: u8| stream.push(byte.into());
    assert_eq!(push(b'a'), "a");
    let chunks = "😀".bytes().map(&mut push).collect::<Vec<_>>();
    assert_eq!(chunks, ["", "", "", "😀"]);
    // A broken start shows as soon as the next byte proves it broken.
    assert_eq!(push(0xf0), "");
    assert_eq!(push(0x9f), "");
    assert_eq!(push(b'x'), "\u{fffd}x");
    assert_eq!(push(0xff), "\u{fffd}");
    assert_eq!(push(0xe8), "");
    assert_eq!(stream.push(256), "");
    assert_eq!(stream.finish(), "\u{fffd}");
}

proptest! {
    #[test]
    fn a_stream_gives_the_text_of_all_ids(ids in proptest::collection::vec(0_u32..270, 0..60)) {
        for tokenizer in tokenizers() {
            let mut stream = tokenizer.decode_stream();
            let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
            text.push_str(&stream.finish());
            prop_assert_eq!(text, tokenizer.decode(&ids));
        }
    }

    #[test]
    fn no_part_of_a_character_is_ever_shown(text in any::<String>()) {
        for tokenizer in tokenizers() {
            let mut stream = tokenizer.decode_stream();
            let mut shown = String::new();
            for id in tokenizer.encode(&text).unwrap() {
                shown.push_str(&stream.push(id));
                prop_assert!(text.starts_with(&shown));
            }
            prop_assert_eq!(&shown, &text);
            prop_assert_eq!(stream.finish(), "");
        }
    }

    #[test]
    fn invalid_bytes_decode_like_the_standard_library(bytes in any::<Vec<u8>>()) {
        let ids: Vec<u32> = bytes.iter().map(|&byte| byte.into()).collect();
        let lossy = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert_eq!(Tokenizer::bytes().decode(&ids), lossy);
    }
}
