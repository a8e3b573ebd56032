//! Documents from files and folders.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};

use common::write;
use tokenformer_data::{Corpus, CorpusOptions, CorpusStats, Document, Error};

fn read(options: CorpusOptions) -> Result<(Vec<Document>, CorpusStats), Error> {
    let mut documents = Vec::new();
    let stats = Corpus::open(options)?.visit(|document| {
        documents.push(document);
        Ok(())
    })?;
    Ok((documents, stats))
}

fn read_paths(paths: &[&Path]) -> Result<(Vec<Document>, CorpusStats), Error> {
    read(CorpusOptions::new(
        paths.iter().map(|&p| p.into()).collect(),
    ))
}

/// The message of reading one path, which fails, with the folder's own name taken out.
fn message(dir: &Path, path: &Path) -> String {
    let error = read_paths(&[path]).unwrap_err().to_string();
    error
        .replace(&format!("{}/", dir.display()), "")
        .replace(&dir.display().to_string(), "DIR")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

#[test]
fn folders_are_read_in_order_and_skip_what_is_not_text() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "b.txt", "second");
    write(dir.path(), "a/z.md", "first, in a folder");
    write(dir.path(), "c.rs", "\u{feff}third");
    write(
        dir.path(),
        "d.jsonl",
        "{\"text\":\"fourth\"}\n\n{\"text\":\"\"}\n{\"text\":\"fifth\"}",
    );
    write(dir.path(), ".hidden", "no");
    write(dir.path(), ".git/config", "no");
    write(dir.path(), "nul.bin", b"ab\0cd");
    write(
        dir.path(),
        "late-nul.bin",
        [vec![b'a'; 20_000], vec![0]].concat(),
    );
    write(dir.path(), "latin1.txt", b"caf\xe9");
    write(dir.path(), "empty.txt", "");

    let (documents, stats) = read_paths(&[dir.path()]).unwrap();
    let texts: Vec<_> = documents.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(
        texts,
        ["first, in a folder", "second", "third", "fourth", "fifth"]
    );
    let lines = dir.path().join("d.jsonl");
    assert_eq!(documents[4].source, format!("{}:4", lines.display()));
    assert_eq!(
        stats,
        CorpusStats {
            files: 4,
            documents: 5,
            text_bytes: texts.iter().map(|t| t.len() as u64).sum(),
            skipped_binary_files: 3,
            skipped_empty_files: 1,
            skipped_empty_documents: 1,
            json_lines_files: 1,
            ..CorpusStats::default()
        }
    );
    assert_eq!(read_paths(&[dir.path()]).unwrap(), (documents, stats));
}

#[cfg(unix)]
#[test]
fn links_are_followed_unless_they_lead_nowhere_or_around() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("corpus");
    write(&corpus, "a.txt", "a");
    let outside = write(dir.path(), "outside.txt", "b");
    symlink(outside, corpus.join("b.txt")).unwrap();
    symlink(dir.path().join("nothing"), corpus.join("c.txt")).unwrap();
    symlink(&corpus, corpus.join("d")).unwrap();
    let (documents, stats) = read_paths(&[&corpus]).unwrap();
    assert_eq!((documents.len(), stats.skipped_links), (2, 2));
}

#[test]
fn compressed_files_read_like_plain_ones() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Ein Text. ".repeat(50_000);
    let lines = "{\"body\":\"one\"}\n{\"body\":\"two\"}\n";
    let paths = [
        write(dir.path(), "a.txt.gz", gzip(text.as_bytes())),
        write(dir.path(), "b.txt.zst", zstd(text.as_bytes())),
        write(dir.path(), "c.jsonl.gz", gzip(lines.as_bytes())),
        write(dir.path(), "d.NDJSON.zst", zstd(lines.as_bytes())),
    ];
    let mut options = CorpusOptions::new(paths[2..].to_vec());
    options.text_key = Some("body".into());
    let (documents, _) = read(options).unwrap();
    let texts: Vec<_> = documents.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(texts, ["one", "two", "one", "two"]);
    let (documents, _) = read_paths(&[&paths[0], &paths[1]]).unwrap();
    let texts: Vec<_> = documents.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(texts, [&text, &text]);
}

#[test]
fn files_of_several_compressed_parts_read_to_the_end() {
    let dir = tempfile::tempdir().unwrap();
    // A skippable frame, RFC 8878 section 3.1.2, between two frames.
    let skippable = [
        &0x184D_2A50_u32.to_le_bytes()[..],
        &3_u32.to_le_bytes(),
        b"abc",
    ]
    .concat();
    let parts = [zstd(b"one "), skippable.clone(), zstd(b"two")].concat();
    let paths = [
        write(dir.path(), "a.gz", [gzip(b"one "), gzip(b"two")].concat()),
        write(dir.path(), "b.zst", parts),
    ];
    for path in &paths {
        assert_eq!(read_paths(&[path]).unwrap().0[0].text, "one two");
    }
    let cut = write(
        dir.path(),
        "c.zst",
        [zstd(b"one "), skippable[..10].to_vec()].concat(),
    );
    assert!(message(dir.path(), &cut).starts_with("c.zst: cannot decompress"));
}

