//! Reads rows of tokens from JSON.

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use std::fmt;

/// Rows one after the other, read from a list of numbers, which is one row, or a list of such lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRows {
    /// The tokens of all rows.
    pub tokens: Vec<u32>,
    /// How many each row has.
    pub lengths: Vec<usize>,
}

/// A token, or a row of them: what a list in JSON may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPart {
    /// A token.
    Token(u32),
    /// A row of them.
    Row(Vec<u32>),
}

impl<'de> Deserialize<'de> for TokenRows {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(RowsVisitor)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = TokenRows;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of token numbers, or of lists of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<TokenRows, A::Error> {
        let mut rows = TokenRows::default();
        let mut is_flat = None;
        while let Some(part) = parts.next_element()? {
            if *is_flat.get_or_insert(matches!(part, TokenPart::Token(_)))
                != matches!(part, TokenPart::Token(_))
            {
                return Err(A::Error::custom("numbers and lists beside each other"));
            }
            match part {
                TokenPart::Token(token) => rows.tokens.push(token),
                TokenPart::Row(row) => {
                    rows.lengths.push(row.len());
                    rows.tokens.extend(row);
                }
            }
        }
        if is_flat == Some(true) {
            rows.lengths.push(rows.tokens.len());
        }
        Ok(rows)
    }
}

impl<'de> Deserialize<'de> for TokenPart {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PartVisitor)
    }
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = TokenPart;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token number, from 0 to 4294967295, or a list of them")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<TokenPart, E> {
        let out_of_range = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
        u32::try_from(number)
            .map(TokenPart::Token)
            .map_err(|_| out_of_range())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<TokenPart, A::Error> {
        let mut row = Vec::new();
        while let Some(token) = numbers.next_element()? {
            row.push(token);
        }
        Ok(TokenPart::Row(row))
    }
}

#[cfg(test)]
mod tests {
    use super::TokenRows;

    fn rows(json: &str) -> Result<(Vec<u32>, Vec<usize>), String> {
        let rows: TokenRows = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Ok((rows.tokens, rows.lengths))
    }

    #[test]
    fn one_row_or_many_are_read() {
        assert_eq!(rows("[1, 2]"), Ok((vec![1, 2], vec![2])));
        assert_eq!(rows("[[1, 2], [3, 4]]"), Ok((vec![1, 2, 3, 4], vec![2, 2])));
        assert_eq!(rows("[[1], []]"), Ok((vec![1], vec![1, 0])));
        assert_eq!(rows("[]"), Ok((vec![], vec![])));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (json, parts) in [
            ("[1, \"a\"]", ["string \"a\"", "a token number", "column 7"]),
            (
                "[1, -2]",
                ["integer `-2`", "from 0 to 4294967295", "column 6"],
            ),
            ("[[1], [4294967296]]", ["4294967296", "u32", "column 17"]),
            ("[[1.5]]", ["1.5", "u32", "column 5"]),
            (
                "[1, [2]]",
                ["numbers and lists beside each other", "line 1", "column"],
            ),
            (
                "{\"tokens\": [1]}",
                ["invalid type: map", "a list of token numbers", "column 0"],
            ),
            ("[[1, 2], [3", ["EOF", "line 1", "column 11"]),
        ] {
            let message = rows(json).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "{json}: no {part:?} in {message}");
            }
        }
    }
}
