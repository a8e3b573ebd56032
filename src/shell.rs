//! Commands that are printed for a person to run, as a shell takes them.

use std::path::Path;

/// `text` as one word of a POSIX shell: as it is, or in single quotes.
pub fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// The value of `--set` that gives the recipe's key `key` a path.
///
/// A value is read as TOML where it is TOML, so a path that reads as anything, such as a number, is written as a string.
pub fn set_path(key: &str, path: &Path) -> String {
    let path = path.display().to_string();
    let is_toml = format!("v = {path}").parse::<toml::Table>().is_ok();
    let value = match is_toml {
        true => toml::Value::String(path).to_string(),
        false => path,
    };
    word(&format!("{key}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(word("data/größe-1.json"), "data/größe-1.json");
        assert_eq!(word("my data"), "'my data'");
        assert_eq!(word("it's"), "'it'\\''s'");
        assert_eq!(word(""), "''");
        for special in ["a;b", "$HOME", "*", "~", "a&b", "(a)", "#a", "a\nb"] {
            assert_eq!(word(special), format!("'{special}'"));
        }
    }

    #[test]
    fn paths_that_are_toml_become_strings() {
        let set = |path: &str| set_path("data.dir", Path::new(path));
        assert_eq!(set("data/mine"), "data.dir=data/mine");
        assert_eq!(set("my data"), "'data.dir=my data'");
        for path in ["123", "true", "1e5", "inf", "2024-01-01"] {
            assert_eq!(set(path), format!("'data.dir=\"{path}\"'"));
        }
    }
}
