//! Splits text into words as byte-level encodings do.

use std::sync::LazyLock;

use super::classes::{Class, class, table};

/// Calls `visit` with the words of `text`, whose concatenation is the text.
///
/// GPT-2 splits a text by a regular expression (Radford et al., 2019), and so do `ByteLevel` pre-tokenizers; the first
/// alternative that matches is used:
///
/// ```text
/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
/// ```
///
/// This function does the same in one pass without backtracking.
pub(super) fn each<'a>(text: &'a str, mut visit: impl FnMut(&'a str)) {
    let table = table();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (word, tail) = rest.split_at(word_bytes(rest, first, table));
        visit(word);
        rest = tail;
    }
}

/// Length of the word at the start of `text`, which begins with `first`.
fn word_bytes(text: &str, first: char, table: &[u8]) -> usize {
    if first == '\''
        && let Some(bytes) = contraction_bytes(text.as_bytes())
    {
        return bytes;
    }
    let second = match first {
        ' ' => text[1..].chars().next(),
        _ => None,
    };
    // A space belongs to the word after it.
    let (start, kind) = match second.map(|c| class(c, table)) {
        None | Some(Class::Space) => (0, class(first, table)),
        Some(kind) => (1, kind),
    };
    let run = text[start..]
        .char_indices()
        .find(|&(_, c)| class(c, table) != kind);
    let end = run.map_or(text.len(), |(at, _)| start + at);
    if kind != Class::Space || end == text.len() {
        return end;
    }
    // The last of several white-space characters belongs to the word after them.
    match text[..end].char_indices().next_back() {
        Some((last, _)) if last > 0 => last,
        _ => end,
    }
}

/// Length of an English contraction at the start of a text that begins with an apostrophe.
fn contraction_bytes(text: &[u8]) -> Option<usize> {
    match text {
        [_, b's' | b't' | b'm' | b'd', ..] => Some(2),
        [_, b'r' | b'v', b'e', ..] | [_, b'l', b'l', ..] => Some(3),
        _ => None,
    }
}

/// The character that represents each byte: printable Latin-1 characters represent themselves, the others start at
/// U+0100, in order.
pub(super) static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                // 68 bytes are not printable characters.
                let c = char::from_u32(next).expect("U+0100 to U+0143 are characters");
                next += 1;
                c
            }
        }
    })
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::utils::SysRegex;

    use super::*;

    static WORD: LazyLock<SysRegex> = LazyLock::new(|| {
        SysRegex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
            .unwrap()
    });

    fn same_as_the_expression(text: &str) {
        let mut words = Vec::new();
        each(text, |word| words.push(word));
        let expected: Vec<&str> = WORD
            .find_iter(text)
            .map(|(start, end)| &text[start..end])
            .collect();
        assert_eq!(words, expected, "{text:?}");
    }

    #[test]
    fn every_character_has_the_class_of_the_expression() {
        // Between letters a character either joins them, is a word alone, or includes a space: all classes differ.
        let mut text = String::new();
        for c in '\0'..=char::MAX {
            text.extend(['a', c, 'a', ' ', c, '1']);
            if text.len() > 1 << 16 {
                same_as_the_expression(&text);
                text.clear();
            }
        }
        same_as_the_expression(&text);
    }

    #[test]
    fn short_texts_of_telling_characters_part_the_same() {
        const LETTERS: [char; 13] = [
            ' ', '\n', '\u{a0}', '\'', 's', 'l', 'r', 'e', 'V', '7', '-', 'é', '\u{301}',
        ];
        fn extend(text: &mut String, more: usize) {
            same_as_the_expression(text);
            if more > 0 {
                for c in LETTERS {
                    text.push(c);
                    extend(text, more - 1);
                    text.pop();
                }
            }
        }
        extend(&mut String::new(), 4);
    }

    proptest! {
        #[test]
        fn any_text_parts_the_same(text in r"(\PC|[ \n\t'a-z0-9\u{2000}-\u{2030}]){0,60}") {
            same_as_the_expression(&text);
        }
    }
}
