//! Token files: written tokens are read back, and damaged files are refused.

use std::path::Path;

use proptest::prelude::*;
use tokenformer_data::{Error, TokenFile, TokenFileWriter};

const DOCUMENTS: [&[u32]; 3] = [&[1, 2, 3], &[4], &[5, 6, 7, 0, 299]];

fn write(path: &Path, vocab_size: usize, documents: &[&[u32]]) -> String {
    let mut writer = TokenFileWriter::create(path, vocab_size).unwrap();
    for tokens in documents {
        writer
            .push_document(tokens, tokens.len() as u64 * 3)
            .unwrap();
    }
    let written = writer.finish().unwrap();
    let hash = written.hash();
    written.publish().unwrap();
    hash
}

fn read_all(file: &TokenFile) -> Vec<u32> {
    let mut tokens = vec![0; file.len()];
    file.read(0, &mut tokens).unwrap();
    tokens
}

#[test]
fn both_widths_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    let wide: &[u32] = &[70_000, 1, 2];
    for (vocab_size, documents, width) in [
        (300, &DOCUMENTS[..], 2),
        (65_536, &DOCUMENTS, 2),
        (70_001, &[wide], 4),
    ] {
        let hash = write(&path, vocab_size, documents);
        let file = TokenFile::open(&path).unwrap();
        let all = documents.concat();
        assert_eq!(read_all(&file), all);
        assert_eq!(file.doc_count(), documents.len());
        assert_eq!(file.vocab_size(), vocab_size);
        assert_eq!(file.text_bytes(), all.len() as u64 * 3);
        assert_eq!(file.hash(), hash);
        for (doc, tokens) in documents.iter().enumerate() {
            assert_eq!(all[file.doc_bounds(doc).unwrap()], **tokens);
        }
        assert_eq!(file.doc_bounds(documents.len()), None);
        assert_eq!(file.doc_bounds(usize::MAX), None);
        let bytes = std::fs::metadata(&path).unwrap().len() as usize;
        assert_eq!(
            bytes,
            128 + (all.len() * width).next_multiple_of(8) + documents.len() * 8
        );
    }
}

#[test]
fn documents_in_parts_read_back_as_wholes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    let mut writer = TokenFileWriter::create(&path, 300).unwrap();
    writer.append(&[], 1).unwrap();
    writer.append(&[1, 2], 2).unwrap();
    writer.append(&[3], 4).unwrap();
    writer.end_document(Some(0)).unwrap();
    // Nothing but text that became no token: no document.
    writer.append(&[], 1000).unwrap();
    writer.end_document(Some(0)).unwrap();
    writer.append(&[5], 8).unwrap();
    writer.finish().unwrap().publish().unwrap();
    let file = TokenFile::open(&path).unwrap();
    assert_eq!(read_all(&file), [1, 2, 3, 0, 5]);
    assert_eq!(
        (file.doc_bounds(0), file.doc_bounds(1)),
        (Some(0..4), Some(4..5))
    );
    assert_eq!((file.doc_count(), file.text_bytes()), (2, 15));
}

#[test]
fn the_layout_is_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    write(&path, 300, &DOCUMENTS);
    let bytes = std::fs::read(&path).unwrap();
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(&bytes[..8], b"TKFTOKEN");
    assert_eq!([8, 12, 16, 20].map(u32_at), [1, 2, 300, 0]);
    assert_eq!([24, 32, 40].map(u64_at), [9, 3, 27]);
    assert_eq!(bytes[48..64], [0; 16]);
    assert_eq!(bytes[64..96], *blake3::hash(&bytes[128..]).as_bytes());
    assert_eq!(bytes[96..128], *blake3::hash(&bytes[..96]).as_bytes());
    assert_eq!(bytes[128..134], [1, 0, 2, 0, 3, 0]);
    assert_eq!(bytes[144..152], [43, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!([152, 160, 168].map(u64_at), [0, 3, 4]);
    assert_eq!(bytes.len(), 176);
}

#[test]
fn reads_outside_the_file_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    write(&path, 300, &DOCUMENTS);
    let file = TokenFile::open(&path).unwrap();
    let mut two = [0; 2];
    file.read(7, &mut two).unwrap();
    assert_eq!(two, [0, 299]);
    for start in [8, 9, usize::MAX] {
        assert!(matches!(
            file.read(start, &mut two),
            Err(Error::OutOfRange { .. })
        ));
    }
}

