//! Cutting text between characters.

/// The start of `text`, at most `max_bytes` long.
pub(crate) fn prefix(text: &str, max_bytes: usize) -> &str {
    let mut end = max_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
