//! Words as byte-level encodings see them.

use std::sync::LazyLock;

use tokenizers::utils::SysRegex;

/// How GPT-2 parts a text into words, the first pattern that fits counts (Radford et al., 2019);
/// `ByteLevel` pre-tokenizers do the same.
static WORD: LazyLock<SysRegex> = LazyLock::new(|| {
    SysRegex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
        .expect("a constant pattern, compiled in every test")
});

/// Calls `visit` with the words of `text`, which together are the whole text.
pub(super) fn each<'a>(text: &'a str, mut visit: impl FnMut(&'a str)) {
    let mut done = 0;
    for (start, end) in WORD.find_iter(text) {
        if start > done {
            visit(&text[done..start]);
        }
        visit(&text[start..end]);
        done = end;
    }
    // The search gives up on a word that is too long for it.
    if done < text.len() {
        visit(&text[done..]);
    }
}

/// The character that stands for each byte: printable Latin-1 characters for themselves, the others
/// from U+0100 on, in order.
pub(super) static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                let c = char::from_u32(next).expect("U+0100 to U+0143 are characters");
                next += 1;
                c
            }
        }
    })
});

/// A word in the characters that stand for its bytes.
pub(super) fn spell(word: &str, spelled: &mut String) {
    spelled.clear();
    spelled.extend(word.bytes().map(|byte| BYTE_CHARS[usize::from(byte)]));
}
