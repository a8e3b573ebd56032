//! Quoting text from outside in messages.

/// Quotes outside text: escapes control characters and cuts text that is too long.
#[must_use]
pub fn shown(text: &str) -> String {
    const CHARS: usize = 100;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// A shape as text; if it has many axes, only the first are shown.
#[must_use]
pub fn shown_shape(shape: &[usize]) -> String {
    const AXES: usize = 8;
    match shape.get(..AXES) {
        Some(head) if shape.len() > AXES => format!("{} axes starting with {head:?}", shape.len()),
        _ => format!("{shape:?}"),
    }
}

/// `, such as "a", "b"` to suggest names in a message; empty if there are none.
#[must_use]
pub fn near_list(near: &[String]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let names: Vec<String> = near.iter().map(|name| shown(name)).collect();
    format!(", such as {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_hostile_text_is_cut_and_escaped() {
        assert_eq!(shown("plain"), "\"plain\"");
        assert_eq!(shown("\u{7}\n"), r#""\u{7}\n""#);
        let long = "é".repeat(101);
        assert_eq!(shown(&long), format!("{:?}...", "é".repeat(100)));
        assert_eq!(shown(&"é".repeat(100)), format!("{:?}", "é".repeat(100)));
    }

    #[test]
    fn shapes_and_lists() {
        assert_eq!(shown_shape(&[2, 3]), "[2, 3]");
        assert_eq!(shown_shape(&[1; 8]), "[1, 1, 1, 1, 1, 1, 1, 1]");
        assert_eq!(
            shown_shape(&[1; 9]),
            "9 axes starting with [1, 1, 1, 1, 1, 1, 1, 1]"
        );
        assert_eq!(near_list(&[]), "");
        assert_eq!(
            near_list(&["a".into(), "b\n".into()]),
            r#", such as "a", "b\n""#
        );
    }
}
