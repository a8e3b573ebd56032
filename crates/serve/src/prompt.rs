//! Prompts of a request: a text, texts, the tokens of one, or the tokens of several.

use crate::request::MOST_TEXTS;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, SeqAccess, Visitor};
use std::fmt;
use tokenformer_data::token_rows::TokenPart;

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Its tokens.
    Tokens(Vec<u32>),
}

/// The prompts of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompts(pub Vec<Prompt>);

const EXPECTED: &str = "a text, a list of texts, a list of token numbers, or a list of such lists";

/// What a list of prompts holds.
enum Item {
    Token(u32),
    Prompt(Prompt),
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: Error>(self, token: u64) -> Result<Item, E> {
        TokenPart::deserialize(token.into_deserializer()).map(Item::from)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Prompt(Prompt::Text(text.into())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Item, E> {
        Ok(Item::Prompt(Prompt::Text(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Item, A::Error> {
        TokenPart::deserialize(SeqAccessDeserializer::new(list)).map(Item::from)
    }
}

impl From<TokenPart> for Item {
    fn from(part: TokenPart) -> Self {
        match part {
            TokenPart::Token(token) => Item::Token(token),
            TokenPart::Row(tokens) => Item::Prompt(Prompt::Tokens(tokens)),
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ItemVisitor)
    }
}

struct PromptsVisitor;

impl<'de> Visitor<'de> for PromptsVisitor {
    type Value = Prompts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Prompts, E> {
        Ok(Prompts(vec![Prompt::Text(text.into())]))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Prompts, E> {
        Ok(Prompts(vec![Prompt::Text(text)]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompts, A::Error> {
        let (mut prompts, mut tokens) = (Vec::new(), Vec::new());
        while let Some(item) = list.next_element()? {
            match item {
                Item::Token(token) => tokens.push(token),
                Item::Prompt(_) if prompts.len() == MOST_TEXTS => {
                    return Err(A::Error::custom(format!("more than {MOST_TEXTS} prompts")));
                }
                Item::Prompt(prompt) => prompts.push(prompt),
            }
        }
        match (prompts.is_empty(), tokens.is_empty()) {
            (_, true) => Ok(Prompts(prompts)),
            (true, false) => Ok(Prompts(vec![Prompt::Tokens(tokens)])),
            (false, false) => Err(A::Error::custom("texts and token numbers in one list")),
        }
    }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PromptsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<Prompt>, String> {
        let read = serde_json::from_str::<Prompts>(json);
        read.map(|p| p.0).map_err(|e| e.to_string())
    }

    #[test]
    fn all_four_forms_are_read() {
        let text = |t: &str| Prompt::Text(t.into());
        assert_eq!(read("\"a\""), Ok(vec![text("a")]));
        assert_eq!(read("[\"a\", \"b\"]"), Ok(vec![text("a"), text("b")]));
        assert_eq!(read("[1, 2]"), Ok(vec![Prompt::Tokens(vec![1, 2])]));
        let lists = vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![])];
        assert_eq!(read("[[1], []]"), Ok(lists));
        assert_eq!(read("[]"), Ok(vec![]));
    }

    #[test]
    fn everything_else_is_an_error() {
        for json in [
            "3",
            "[1, \"a\"]",
            "[-1]",
            "[4294967296]",
            "[1.5]",
            "[[\"a\"]]",
            "{}",
            "[[[1]]]",
            "true",
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
