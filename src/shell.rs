//! Commands to type next, written so that a shell understands them as they stand.

use std::ffi::OsStr;
use std::path::Path;

/// This program as it was called.
pub fn program() -> String {
    std::env::args_os()
        .next()
        .map_or_else(|| "tokenformer".into(), |name| word(&name))
}

/// A path as one argument: quoted if needed, and never mistaken for a flag.
pub fn path(path: &Path) -> String {
    let begins_with_dash = path.as_os_str().as_encoded_bytes().starts_with(b"-");
    match begins_with_dash {
        true => word(Path::new(".").join(path).as_os_str()),
        false => word(path.as_os_str()),
    }
}

/// `KEY=PATH` for `--set`, whose values are TOML where they can be read as such.
pub fn assignment(key: &str, path: &Path) -> String {
    let text = path.to_string_lossy();
    match format!("v = {text}").parse::<toml::Table>() {
        // It begins with a quote, which TOML would remove.
        Ok(table) if table.get("v").is_some_and(toml::Value::is_str) => word(OsStr::new(&format!(
            "{key}={}",
            toml::Value::String(text.into_owned())
        ))),
        _ => {
            let mut whole = std::ffi::OsString::from(format!("{key}="));
            whole.push(path);
            word(&whole)
        }
    }
}

/// Quotes a word for a shell, if it needs that.
pub fn word(word: &OsStr) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    let text = match word.to_str() {
        Some(text) if !text.chars().any(char::is_control) => text,
        _ => return escaped(word),
    };
    if cfg!(windows) {
        let is_plain = |c| is_plain(c) || c == '\\';
        return match !text.is_empty() && text.chars().all(is_plain) {
            true => text.into(),
            false => format!("\"{text}\""),
        };
    }
    // zsh takes a word that begins with `=` for the path of a command.
    match !text.is_empty() && !text.starts_with('=') && text.chars().all(is_plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// `$'...'` with bytes as octal numbers, for control characters and bytes that are not text.
fn escaped(word: &OsStr) -> String {
    let byte = |&byte: &u8| match byte {
        b' '..=b'~' if byte != b'\'' && byte != b'\\' => char::from(byte).to_string(),
        _ => format!("\\{byte:03o}"),
    };
    let bytes: String = word.as_encoded_bytes().iter().map(byte).collect();
    format!("$'{bytes}'")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    /// What `bash` makes of a text: its words.
    fn words(text: &str) -> Vec<Vec<u8>> {
        let script = format!("printf '%s\\0' {text}");
        let ran = Command::new("bash").args(["-c", &script]).output();
        let out = ran.expect("bash runs").stdout;
        let mut words: Vec<Vec<u8>> = out.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
        words.pop();
        words
    }

    #[test]
    fn a_shell_reads_back_every_path() {
        let odd: [&[u8]; 14] = [
            b"runs/demo-2",
            b"my runs/a  b",
            b"it's",
            b"'",
            b"$HOME/`x`",
            b"a\"b\\c",
            b"~",
            b"a;b&c|d>e",
            b"*?[x]{a,b}!",
            b"#1",
            b"=x",
            "größe/データ".as_bytes(),
            b"line\nend\t\x1b[31m'",
            b"not \xff text",
        ];
        for name in odd {
            let text = path(Path::new(OsStr::from_bytes(name)));
            assert_eq!(words(&text), [name], "{text}");
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        assert_eq!(path(Path::new("runs/demo-2")), "runs/demo-2");
        assert_eq!(path(Path::new("größe")), "größe");
        assert_eq!(path(Path::new("my runs")), "'my runs'");
    }

    #[test]
    fn a_path_is_never_a_flag() {
        assert_eq!(path(Path::new("-run")), "./-run");
        assert_eq!(path(Path::new("--to me")), "'./--to me'");
        assert_eq!(words(&path(Path::new("-"))), [b"./-"]);
    }

    #[test]
    fn an_assignment_keeps_the_path() {
        assert_eq!(assignment("data.dir", Path::new("123")), "data.dir=123");
        assert_eq!(assignment("data.dir", Path::new("-x")), "data.dir=-x");
        assert_eq!(assignment("data.dir", Path::new("a b")), "'data.dir=a b'");
        let quoted = assignment("data.dir", Path::new("\"x\""));
        assert_eq!(words(&quoted), [br#"data.dir='"x"'"#]);
    }
}
