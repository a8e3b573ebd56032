//! What a file is, its content decides; and each file is read once.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};

use common::write;
use tokenformer_data::{Corpus, CorpusOptions, CorpusStats, Error};

fn read(options: CorpusOptions) -> Result<(Vec<String>, CorpusStats), Error> {
    let mut texts = Vec::new();
    let stats = Corpus::open(options)?.visit(|document| {
        texts.push(document.text);
        Ok(())
    })?;
    Ok((texts, stats))
}

fn read_paths(paths: &[&Path]) -> Result<(Vec<String>, CorpusStats), Error> {
    let paths = paths.iter().map(|&path| path.into()).collect();
    read(CorpusOptions::new(paths))
}

fn with_key(path: &Path, key: &str) -> Result<(Vec<String>, CorpusStats), Error> {
    let mut options = CorpusOptions::new(vec![path.into()]);
    options.text_key = Some(key.into());
    read(options)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const LINES: &str = "{\"id\":1,\"text\":\"one\"}\n\n{\"id\":2,\"text\":\"two\"}\n";

#[test]
fn json_lines_are_read_as_lines_whatever_they_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(
        LINES.as_bytes(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let long = format!(
        "{{\"text\":\"one\",\"more\":\"{}\"}}\n{{\"text\":\"two\"}}",
        "x".repeat(1 << 17)
    );
    let files: [(&str, Vec<u8>); 9] = [
        ("a.json", LINES.into()),
        ("a.json.gz", gzip(LINES.as_bytes())),
        ("a.json.zst", zstd),
        ("a.JSON", LINES.into()),
        ("a.txt", LINES.into()),
        ("no-extension", LINES.into()),
        // Compressed, though nothing in the name says so.
        ("blob", gzip(LINES.as_bytes())),
        (
            "mark.json",
            format!("\u{feff}{}", LINES.replace('\n', "\r\n")).into(),
        ),
        ("long.json", long.into()),
    ];
    for (name, bytes) in files {
        let path = write(dir.path(), name, bytes);
        let (texts, stats) = read_paths(&[&path]).unwrap();
        assert_eq!(texts, ["one", "two"], "{name}");
        assert_eq!(stats.json_lines_files, 1, "{name}");
    }
    // One object with a text is one line.
    let path = write(dir.path(), "b.json", "{\"text\":\"one\"}");
    assert_eq!(read_paths(&[&path]).unwrap().0, ["one"]);
}

#[test]
fn lines_named_json_without_the_key_are_refused_with_the_keys_they_have() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "{\"body\":\"one\"}\n{\"body\":\"two\"}\n";
    let path = write(dir.path(), "a.json", lines);
    let told = read_paths(&[&path]).unwrap_err().to_string();
    assert!(
        told.contains("a.json:1: the key \"text\" is missing"),
        "{told}"
    );
    assert!(told.contains("got:      keys \"body\""), "{told}");
    assert_eq!(with_key(&path, "body").unwrap().0, ["one", "two"]);
}

#[test]
fn json_that_is_not_in_lines_stays_text_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let array = write(
        dir.path(),
        "array.json",
        "[{\"text\":\"one\"},{\"text\":\"two\"}]",
    );
    let pretty = write(dir.path(), "pretty.json", "{\n  \"text\": \"one\"\n}\n");
    let settings = write(dir.path(), "settings.json", "{\"width\":7}\n");
    // Source code and prose that begin as JSON does.
    let code = write(dir.path(), "code.rs", "{ let x = 1; }\n");
    let prose = write(
        dir.path(),
        "prose.md",
        "{\"text\":\"one\"}\nis what a line looks like.\n",
    );
    let (texts, stats) = read_paths(&[&array, &pretty, &settings, &code, &prose]).unwrap();
    assert_eq!(stats.whole_json_files, 3);
    assert_eq!((texts.len(), stats.json_lines_files), (5, 0));
    assert_eq!(texts[1], "{\n  \"text\": \"one\"\n}\n");
    assert!(texts[4].ends_with("looks like.\n"));
}

