//! Reading task files: lines, compression, and files that are refused.

use std::io::Write;
use std::path::PathBuf;

use flate2::{Compression, write::GzEncoder};
use tokenformer_tasks::rows::read;

fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn lines_are_numbered_and_blank_ones_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let text = "\u{feff}{\"text\":\"a b\"}\r\n\n{\"text\":\"c d\"}\n  \n{\"text\":\"e f\"}";
    let path = file(&dir, "rows.jsonl", text.as_bytes());
    let rows = read(&path, None).unwrap();
    let places: Vec<_> = (rows.iter())
        .map(|row| (row.index, row.location.rsplit_once(':').unwrap().1))
        .collect();
    assert_eq!(places, [(0, "1"), (1, "3"), (2, "5")]);
    assert_eq!(read(&path, Some(2)).unwrap().len(), 2);
}

#[test]
fn gzip_is_read_to_the_end_of_all_members() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for text in ["{\"text\":\"a b\"}\n", "{\"text\":\"c d\"}\n"] {
        let mut member = GzEncoder::new(Vec::new(), Compression::fast());
        member.write_all(text.as_bytes()).unwrap();
        bytes.extend(member.finish().unwrap());
    }
    let path = file(&dir, "rows.jsonl.gz", &bytes);
    assert_eq!(read(&path, None).unwrap().len(), 2);
    // The content says that it is compressed, not the name.
    let renamed = file(&dir, "rows.jsonl", &bytes);
    assert_eq!(read(&renamed, None).unwrap().len(), 2);
    let plain = file(&dir, "plain.jsonl.gz", b"{\"text\":\"a b\"}\n");
    assert_eq!(read(&plain, None).unwrap().len(), 1);
    let cut = file(&dir, "cut.jsonl.gz", &bytes[..bytes.len() - 5]);
    let message = read(&cut, None).unwrap_err().to_string();
    assert!(message.contains("cannot read"), "{message}");
}

#[test]
fn what_is_no_row_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20));
    let cases: [(&[u8], &str); 6] = [
        (b"{\"text\":\"a\"}\n[1]\n", ":2: not a row"),
        (b"{\"text\":\"a\"}\n{\"text\":\n", ":2: not a row"),
        (b"{\"text\":\"\xff\"}\n", ":1: not UTF-8"),
        (long.as_bytes(), ":1: a line is too long"),
        (b"", ": no rows"),
        (b"\n\n", ": no rows"),
    ];
    for (bytes, want) in cases {
        let path = file(&dir, "bad.jsonl", bytes);
        let message = read(&path, None).unwrap_err().to_string();
        assert!(message.contains(want), "{want:?} is not in: {message}");
        assert!(message.contains("\n  help:     "), "{message}");
    }
    let message = read(&dir.path().join("none"), None)
        .unwrap_err()
        .to_string();
    assert!(message.contains("cannot open"), "{message}");
}

#[test]
fn a_small_compressed_file_cannot_claim_much() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = |text: &[u8], times: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        for _ in 0..times {
            encoder.write_all(text).unwrap();
        }
        encoder.finish().unwrap()
    };
    let cases = [
        // As many small rows as fit, and few large ones.
        (bomb(&b"{}\n".repeat(1000), 101), ":100001: too many rows"),
        (
            bomb(&[&b" ".repeat(1 << 19), b"\n".as_slice()].concat(), 130),
            "the file is too long",
        ),
        (bomb(&b"x".repeat(1 << 19), 3), ":1: a line is too long"),
    ];
    for (bytes, want) in cases {
        assert!(bytes.len() < 1 << 20);
        let path = file(&dir, "bomb.jsonl.gz", &bytes);
        let message = read(&path, None).unwrap_err().to_string();
        assert!(message.contains(want), "{want:?} is not in: {message}");
    }
}