#[test]
fn damaged_compressed_files_are_refused_at_every_length() {
    let dir = tempfile::tempdir().unwrap();
    let text = (0..500).map(|n| format!("{n} ")).collect::<String>();
    for (name, bytes) in [
        ("a.txt.gz", gzip(text.as_bytes())),
        ("a.txt.zst", zstd(text.as_bytes())),
    ] {
        for length in 1..bytes.len() {
            let path = write(dir.path(), name, &bytes[..length]);
            let error = read_paths(&[&path]).unwrap_err();
            assert!(
                matches!(error, Error::Decompress { .. }),
                "{name} {length}: {error}"
            );
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let path = write(dir.path(), name, damaged);
            // Some bits carry no meaning, such as the time in a gzip header.
            if let Ok((documents, _)) = read_paths(&[&path]) {
                assert_eq!(documents[0].text, text, "{name} {at}");
            }
        }
    }
}

#[test]
fn a_document_beyond_the_limit_is_refused_however_small_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let bomb = vec![b'a'; 4 << 20];
    let line = [b"{\"text\":\"", &bomb[..], b"\"}"].concat();
    let files: [(&str, Vec<u8>); 4] = [
        ("a.txt", bomb.clone()),
        ("b.txt.gz", gzip(&bomb)),
        ("c.txt.zst", zstd(&bomb)),
        ("d.jsonl.gz", gzip(&line)),
    ];
    for (name, bytes) in files {
        let mut options = CorpusOptions::new(vec![write(dir.path(), name, bytes)]);
        options.max_document_bytes = 1 << 20;
        let error = read(options).unwrap_err();
        assert!(
            matches!(
                error,
                Error::DocumentTooLarge {
                    limit_bytes: 1_048_576,
                    ..
                }
            ),
            "{name}: {error}"
        );
    }
    let mut options = CorpusOptions::new(vec![dir.path().join("a.txt")]);
    options.max_document_bytes = bomb.len() as u64;
    assert_eq!(read(options).unwrap().0[0].text.len(), bomb.len());
}

#[test]
fn named_files_without_text_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    assert!(matches!(
        read(CorpusOptions::new(vec![])),
        Err(Error::NoInput)
    ));
    assert!(message(d, &d.join("missing.txt")).starts_with("missing.txt: cannot read"));
    assert!(message(d, &d.join("missing.txt")).ends_with("help:     check that the path exists"));
    let empty = write(d, "empty.txt", "");
    assert!(message(d, &empty).starts_with("empty.txt: no text\n  expected: a file with text\n"));
    let empty = write(d, "empty.jsonl", "");
    assert!(message(d, &empty).starts_with("empty.jsonl: no text\n"));
    let blank = write(d, "blank.jsonl", "\n \n");
    assert!(message(d, &blank).starts_with("blank.jsonl: no text\n"));
    let latin1 = write(d, "latin1.txt", b"caf\xe9 au lait");
    assert_eq!(
        message(d, &latin1),
        "latin1.txt: not UTF-8 text\n  expected: UTF-8\n  got:      the invalid byte 0xe9 at byte \
         offset 3\n  help:     convert it from the encoding it is in: `iconv -f ENCODING -t UTF-8 FILE > \
         NEW`, with LATIN1 or WINDOWS-1252 where it comes from Western Europe"
    );
}

#[test]
fn folders_without_text_say_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.bin", b"\0");
    write(dir.path(), "b.txt", "");
    let got = message(dir.path(), dir.path());
    assert!(got.starts_with("DIR: no text\n"), "{got}");
    assert!(
        got.contains("got:      2 files, of which 1 binary and 1 empty\n"),
        "{got}"
    );
}

#[test]
fn json_lines_errors_name_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[u8], &str); 6] = [
        (
            b"{\"text\":\"a\"}\n{\"title\":1,\"body\":\"b\"}\n",
            "a.jsonl:2: the key \"text\" is missing\n  expected: an object with the string key \
             \"text\"\n  got:      keys \"body\", \"title\"\n  help:     choose another key with \
             --text-key",
        ),
        (b"{}", "a.jsonl:1: the key \"text\" is missing\n"),
        (b"[\"text\"]", "a.jsonl:1: the key \"text\" is missing\n"),
        (
            b"\n{\"text\":7}",
            "a.jsonl:2: the key \"text\" is not a string\n",
        ),
        (
            b"{\"text\":\"a\"}\n{\"text\":",
            "a.jsonl:2:8: not JSON: EOF while parsing a value\n",
        ),
        (
            b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}",
            "a.jsonl:2: not UTF-8 text\n",
        ),
    ];
    for (bytes, expected) in cases {
        let path = write(dir.path(), "a.jsonl", bytes);
        let got = message(dir.path(), &path);
        assert!(got.starts_with(expected), "{got}\nis not\n{expected}");
    }
}

#[cfg(unix)]
#[test]
fn devices_are_refused() {
    let error = read(CorpusOptions::new(vec![PathBuf::from("/dev/null")])).unwrap_err();
    assert!(matches!(error, Error::NotAFile { .. }), "{error}");
}
