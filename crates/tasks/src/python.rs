//! The string methods of Python that the rules are written in.

/// White space of `str.strip`: Unicode's, and four control characters that Unicode does not count.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// `text.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `text.rstrip()`.
pub(crate) fn rstrip(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

/// `text.capitalize()`: the first character in upper case, **all others in lower case**.
///
/// Python takes the title case of the first character, which differs from the upper case for a few
/// digraphs and ligatures only.
pub(crate) fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else {
        return String::new();
    };
    // Lowered as a whole, because a Greek sigma depends on what stands before it.
    let lower = text.to_lowercase();
    let skipped: usize = first.to_lowercase().map(char::len_utf8).sum();
    let rest = lower.get(skipped..).unwrap_or_default();
    first.to_uppercase().chain(rest.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::{capitalize, rstrip, strip};

    #[test]
    fn capitalize_lowers_the_rest() {
        assert_eq!(capitalize("the NASA man McX"), "The nasa man mcx");
        assert_eq!(capitalize(""), "");
        assert_eq!(capitalize("élan ÉTÉ"), "Élan été");
        assert_eq!(capitalize("ΣΟΦΟΣ"), "Σοφος");
        assert_eq!(capitalize("İX"), "İx");
        assert_eq!(capitalize(" A"), " a");
    }

    #[test]
    fn strip_takes_what_python_takes() {
        assert_eq!(strip("\u{1c} \u{a0}a b\t\n"), "a b");
        assert_eq!(rstrip(" a \u{1f}\u{3000}"), " a");
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
    }
}
