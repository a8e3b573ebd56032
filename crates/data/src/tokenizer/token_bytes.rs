//! The number of bytes of text that each token represents.

use serde_json::Value;

use super::words::BYTE_CHARS;
use super::{BYTES_EOD, Tokenizer};

/// Bytes of text by token id, which turn a loss per token into a loss per byte of exactly the scored tokens.
///
/// The counts of the tokens of a text add up to its bytes for byte-level encodings, for encodings that write spaces as
/// `▁` and unknown characters as bytes, and for the byte tokenizer. For a text that is normalised to NFC, the
/// normalised bytes count. Special tokens, including the end of a document, have no bytes. Encodings that put a space
/// in front of a text do not record whether the text had one; it is taken as added and does not count.
///
/// ```
/// use tokenformer_data::{ByteCounts, Tokenizer};
///
/// let tokenizer = Tokenizer::train_bpe(["low lower lowest ".repeat(9)], 300, |_, _| {})?;
/// let counts = ByteCounts::new(&tokenizer).expect("a byte-level encoding");
/// let tokens = tokenizer.encode("lower case é")?;
/// // The first token is only context for the others, which are scored.
/// let first = tokenizer.decode(&tokens[..1]).len() as u64;
/// assert_eq!(counts.sum(&tokens[..tokens.len() - 1], &tokens[1..]), 13 - first);
/// # Ok::<(), tokenformer_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteCounts {
    counts: Vec<u32>,
    /// The end-of-document token, if the token after it begins with an added space.
    added_space_after: Option<u32>,
}

impl ByteCounts {
    /// The counts of a tokenizer; `None` if the counts of the tokens of a text do not add up to its bytes, as with
    /// unknown tokens or a normaliser that changes the text.
    pub fn new(tokenizer: &Tokenizer) -> Option<Self> {
        let file: Value = serde_json::from_slice(tokenizer.json()).ok()?;
        if file.get("type").and_then(Value::as_str) == Some("bytes") {
            let mut counts = vec![1; BYTES_EOD as usize];
            counts.push(0);
            return Some(Self {
                counts,
                added_space_after: None,
            });
        }
        let encoding = Encoding::new(&file)?;
        let added = Added::new(&file)?;
        // Without an end-of-document token it is unknown where a space was added; and a space can also be added after
        // an added token.
        let added_space_after = match encoding.adds_space {
            true if added.has_texts => return None,
            true => Some(tokenizer.eod()?),
            false => None,
        };
        let mut counts = vec![0; tokenizer.vocab_size()];
        for (token, id) in file.pointer("/model/vocab")?.as_object()? {
            *count_at(&mut counts, id)? = encoding.bytes(token);
        }
        for (id, bytes) in added.counts {
            *counts.get_mut(id)? = bytes;
        }
        if let Some(eod) = tokenizer.eod() {
            *counts.get_mut(eod as usize)? = 0;
        }
        Some(Self {
            counts,
            added_space_after,
        })
    }

    /// Number of bytes that `targets` represent; each target follows the token of `inputs` at the same position. Ids
    /// outside the vocabulary have no bytes.
    pub fn sum(&self, inputs: &[u32], targets: &[u32]) -> u64 {
        let count = |(&before, &token): (&u32, &u32)| {
            let bytes = self.counts.get(token as usize).copied().unwrap_or(0);
            let added = u32::from(self.added_space_after == Some(before));
            u64::from(bytes.saturating_sub(added))
        };
        inputs.iter().zip(targets).map(count).sum()
    }
}

fn count_at<'a>(counts: &'a mut [u32], id: &Value) -> Option<&'a mut u32> {
    counts.get_mut(usize::try_from(id.as_u64()?).ok()?)
}

/// How tokens represent text.
struct Encoding {
    spelling: Spelling,
    /// Whether a text gets a space in front of it.
    adds_space: bool,
}

enum Spelling {
    /// One character for each byte.
    ByteLevel,
    /// Characters, with a mark in place of spaces if there is one, and `<0xNN>` for single bytes.
    Characters(Option<char>),
}

/// The settings of a file that concern spaces.
#[derive(Default)]
struct Parts {
    byte_levels: usize,
    mark: Option<char>,
    adds_space: bool,
}