#[test]
fn a_key_is_never_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let lines = write(dir.path(), "lines/a.json", LINES);
    let told = with_key(&lines, "nonsense").unwrap_err().to_string();
    assert!(told.contains("the key \"nonsense\" is missing"), "{told}");
    let array = write(dir.path(), "b.json", "[{\"text\":\"one\"}]");
    let prose = write(dir.path(), "prose/c.txt", "Only words.\n");
    for path in [&array, &prose] {
        let told = with_key(path, "text").unwrap_err().to_string();
        let expected = "the key \"text\" was given, but this is not JSON Lines\n  expected: one JSON object per line\n";
        assert!(told.contains(expected), "{told}");
        assert!(told.contains("jq -c '.[]' FILE > NEW"), "{told}");
    }
    // A folder may hold other files too, which are left out, but not only those.
    assert!(matches!(
        with_key(&dir.path().join("prose"), "text"),
        Err(Error::KeyWithoutLines { .. })
    ));
    let others = [
        write(dir.path(), "lines/README.md", "Words about it.\n"),
        write(dir.path(), "lines/z.json", "[{\"text\":\"one\"}]"),
    ];
    let (texts, stats) = with_key(&dir.path().join("lines"), "text").unwrap();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!((stats.files, stats.whole_json_files), (1, 0));
    assert_eq!(stats.skipped_not_lines, 2);
    let others = others.map(|path| path.display().to_string());
    assert_eq!(stats.first_not_lines, others);
}

