//! Character classes as in the regular expressions of byte-level encodings.

use std::sync::LazyLock;

use regex_syntax::hir::{Class as HirClass, HirKind};

/// The class of a character when a text is split into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// None of the others.
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
}

const ALL: [Class; 4] = [Class::Other, Class::Letter, Class::Number, Class::Space];
/// Number of characters per byte of the table.
const PER_BYTE: usize = 4;
const TABLE_BYTES: usize = (char::MAX as usize + 1) / PER_BYTE;

/// Two bits per character, from the tables of the crate that compiles regular expressions.
static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut table = vec![0; TABLE_BYTES];
    for (class, pattern) in [(1, r"\p{L}"), (2, r"\p{N}"), (3, r"\s")] {
        // These are the three constants above.
        let parsed = regex_syntax::parse(pattern).expect("constant patterns, parsed in every test");
        let HirKind::Class(HirClass::Unicode(ranges)) = parsed.kind() else {
            unreachable!("each pattern is one class");
        };
        for code in ranges.iter().flat_map(|range| range.start()..=range.end()) {
            let code = code as usize;
            table[code / PER_BYTE] |= class << (2 * (code % PER_BYTE));
        }
    }
    table
});

/// The class of a character.
#[inline]
pub(super) fn class(c: char, table: &[u8]) -> Class {
    let code = c as usize;
    let bits = table[code / PER_BYTE] >> (2 * (code % PER_BYTE));
    ALL[usize::from(bits & 3)]
}

/// The table for [`class`], made on first use.
pub(super) fn table() -> &'static [u8] {
    &TABLE
}
