//! Finds places at which a long text may be cut without changing its tokens.
//!
//! Pieces are encoded in parallel, and their size bounds the memory. A text is cut only where the rules of the encoding
//! split it regardless of the rest of the text. An encoding whose rules are not known here is applied to whole texts.

use serde_json::Value;
use unicode_normalization_alignments::char::canonical_combining_class;
use unicode_normalization_alignments::{IsNormalized, is_nfc_quick};

use super::classes::{Class, class, table};
use super::steps::{flag, kind, parts};

/// Which places are safe for an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cuts {
    /// Between any two characters.
    Anywhere,
    /// Between the words of [`words::each`](super::words::each).
    Words,
    /// Before a single space and after a single line end, if a letter or number follows and no white space precedes.
    Spaces,
    /// After any line end.
    Lines,
    /// No place is known.
    Nowhere,
}

/// The expressions of `Split` parts that split a text as [`Cuts::Spaces`] describes. In each of them white space comes
/// first in a match, except for line ends right after punctuation; none looks ahead further than one character.
const SPLITS: [&str; 5] = [
    // GPT-2.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // GPT-4 and Llama 3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    // Qwen 2.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // GPT-4o and Llama 4.
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// What one part of a pre-tokenizer does at the places of [`Cuts::Spaces`].
enum Effect {
    /// It splits the text there.
    Parts,
    /// It treats the two sides as it would treat each alone.
    Keeps,
    Unknown,
}

impl Cuts {
    /// The safe places for the encoding in a checked `tokenizer.json`.
    pub(super) fn of(file: &Value) -> Self {
        let is_nfc = |part: &Value| kind(part) == Some("NFC");
        let normalizers = parts(file.get("normalizer"), "normalizers");
        let steps = parts(file.get("pre_tokenizer"), "pretokenizers");
        // NFC never combines a character with white space; other normalizers may depend on the ends of a text.
        if !normalizers.into_iter().all(is_nfc) {
            return Self::Nowhere;
        }
        let added = added_tokens(file);
        let effects: Vec<Effect> = steps.iter().map(|step| effect(step)).collect();
        let is_known = !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Unknown));
        // A byte-level step replaces characters by bytes, so it must be the last.
        let is_last = |at| at + 1 == steps.len();
        let is_in_order = (steps.iter().enumerate())
            .all(|(at, step)| kind(step) != Some("ByteLevel") || is_last(at));
        let parts_there = effects.iter().any(|effect| matches!(effect, Effect::Parts));
        if is_known && is_in_order && parts_there && added.iter().all(|token| !token.joins_words())
        {
            return Self::Spaces;
        }
        let is_lines = steps.first().is_some_and(|step| splits_lines(step))
            && steps.iter().all(|step| kind(step) != Some("Metaspace"))
            && !added.iter().any(AddedToken::joins_lines);
        match is_lines {
            true => Self::Lines,
            false => Self::Nowhere,
        }
    }

    /// Splits `text` into pieces of `piece_bytes`, each extended to the next safe place.
    pub(crate) fn divide(self, text: &str, piece_bytes: usize) -> Vec<&str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while rest.len() > piece_bytes
            && let Some(cut) = self.next(rest, piece_bytes, rest.len())
        {
            let (piece, tail) = rest.split_at(cut);
            pieces.push(piece);
            rest = tail;
        }
        pieces.push(rest);
        pieces
    }

    /// The first safe place of `text` in `from..to`.
    pub(crate) fn next(self, text: &str, from: usize, to: usize) -> Option<usize> {
        let start = (from..text.len()).find(|&at| at > 0 && text.is_char_boundary(at))?;
        let places = text[start..].char_indices().map(|(at, _)| start + at);
        places
            .take_while(|&at| at < to)
            .find(|&at| self.is_safe(text, at))
    }

    /// Whether `text` may be cut at `at`, between two characters.
    fn is_safe(self, text: &str, at: usize) -> bool {
        let table = table();
        let is_word = |c: char| match class(c, table) {
            Class::Space => false,
            Class::Other => self == Self::Words,
            Class::Letter | Class::Number => true,
        };
        let is_no_space = |c: char| class(c, table) != Class::Space;
        let mut before = text[..at].chars().rev();
        let mut after = text[at..].chars();
        let (Some(last), Some(first)) = (before.next(), after.next()) else {
            return false;
        };
        match self {
            Self::Anywhere => true,
            Self::Nowhere => false,
            Self::Lines => last == '\n',
            Self::Spaces | Self::Words => {
                first == ' ' && is_no_space(last) && after.next().is_some_and(is_word)
                    || last == '\n' && is_word(first) && before.next().is_some_and(is_no_space)
                    || self == Self::Words && words_part(last, first, table)
            }
        }
    }
}

/// Whether a word ends between two characters that are not white space, independent of the characters around them.
fn words_part(last: char, first: char, table: &[u8]) -> bool {
    let classes = [class(last, table), class(first, table)];
    // A contraction may follow an apostrophe.
    !classes.contains(&Class::Space)
        && classes[0] != classes[1]
        && last != '\''
        && stays_alone(last)
        && stays_alone(first)
}

/// Whether NFC never combines this character with those before it.
fn stays_alone(c: char) -> bool {
    let is_normal = || is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes;
    c.is_ascii() || canonical_combining_class(c) == 0 && is_normal()
}