#[test]
fn what_python_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (r#"{"text":"cut \ud83d here"}"#, "cut \u{fffd} here", 1),
        (
            r#"{"text":"\ude00\uD83D\ud83d\ude00"}"#,
            "\u{fffd}\u{fffd}😀",
            2,
        ),
        // Those in other strings lose nothing of the text, and a U+FFFD that was there is not counted.
        (r#"{"text":"a \ufffd","title":"\ud83d"}"#, "a \u{fffd}", 0),
        (r#"{"k\udc00":1,"text":"a"}"#, "a", 0),
        (
            r#"{"\udc00":"\ud800","text":"b \ud800 \ufffd"}"#,
            "b \u{fffd} \u{fffd}",
            1,
        ),
        (
            r#"{"text":"\\ud83d and \"NaN\"","x":NaN}"#,
            r#"\ud83d and "NaN""#,
            0,
        ),
        (r#"{"score":NaN,"text":"fine"}"#, "fine", 0),
        (
            r#"{"score":[-Infinity, Infinity],"text":"NaN\n"}"#,
            "NaN\n",
            0,
        ),
        (
            r#"{"text":"fine","id":1e999,"n":123456789012345678901234567890}"#,
            "fine",
            0,
        ),
        ("{\"text\":\"a\u{2028}b\u{85}c\"}", "a\u{2028}b\u{85}c", 0),
        (r#"{"text":"first","text":"second"}"#, "second", 0),
        (r#"{"text":"a\u0000b"}"#, "a\0b", 0),
    ];
    for (line, text, replaced) in cases {
        let path = write(dir.path(), "a.jsonl", line);
        let (texts, stats) = read_paths(&[&path]).unwrap();
        assert_eq!(texts, [text], "{line}");
        assert_eq!(stats.replaced_surrogates, replaced, "{line}");
    }
    let deep = format!(
        "{{\"text\":\"a\",\"m\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let path = write(dir.path(), "a.jsonl", deep);
    assert_eq!(read_paths(&[&path]).unwrap().0, ["a"]);
    for broken in [
        r#"{"text":NaNs}"#,
        r#"{"text":"\ud8"}"#,
        r#"{"text":"a",NaN:1}"#,
    ] {
        let path = write(dir.path(), "a.jsonl", broken);
        let error = read_paths(&[&path]).unwrap_err();
        assert!(matches!(error, Error::JsonLine { .. }), "{broken}: {error}");
    }
}

#[test]
fn advice_for_a_bad_line_keeps_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let told = |line: &str| {
        let path = write(dir.path(), "a.jsonl", line);
        let told = read_paths(&[&path]).unwrap_err().to_string();
        assert!(!told.contains(".txt"), "{told}");
        told
    };
    assert!(told("{\"text\":\"a\"}\n{\"text\":}\n").ends_with(
        "a.jsonl:2:9: not JSON: expected value\n  expected: one JSON object per line\n  help:     look at this line: \
         mend it, or take it out"
    ));
    let cut = told("{\"text\":\"a\"}\n{\"text\":\"b");
    assert!(
        cut.contains("the line ends inside a value: the file was cut short"),
        "{cut}"
    );
    assert!(
        cut.ends_with("`jq -c . FILE > NEW` puts into one each"),
        "{cut}"
    );
}

#[test]
fn formats_that_are_not_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let utf16 = |text: &str, mark: bool, is_big: bool| -> Vec<u8> {
        let units = mark
            .then_some(0xfeff)
            .into_iter()
            .chain(text.encode_utf16());
        let bytes = |unit: u16| match is_big {
            true => unit.to_be_bytes(),
            false => unit.to_le_bytes(),
        };
        units.flat_map(bytes).collect()
    };
    let words = "Words in another encoding.\n";
    let tar = [&[b'a'; 257][..], b"ustar\0", &[0; 249]].concat();
    let files: [(&str, Vec<u8>, &str, &str); 9] = [
        (
            "a.txt.xz",
            b"\xfd7zXZ\0\0\x04".to_vec(),
            "xz",
            "xz -dk FILE",
        ),
        (
            "a.txt.bz2",
            b"BZh91AY&SY\0".to_vec(),
            "bzip2",
            "bzip2 -dk FILE",
        ),
        ("a.zip", b"PK\x03\x04\0\0".to_vec(), "zip", "unzip FILE"),
        ("a.parquet", b"PAR1\x15\0".to_vec(), "Parquet", "JSON Lines"),
        ("a.tar", tar.clone(), "tar", "tar -xf FILE"),
        ("a.tar.gz", gzip(&tar), "tar", "tar -xf FILE"),
        (
            "a.txt",
            utf16(words, true, false),
            "UTF-16",
            "iconv -f UTF-16 -t UTF-8 FILE > NEW",
        ),
        (
            "b.txt",
            utf16(words, true, true),
            "UTF-16",
            "iconv -f UTF-16 -t UTF-8 FILE > NEW",
        ),
        (
            "c.jsonl",
            utf16(words, false, false),
            "UTF-16 without a byte order mark",
            "iconv -f UTF-16LE -t UTF-8 FILE > NEW",
        ),
    ];
    let folder = dir.path().join("folder");
    write(&folder, "text.txt", "BZh is how a text may begin");
    for (name, bytes, format, help) in &files {
        let told = read_paths(&[&write(&folder, name, bytes)])
            .unwrap_err()
            .to_string();
        let [_, got, advice] = ["", "got:      ", "help:     "].map(|part| {
            told.lines()
                .find_map(|line| line.trim().strip_prefix(part))
                .unwrap_or_default()
        });
        assert_eq!(got, *format, "{told}");
        assert!(advice.contains(help) && !told.contains("LATIN1"), "{told}");
    }
    let (texts, stats) = read_paths(&[&folder]).unwrap();
    assert_eq!(texts, ["BZh is how a text may begin"]);
    let skipped: Vec<_> = stats
        .skipped_formats
        .iter()
        .map(|(name, &n)| (name.as_str(), n))
        .collect();
    let expected = [
        ("Parquet", 1),
        ("UTF-16", 2),
        ("UTF-16 without a byte order mark", 1),
        ("bzip2", 1),
        ("tar", 2),
        ("xz", 1),
        ("zip", 1),
    ];
    assert_eq!(skipped, expected);
}

#[test]
fn advice_for_bytes_that_are_not_utf8_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let advice = |bytes: &[u8]| {
        let path = write(dir.path(), "a.txt", bytes);
        let told = read_paths(&[&path]).unwrap_err().to_string();
        told.split("help:     ").nth(1).unwrap().to_owned()
    };
    assert!(
        advice(b"caf\xe9 au lait")
            .starts_with("convert it from the encoding it is in: `iconv -f ENCODING")
    );
    assert!(
        advice(
            "größer als caf"
                .as_bytes()
                .iter()
                .chain(b"\xe9")
                .copied()
                .collect::<Vec<_>>()
                .as_slice()
        )
        .starts_with("most of it is UTF-8: mend this place")
    );
    assert_eq!(
        advice(b"\x89PNG\r\n\x1a\n\0\0\0\x0d"),
        "this looks like binary data; leave it out"
    );
}

#[test]
fn gzip_members_and_the_zeros_behind_them() {
    let dir = tempfile::tempdir().unwrap();
    let zeros = vec![0; 70_000];
    let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
    for (name, bytes) in [
        ("plain.gz", members.clone()),
        ("padded.gz", [&members[..], &zeros].concat()),
        (
            "between.gz",
            [&gzip(b"one "), &zeros[..512], &gzip(b"two"), &zeros[..1]].concat(),
        ),
    ] {
        let path = write(dir.path(), name, bytes);
        assert_eq!(read_paths(&[&path]).unwrap().0, ["one two"], "{name}");
    }
    for bytes in [[&members[..], b"garbage"].concat(), zeros] {
        let path = write(dir.path(), "odd.gz", bytes);
        let error = read_paths(&[&path]).unwrap_err();
        assert!(matches!(error, Error::Decompress { .. }), "{error}");
    }
}

#[test]
fn a_file_is_read_once_whatever_leads_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), "folder/a.txt", "a");
    write(dir.path(), "folder/sub/b.txt", "b");
    std::fs::hard_link(&a, dir.path().join("folder/hard.txt")).unwrap();
    let folder = dir.path().join("folder");
    let (texts, stats) = read_paths(&[&a, &a, &folder.join("sub"), &folder, &folder]).unwrap();
    assert_eq!(texts, ["a", "b"]);
    // The file is given two more times, its hard link and each folder a second time.
    assert_eq!((stats.files, stats.repeats), (2, 5));
}