impl Encoding {
    fn new(file: &Value) -> Option<Self> {
        let mut parts = Parts::default();
        parts.normalizer(file.get("normalizer").unwrap_or(&Value::Null))?;
        let is_normalizer_plain = parts.mark.is_none() && !parts.adds_space;
        parts.pre_tokenizer(file.get("pre_tokenizer").unwrap_or(&Value::Null))?;
        let model = file.get("model")?;
        let is_unset = |key| {
            let value = model.get(key).unwrap_or(&Value::Null);
            value.is_null() || value.as_str() == Some("")
        };
        if !is_unset("end_of_word_suffix") || !is_unset("continuing_subword_prefix") {
            return None;
        }
        let has_token = |token: &str| model.pointer("/vocab").and_then(|v| v.get(token)).is_some();
        let spelling = match parts.byte_levels {
            1 if is_normalizer_plain && parts.mark.is_none() => {
                let has_byte =
                    |byte: u8| has_token(BYTE_CHARS[usize::from(byte)].encode_utf8(&mut [0; 4]));
                utf8_bytes().all(has_byte).then_some(Spelling::ByteLevel)?
            }
            0 => {
                let falls_back = model.get("byte_fallback").and_then(Value::as_bool) == Some(true);
                let has_byte = |byte: u8| has_token(&format!("<0x{byte:02X}>"));
                (falls_back && utf8_bytes().all(has_byte))
                    .then_some(Spelling::Characters(parts.mark))?
            }
            _ => return None,
        };
        Some(Self {
            spelling,
            adds_space: parts.adds_space,
        })
    }

    /// Bytes of text that a token of the vocabulary represents.
    fn bytes(&self, token: &str) -> u32 {
        let bytes = match self.spelling {
            Spelling::ByteLevel => token.chars().count(),
            Spelling::Characters(_) if byte_of(token).is_some() => 1,
            Spelling::Characters(mark) => (token.chars())
                .map(|c| if Some(c) == mark { 1 } else { c.len_utf8() })
                .sum(),
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

impl Parts {
    /// Adds a normaliser; `None` if it changes a text in other ways.
    fn normalizer(&mut self, part: &Value) -> Option<()> {
        let text = |pointer| part.pointer(pointer).and_then(Value::as_str);
        match part.get("type").and_then(Value::as_str) {
            None if part.is_null() => Some(()),
            Some("NFC") => Some(()),
            Some("ByteLevel") => {
                self.byte_levels += 1;
                Some(())
            }
            Some("Prepend") => {
                let mark = only_char(text("/prepend")?)?;
                self.adds_space = true;
                self.mark(mark)
            }
            Some("Replace") if text("/pattern/String") == Some(" ") => {
                self.mark(only_char(text("/content")?)?)
            }
            Some("Sequence") => {
                let parts = part.get("normalizers")?.as_array()?;
                parts.iter().try_for_each(|part| self.normalizer(part))
            }
            _ => None,
        }
    }

    /// Adds a pre-tokenizer; `None` if it removes a part of the text.
    fn pre_tokenizer(&mut self, part: &Value) -> Option<()> {
        let flag = |key| part.get(key).and_then(Value::as_bool);
        match part.get("type").and_then(Value::as_str) {
            None if part.is_null() => Some(()),
            Some("ByteLevel") => {
                self.byte_levels += 1;
                self.adds_space |= flag("add_prefix_space") != Some(false);
                Some(())
            }
            Some("Metaspace") => {
                let scheme = part.get("prepend_scheme").and_then(Value::as_str);
                self.adds_space |=
                    scheme != Some("never") && flag("add_prefix_space") != Some(false);
                self.mark(only_char(part.get("replacement")?.as_str()?)?)
            }
            Some("Split" | "Punctuation") => {
                let behavior = part.get("behavior").and_then(Value::as_str);
                (behavior != Some("Removed")).then_some(())
            }
            Some("Digits" | "UnicodeScripts") => Some(()),
            Some("Sequence") => {
                let parts = part.get("pretokenizers")?.as_array()?;
                parts.iter().try_for_each(|part| self.pre_tokenizer(part))
            }
            _ => None,
        }
    }

    /// Sets the character for spaces; `None` if it was set to another one before.
    fn mark(&mut self, mark: char) -> Option<()> {
        (*self.mark.get_or_insert(mark) == mark).then_some(())
    }
}

/// Added tokens.
struct Added {
    /// Number of bytes by token id.
    counts: Vec<(usize, u32)>,
    /// Whether one of them represents text.
    has_texts: bool,
}

impl Added {
    /// Reads them; `None` if one includes spaces around it.
    fn new(file: &Value) -> Option<Self> {
        let (mut counts, mut has_texts) = (Vec::new(), false);
        for token in file
            .get("added_tokens")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let flag = |key| token.get(key).and_then(Value::as_bool) == Some(true);
            let id = usize::try_from(token.get("id")?.as_u64()?).ok()?;
            if flag("special") {
                counts.push((id, 0));
                continue;
            }
            if flag("lstrip") || flag("rstrip") {
                return None;
            }
            has_texts = true;
            counts.push((
                id,
                u32::try_from(token.get("content")?.as_str()?.len()).ok()?,
            ));
        }
        Some(Self { counts, has_texts })
    }
}

/// The only character of a text.
fn only_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// The byte of a token in the form of a single one, `<0xNN>`.
pub(super) fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_pair = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_pair.then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The bytes that a text in UTF-8 can have.
fn utf8_bytes() -> impl Iterator<Item = u8> {
    (0..=0xf4).filter(|byte| !matches!(byte, 0xc0 | 0xc1))
}