#[test]
fn a_file_is_refused_at_every_shorter_and_longer_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    write(&path, 300, &DOCUMENTS);
    let bytes = std::fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = TokenFile::open(&path).unwrap_err();
        let message = error.to_string();
        assert!(
            matches!(error, Error::TokenFile { .. }),
            "{length}: {message}"
        );
        assert!(message.contains("a.tokens: the "), "{message}");
        assert!(
            message.contains(&format!("got:      {length} bytes")),
            "{message}"
        );
    }
    for extra in 1..20 {
        std::fs::write(&path, [&bytes[..], &vec![0; extra]].concat()).unwrap();
        let error = TokenFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("the length is wrong"), "{error}");
    }
}

#[test]
fn a_file_is_refused_with_any_bit_flipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    write(&path, 300, &DOCUMENTS);
    let bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            std::fs::write(&path, damaged).unwrap();
            let error = TokenFile::open(&path).unwrap_err();
            assert!(
                matches!(error, Error::TokenFile { .. }),
                "byte {at} bit {bit}: {error}"
            );
        }
    }
}

/// Puts new hashes over bytes that were changed on purpose.
fn reseal(bytes: &mut [u8]) {
    let body = *blake3::hash(&bytes[128..]).as_bytes();
    bytes[64..96].copy_from_slice(&body);
    let seal = *blake3::hash(&bytes[..96]).as_bytes();
    bytes[96..128].copy_from_slice(&seal);
}

#[test]
fn files_with_right_hashes_and_wrong_content_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    write(&path, 300, &DOCUMENTS);
    let good = std::fs::read(&path).unwrap();
    let huge = u64::MAX.to_le_bytes();
    let cases: [(&str, usize, &[u8]); 12] = [
        ("unknown format version", 8, &[2]),
        ("the token width does not fit", 12, &[3]),
        ("the token width does not fit", 16, &[0, 0, 0, 1]),
        ("the token width does not fit", 16, &[0, 0]),
        ("the header is damaged", 20, &[1]),
        ("the length is wrong", 24, &huge),
        ("the length is wrong", 24, &[20]),
        ("the counts do not fit together", 32, &huge),
        ("the counts do not fit together", 24, &[0]),
        ("a token is outside the vocabulary", 128, &[0x2c, 1]),
        ("the padding is not zero", 147, &[1]),
        ("the document starts are wrong", 160, &[4]),
    ];
    for (problem, at, change) in cases {
        let mut bytes = good.clone();
        bytes[at..at + change.len()].copy_from_slice(change);
        reseal(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let error = TokenFile::open(&path).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}\nis not\n{problem}");
    }
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    std::fs::write(&path, "This is a text.".repeat(20)).unwrap();
    let error = TokenFile::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("not a token file") && error.contains("\"This is \""),
        "{error}"
    );
    assert!(matches!(
        TokenFile::open(dir.path()),
        Err(Error::NotAFile { .. })
    ));
    assert!(matches!(
        TokenFile::open(&dir.path().join("b")),
        Err(Error::Io { .. })
    ));
}

#[test]
fn nothing_appears_before_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    let mut writer = TokenFileWriter::create(&path, 300).unwrap();
    writer.push_document(&[1, 2], 2).unwrap();
    let error = writer.push_document(&[300], 1).unwrap_err();
    assert!(matches!(
        error,
        Error::TokenRange {
            token: 300,
            vocab_size: 300,
            ..
        }
    ));
    assert!(!path.exists());
    drop(writer.finish().unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_open_file_survives_its_replacement() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    write(&path, 300, &DOCUMENTS);
    let old = TokenFile::open(&path).unwrap();
    write(&path, 300, &[&[9, 9]]);
    assert_eq!(read_all(&old), DOCUMENTS.concat());
    assert_eq!(read_all(&TokenFile::open(&path).unwrap()), [9, 9]);
}

proptest! {
    #[test]
    fn any_documents_read_back(
        vocab_size in prop_oneof![Just(10_usize), Just(65_536), Just(65_537), Just(u32::MAX as usize)],
        lengths in proptest::collection::vec(0_usize..50, 1..20),
        seed in any::<u32>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tokens");
        let token = |n: usize| (seed.wrapping_mul(n as u32 | 1) as usize % vocab_size) as u32;
        let documents: Vec<Vec<u32>> = lengths.iter().map(|&length| (0..length).map(token).collect()).collect();
        prop_assume!(lengths.iter().sum::<usize>() > 0);
        let slices: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
        write(&path, vocab_size, &slices);
        let file = TokenFile::open(&path).unwrap();
        prop_assert_eq!(read_all(&file), documents.concat());
        prop_assert_eq!(file.doc_count(), lengths.iter().filter(|&&length| length > 0).count());
    }
}