#[cfg(unix)]
#[test]
fn links_lead_to_a_file_once() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/t.txt", "t");
    symlink("a", dir.path().join("b")).unwrap();
    symlink("t.txt", dir.path().join("a/u.txt")).unwrap();
    symlink("..", dir.path().join("a/up")).unwrap();
    let (texts, stats) = read_paths(&[dir.path()]).unwrap();
    assert_eq!(texts, ["t"]);
    assert_eq!((stats.repeats, stats.skipped_links), (2, 1));
    // Each level of links to one folder would double the ways through it.
    let deep = dir.path().join("deep");
    for level in 0..40 {
        let folder = deep.join(level.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["x", "y"] {
            symlink(format!("../{}", level + 1), folder.join(name)).unwrap();
        }
    }
    write(&deep, "40/t.txt", "the end");
    assert_eq!(read_paths(&[&deep.join("0")]).unwrap().0, ["the end"]);
}

#[cfg(unix)]
#[test]
fn the_cache_of_the_hub_is_read_through_its_names() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let hub = dir.path().join("datasets--me--stories");
    for (number, revision) in [(1, "abc"), (2, "abc"), (1, "def")] {
        let blob = format!("blobs/{number:040x}");
        write(&hub, &blob, format!("{{\"text\":\"story {number}\"}}\n"));
        let name = format!("snapshots/{revision}/part-{number}.jsonl");
        std::fs::create_dir_all(hub.join(&name).parent().unwrap()).unwrap();
        symlink(format!("../../{blob}"), hub.join(&name)).unwrap();
    }
    write(&hub, "refs/main", "abc");
    for folder in [dir.path(), &hub, &hub.join("snapshots/abc")] {
        let (texts, _) = read_paths(&[folder]).unwrap();
        assert_eq!(texts, ["story 1", "story 2"], "{}", folder.display());
    }
}

#[test]
fn a_marker_parts_texts() {
    let dir = tempfile::tempdir().unwrap();
    let story = |n: usize| format!("Story {n}.\nIt is {}", "long ".repeat(n * 997 % 50_000));
    let stories: Vec<String> = (0..40).map(|n| story(n).trim_end().to_owned()).collect();
    let text = format!("\u{feff}{}\n<|end|>\n", stories.join("\r\n<|end|>\r\n\n"));
    let lines = format!("{{\"text\":\"{}\"}}\n", "one<|end|>two<|end|><|end|>\\n");
    let options = |path: PathBuf, marker: &str| {
        let mut options = CorpusOptions::new(vec![path]);
        options.split_on = Some(marker.into());
        options
    };
    let path = write(dir.path(), "a.txt.gz", gzip(text.as_bytes()));
    let (texts, stats) = read(options(path.clone(), "<|end|>")).unwrap();
    assert!(texts == stories);
    assert_eq!((stats.documents, stats.markers, stats.files), (40, 40, 1));
    // A document has a largest size, a file has none.
    let mut small = options(path.clone(), "<|end|>");
    small.max_document_bytes = 400_000;
    assert!(text.len() > 1_000_000);
    assert_eq!(read(small).unwrap().0.len(), 40);
    let mut small = options(path.clone(), "<|end|>");
    small.max_document_bytes = 100_000;
    assert!(matches!(read(small), Err(Error::DocumentTooLarge { .. })));
    let (texts, stats) = read(options(path.clone(), "not there")).unwrap();
    assert_eq!((texts.len(), stats.markers), (1, 0));
    let lines = write(dir.path(), "b.jsonl", lines);
    let (texts, stats) = read(options(lines, "<|end|>")).unwrap();
    assert_eq!(
        (texts, stats.markers),
        (vec!["one".to_owned(), "two".to_owned()], 3)
    );
    assert!(matches!(read(options(path, "")), Err(Error::Option { .. })));
}
