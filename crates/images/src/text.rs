//! Outside text in messages.

/// Outside text on one line: control characters are escaped, and long text is cut.
pub(crate) fn shown(text: &str) -> String {
    const CHARS: usize = 200;
    let mut line: String = text.chars().take(CHARS).flat_map(show).collect();
    if text.chars().nth(CHARS).is_some() {
        line.push_str("...");
    }
    line
}

fn show(c: char) -> Vec<char> {
    if c.is_control() {
        c.escape_default().collect()
    } else {
        vec![c]
    }
}
