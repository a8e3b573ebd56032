//! Where in a text its tokens begin, in characters.

/// Most characters that are looked at to find where a text goes on after characters that no token represents.
const MOST_SKIPPED: usize = 1024;

/// Where each of the tokens of a text begins, from their bytes.
///
/// Most tokens spell their text exactly. Otherwise a space that the encoding adds is no part of the text, characters that
/// no token represents are skipped, and characters that were normalised are counted.
pub(crate) fn offsets(text: &str, tokens: &[Vec<u8>]) -> Vec<usize> {
    let spelled: usize = tokens.iter().map(|token| characters(token)).sum();
    let mut walk = Walk {
        text: text.as_bytes(),
        at: 0,
        passed: 0,
        // One of the spelled ones may be the space in front.
        surplus: (characters(text.as_bytes()) + 1).saturating_sub(spelled),
    };
    tokens.iter().map(|token| walk.take(token)).collect()
}

/// The number of characters that begin in some bytes: each is counted with its first byte.
pub(crate) fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| begins_character(byte)).count()
}

fn begins_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// A walk over the bytes of a text.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    /// Characters before `at`.
    passed: usize,
    /// Characters of the text that no token represents, at most.
    surplus: usize,
}

impl Walk<'_> {
    /// Passes a token, and returns where it begins.
    fn take(&mut self, token: &[u8]) -> usize {
        let rest = &self.text[self.at..];
        let without_space = token.strip_prefix(b" ");
        let without_space = without_space.filter(|token| rest.starts_with(token));
        let skipped = match without_space {
            _ if rest.starts_with(token) => Some(0),
            Some(_) if self.at == 0 => None,
            _ => self.find(token),
        };
        let len = match (skipped, without_space) {
            (Some(skipped), _) => {
                let before = self.passed;
                self.pass(skipped);
                self.surplus -= self.passed - before;
                token.len()
            }
            (None, Some(token)) => token.len(),
            (None, None) => self.bytes_of(characters(token)),
        };
        let start = self.passed;
        self.pass(len);
        start
    }

    /// How many bytes further on the token stands, if it does.
    fn find(&self, token: &[u8]) -> Option<usize> {
        let most = self.bytes_of(self.surplus.min(MOST_SKIPPED)) + token.len();
        let rest = &self.text[self.at..];
        let window = &rest[..most.min(rest.len())];
        window.windows(token.len()).position(|part| part == token)
    }

    /// The bytes of the next `count` characters, with those of the character before that are left.
    fn bytes_of(&self, count: usize) -> usize {
        let rest = &self.text[self.at..];
        let starts = rest.iter().enumerate();
        let mut starts = starts.filter(|&(_, &byte)| begins_character(byte));
        starts.nth(count).map_or(rest.len(), |(at, _)| at)
    }

    fn pass(&mut self, bytes: usize) {
        let end = self.at + bytes;
        self.passed += characters(&self.text[self.at..end]);
        self.at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, tokens: &[&[u8]]) -> Vec<usize> {
        let tokens: Vec<Vec<u8>> = tokens.iter().map(|token| token.to_vec()).collect();
        offsets(text, &tokens)
    }

    #[test]
    fn tokens_that_spell_their_text_begin_where_it_says() {
        assert_eq!(of("", &[]), [0; 0]);
        assert_eq!(of("the cat", &[b"the", b" cat"]), [0, 3]);
        assert_eq!(of("é!", &[b"\xc3", b"\xa9", b"!"]), [0, 1, 1]);
        assert_eq!(of("ab", &[b"", b"a", b"", b"b", b""]), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn an_added_space_is_no_part_of_the_text() {
        assert_eq!(of("the cat", &[b" the", b" cat"]), [0, 3]);
        assert_eq!(of("the", &[b" ", b"the"]), [0, 0]);
        assert_eq!(of(" the", &[b" ", b" the"]), [0, 1]);
        // Joined by spaces that the text does not have.
        assert_eq!(of("ab ab", &[b" ab", b"  ", b" ab"]), [0, 2, 3]);
    }

    #[test]
    fn lost_characters_are_skipped() {
        let unknown = [&b" "[..], b"n", b"", b" ", b"", b" ", b"c", b"a", b"f", b""];
        let expected = [0, 0, 1, 2, 3, 5, 6, 7, 8, 9];
        assert_eq!(of("né 42 café", &unknown), expected);
        assert_eq!(of("éééa", &[b"a"]), [3]);
        // Bytes that are no characters.
        assert_eq!(
            of("\u{fffd}\u{fffd}a", &[b"\xff", b"\x80", b"a"]),
            [0, 1, 2]
        );
    }

    #[test]
    fn changed_characters_are_counted() {
        assert_eq!(of("The Cat", &[b"the", b" cat"]), [0, 3]);
        let composed = "é".as_bytes();
        assert_eq!(of("xe\u{301}x", &[b"x", composed, b"x"]), [0, 1, 3]);
        let long = "é".repeat(5000) + "a";
        let found = of(&long, &[b"a", b"a"]);
        assert!(found[0] <= found[1] && found[1] <= 5001, "{found:?}");
    }
}
