//! No line of text, however made, takes more memory than it justifies.

mod common;

use std::path::PathBuf;

use common::write;
use tokenformer_data::{Corpus, CorpusOptions, Dataset, Error};
use tokenformer_testing::{Watching, held};

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn texts(path: PathBuf) -> Result<Vec<String>, Error> {
    let mut texts = Vec::new();
    Corpus::open(CorpusOptions::new(vec![path]))?.visit(|document| {
        texts.push(document.text);
        Ok(())
    })?;
    Ok(texts)
}

#[test]
fn what_is_no_text_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let numbers = format!("[{}0]", "0,".repeat(1 << 20));
    let keys: String = (0..200_000).map(|i| format!("\"{i}\":1,")).collect();
    let lines = [
        (format!("{{\"text\":\"a\",\"rest\":{numbers}}}"), Ok("a")),
        (format!("{{{keys}\"text\":\"b\"}}"), Ok("b")),
        (
            format!("{{\"text\":{numbers}}}"),
            Err(
                "is not a string\n  expected: an object with the string key \"text\"\n  got:      an array",
            ),
        ),
        (
            format!("{{\"text\":{{{keys}\"z\":1}}}}"),
            Err("got:      an object"),
        ),
        (
            format!("{{{keys}\"t\":1}}"),
            Err("got:      keys \"0\", \"1\", \"10\","),
        ),
        (numbers, Err("got:      an array")),
    ];
    for (line, expected) in lines {
        let path = write(dir.path(), "a.jsonl", &line);
        let (found, most) = held(|| texts(path));
        match (found, expected) {
            (Ok(texts), Ok(text)) => assert_eq!(texts, [text]),
            (Err(error), Err(part)) => {
                let told = error.to_string();
                assert!(told.contains(part), "{told}");
            }
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
        // The line is read into a vector that doubles as it grows.
        let allowed = 4 * line.len() + (64 << 10);
        assert!(most < allowed, "{most} bytes for a line of {}", line.len());
    }
}

#[test]
fn a_window_takes_memory_only_as_content_comes() {
    let dir = tempfile::tempdir().unwrap();
    // The magic, a descriptor, the window of 2^(10 + exponent) bytes, and a last raw block of one byte.
    let frame =
        |exponent: u8| [b"\x28\xb5\x2f\xfd\x00", &[exponent << 3][..], b"\x09\0\0a"].concat();
    // One segment whose content is said to have 64 MiB.
    let single = b"\x28\xb5\x2f\xfd\xa0\0\0\0\x04\x09\0\0a".to_vec();
    let two = [frame(17), frame(17)].concat();
    for (bytes, text) in [
        (frame(13), "a"),
        (frame(17), "a"),
        (two, "aa"),
        (single, "a"),
    ] {
        let path = write(dir.path(), "window.txt.zst", &bytes);
        let (found, most) = held(|| texts(path));
        match found {
            Ok(texts) => assert_eq!(texts, [text]),
            // That the content has one byte instead may be an error.
            Err(error) => assert!(matches!(error, Error::Decompress { .. }), "{error}"),
        }
        assert!(most < 2 << 20, "{most} bytes for a file of {}", bytes.len());
    }
}

#[test]
fn a_window_above_128_mib_is_refused_by_that_name() {
    let dir = tempfile::tempdir().unwrap();
    let frame =
        |descriptor: u8| [b"\x28\xb5\x2f\xfd\x00", &[descriptor][..], b"\x09\0\0a"].concat();
    // The next size that can be written is 128 MiB and an eighth of it; 31 << 3 stands for 2 TiB.
    for (descriptor, bytes) in [
        (17 << 3 | 1, 150_994_944_u64),
        (18 << 3, 1 << 28),
        (31 << 3, 1 << 41),
    ] {
        let path = write(dir.path(), "window.txt.zst", frame(descriptor));
        let (found, most) = held(|| texts(path));
        let error = found.unwrap_err();
        assert!(
            matches!(error, Error::Window { expected_bytes: 134_217_728, got_bytes, .. } if got_bytes == bytes),
            "{error}"
        );
        let told = error.to_string();
        assert!(
            told.contains(
                "its zstd window is too large\n  expected: a window of at most 134217728 bytes"
            ),
            "{told}"
        );
        assert!(!told.contains("damaged"), "{told}");
        assert!(most < 1 << 20, "{most} bytes");
    }
}

#[test]
fn of_a_repeated_key_the_last_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        dir.path(),
        "a.jsonl",
        r#"{"text":7,"text":"b","other":{"text":"c"}}"#,
    );
    assert_eq!(texts(path).unwrap(), ["b"]);
}

#[test]
fn a_description_of_a_dataset_has_a_largest_size() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "dataset.json", "[".repeat((16 << 20) + 1));
    let told = Dataset::open(dir.path()).unwrap_err().to_string();
    assert!(told.contains("expected: at most 16777216 bytes"), "{told}");
}