fn effect(step: &Value) -> Effect {
    match kind(step) {
        Some("ByteLevel") if flag(step, "add_prefix_space", true) => Effect::Unknown,
        Some("ByteLevel") if flag(step, "use_regex", true) => Effect::Parts,
        Some("ByteLevel" | "Digits") => Effect::Keeps,
        Some("Split") => {
            let pattern = step.pointer("/pattern/Regex").and_then(Value::as_str);
            let is_known = pattern.is_some_and(|pattern| SPLITS.contains(&pattern))
                && step.get("behavior").and_then(Value::as_str) == Some("Isolated")
                && !flag(step, "invert", false);
            match is_known {
                true => Effect::Parts,
                false => Effect::Unknown,
            }
        }
        _ => Effect::Unknown,
    }
}

/// Whether a step splits the text at every line end, independent of the characters around it.
fn splits_lines(step: &Value) -> bool {
    let text = |pointer| step.pointer(pointer).and_then(Value::as_str);
    let is_line_end = text("/pattern/String") == Some("\n")
        || matches!(
            text("/pattern/Regex"),
            Some("\n" | r"\n" | "[\r\n]" | r"[\r\n]")
        );
    kind(step) == Some("Split")
        && is_line_end
        && text("/behavior") == Some("Isolated")
        && !flag(step, "invert", false)
}

/// An added token, which is extracted from a text before all other steps.
struct AddedToken<'a> {
    content: &'a str,
    /// Whether it includes white space around it, or depends on the characters there.
    looks_around: bool,
}

fn added_tokens(file: &Value) -> Vec<AddedToken<'_>> {
    let tokens = file.get("added_tokens").and_then(Value::as_array);
    tokens.into_iter().flatten().map(AddedToken::new).collect()
}

impl<'a> AddedToken<'a> {
    fn new(token: &'a Value) -> Self {
        Self {
            content: token["content"].as_str().unwrap_or_default(),
            looks_around: ["single_word", "lstrip", "rstrip"]
                .iter()
                .any(|key| flag(token, key, false)),
        }
    }

    /// Whether it may contain a place of [`Cuts::Spaces`], that is, white space next to other characters.
    fn joins_words(&self) -> bool {
        let spaces = self.content.chars().filter(|c| c.is_whitespace()).count();
        let is_mixed = spaces > 0 && spaces < self.content.chars().count();
        self.looks_around || is_mixed
    }

    /// Whether it may contain a place of [`Cuts::Lines`].
    fn joins_lines(&self) -> bool {
        self.looks_around || self.content.contains('\n')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization_alignments::UnicodeNormalization;

    use super::super::words;
    use super::*;

    fn words_of(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        words::each(text, |word| found.push(word));
        found
    }

    #[test]
    fn scripts_without_spaces_are_cut_too() {
        let text = "语言模型学习。".repeat(100);
        let pieces = Cuts::Words.divide(&text, 90);
        assert!(pieces.len() > 10, "{}", pieces.len());
        assert!(pieces.iter().all(|piece| piece.len() < 120));
        assert_eq!(pieces.concat(), text);
        // A single word has no such place, even if it is long.
        assert_eq!(Cuts::Words.divide(&"语".repeat(100), 90).len(), 1);
    }

    #[test]
    fn a_normal_form_leaves_the_class_of_a_character() {
        let table = table();
        for c in '\0'..=char::MAX {
            let mut text = [0; 4];
            let text: &str = c.encode_utf8(&mut text);
            let normal: Vec<char> = text.nfc().map(|(c, _)| c).collect();
            assert_eq!(class(normal[0], table), class(c, table), "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn words_on_both_sides_of_a_cut_are_those_of_the_text(
            text in r"(\PC|[ \n\r\t'a-z0-9,。中é\u{301}\u{2000}]){0,60}", piece_bytes in 1_usize..12,
        ) {
            let expected = words_of(&text);
            for cuts in [Cuts::Words, Cuts::Spaces] {
                let pieces = cuts.divide(&text, piece_bytes);
                let words: Vec<&str> = pieces.into_iter().flat_map(words_of).collect();
                prop_assert_eq!(&words, &expected);
            }
        }

        #[test]
        fn a_normal_form_of_the_pieces_has_the_same_words(
            text in r"([ \nae1'。é\u{301}\u{316}\u{1100}\u{1161}\u{11a8}\u{9c7}\u{9be}\u{212b}]|e\u{301}){0,60}",
            piece_bytes in 1_usize..9,
        ) {
            let normal = |text: &str| text.nfc().map(|(c, _)| c).collect::<String>();
            let normal_text = normal(&text);
            let pieces: Vec<String> = Cuts::Words.divide(&text, piece_bytes).into_iter().map(normal).collect();
            let words: Vec<&str> = pieces.iter().flat_map(|piece| words_of(piece)).collect();
            prop_assert_eq!(words, words_of(&normal_text));
        }

        #[test]
        fn known_expressions_part_both_sides_of_a_cut_as_the_text(
            text in r"([ \n\r\t'sSlLaB0-9,。/中é\u{301}]|a b|9\n1|'ll ){0,60}", piece_bytes in 1_usize..9,
        ) {
            for pattern in SPLITS {
                let regex = fancy_regex::Regex::new(pattern).unwrap();
                let matches = |text: &str| -> Vec<String> {
                    regex.find_iter(text).map(|found| found.unwrap().as_str().to_owned()).collect()
                };
                let pieces = Cuts::Spaces.divide(&text, piece_bytes);
                let parted: Vec<String> = pieces.into_iter().flat_map(matches).collect();
                prop_assert_eq!(parted, matches(&text), "{}", pattern);
            }
        }
    }
}
