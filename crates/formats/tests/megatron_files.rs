//! Token data: golden files, written files, and files that are refused.

mod common;

use std::path::Path;

use common::workspace_fixture;
use proptest::prelude::*;
use tokenformer_formats::Error;
use tokenformer_formats::megatron::{MegatronData, MegatronWriter, TokenType};

const VOCAB: u64 = 200;

fn documents(data: &MegatronData) -> Vec<Vec<u32>> {
    (0..data.sequences())
        .map(|sequence| {
            let mut tokens = vec![0; data.sequence_tokens(sequence).unwrap()];
            data.read(sequence, 0, &mut tokens).unwrap();
            tokens
        })
        .collect()
}

#[test]
fn the_golden_corpus_is_read_and_written_again() {
    let path = workspace_fixture("corpus_text_document");
    let data = MegatronData::open(&path).unwrap();
    assert_eq!(
        (data.sequences(), data.documents(), data.token_type()),
        (40, 40, TokenType::U16)
    );
    assert_eq!(data.tokens(), 4546 / 2);
    assert_eq!(data.document(39), Some(39..40));
    assert_eq!((data.document(40), data.sequence_tokens(40)), (None, None));
    data.check_vocab(VOCAB).unwrap();
    let documents = documents(&data);
    assert!(
        documents.iter().all(|document| document.last() == Some(&0)),
        "each ends with the end-of-document token"
    );
    let largest = documents.iter().flatten().max().copied().unwrap();
    let error = data.check_vocab(largest.into()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("the token {largest} at position")),
        "{error}"
    );

    let dir = tempfile::tempdir().unwrap();
    let again = dir.path().join("again.v1_text_document");
    let mut writer = MegatronWriter::create(&again, VOCAB).unwrap();
    for document in &documents {
        writer.add_document(document).unwrap();
    }
    writer.finish().unwrap();
    for end in ["bin", "idx"] {
        let file = |path: &Path| std::fs::read(format!("{}.{end}", path.display())).unwrap();
        assert_eq!(file(&path), file(&again), "{end}");
    }
    // Either file's path is accepted for both.
    let by_file = MegatronData::open(&dir.path().join("again.v1_text_document.idx")).unwrap();
    assert_eq!(by_file.sequences(), 40);
}

#[test]
fn parts_of_sequences_are_read() {
    let data = MegatronData::open(&workspace_fixture("corpus_text_document")).unwrap();
    let whole = documents(&data).swap_remove(3);
    let mut part = vec![0; 5];
    data.read(3, 2, &mut part).unwrap();
    assert_eq!(part, whole[2..7]);
    data.read(3, whole.len(), &mut []).unwrap();
    for (sequence, start) in [
        (3, whole.len() - 4),
        (3, usize::MAX),
        (3, usize::MAX / 2),
        (40, 0),
    ] {
        assert!(
            matches!(
                data.read(sequence, start, &mut part),
                Err(Error::OutOfRange { .. })
            ),
            "{sequence} {start}"
        );
    }
}

#[test]
fn the_vocabulary_chooses_the_type() {
    for (vocab, token, expected) in [
        (65_499, 65_498, TokenType::U16),
        (65_500, 65_499, TokenType::I32),
        (1 << 31, i32::MAX as u32, TokenType::I32),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().join("data");
        let mut writer = MegatronWriter::create(&prefix, vocab).unwrap();
        writer.add_document(&[1, token]).unwrap();
        assert!(matches!(
            writer.add_document(&[]),
            Err(Error::Unwritable { .. })
        ));
        if vocab < 1 << 31 {
            assert!(matches!(
                writer.add_document(&[token + 1]),
                Err(Error::TokenRange { sequence: 1, .. })
            ));
        }
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "not under its name before the end"
        );
        writer.finish().unwrap();
        let data = MegatronData::open(&prefix).unwrap();
        assert_eq!(data.token_type(), expected);
        assert_eq!(documents(&data), [[1, token]]);
    }
    assert!(matches!(
        MegatronWriter::create(Path::new("x"), (1 << 31) + 1),
        Err(Error::Argument { .. })
    ));
}

struct Index {
    magic: &'static [u8],
    version: u64,
    code: u8,
    counts: (u64, u64),
    lengths: Vec<i32>,
    pointers: Vec<i64>,
    documents: Vec<i64>,
}

impl Index {
    /// Two sequences of two and three tokens, one document.
    fn new(code: u8, size: i64) -> Index {
        Index {
            magic: b"MMIDIDX\0\0",
            version: 1,
            code,
            counts: (2, 2),
            lengths: vec![2, 3],
            pointers: vec![0, 2 * size],
            documents: vec![0, 2],
        }
    }

    fn open(&self, bin: &[u8]) -> Result<MegatronData, Error> {
        let dir = tempfile::tempdir().unwrap();
        let mut index = self.magic.to_vec();
        index.extend(self.version.to_le_bytes());
        index.push(self.code);
        index.extend(self.counts.0.to_le_bytes());
        index.extend(self.counts.1.to_le_bytes());
        index.extend(self.lengths.iter().flat_map(|v| v.to_le_bytes()));
        index.extend(self.pointers.iter().flat_map(|v| v.to_le_bytes()));
        index.extend(self.documents.iter().flat_map(|v| v.to_le_bytes()));
        std::fs::write(dir.path().join("d.idx"), index).unwrap();
        std::fs::write(dir.path().join("d.bin"), bin).unwrap();
        MegatronData::open(&dir.path().join("d"))
    }

    fn message(&self, bin: &[u8]) -> String {
        self.open(bin).err().expect("refused").to_string()
    }
}

#[test]
fn every_token_type_is_read() {
    let tokens = |size: usize| -> Vec<u8> {
        [1u64, 2, 3, 4, 100]
            .iter()
            .flat_map(|v| v.to_le_bytes()[..size].to_vec())
            .collect()
    };
    for (code, size) in [(1, 1), (2, 1), (3, 2), (4, 4), (5, 8), (8, 2)] {
        let data = Index::new(code, size as i64).open(&tokens(size)).unwrap();
        assert_eq!(
            documents(&data),
            [vec![1, 2], vec![3, 4, 100]],
            "code {code}"
        );
        assert_eq!((data.documents(), data.document(0)), (1, Some(0..2)));
    }
    for code in [6, 7] {
        assert!(
            Index::new(code, 4)
                .message(&[0; 20])
                .contains("floating-point")
        );
    }
    for code in [0, 9, 255] {
        assert!(
            Index::new(code, 4)
                .message(&[0; 20])
                .contains("unknown type")
        );
    }
}

#[test]
fn negative_and_wide_tokens_are_errors() {
    for (code, size) in [(2, 1), (3, 2), (4, 4), (5, 8)] {
        let data = Index::new(code, size as i64)
            .open(&vec![0xff; 5 * size])
            .unwrap();
        assert!(
            matches!(
                data.read(1, 1, &mut [0]),
                Err(Error::TokenRange {
                    sequence: 1,
                    position_tokens: 1,
                    token: -1,
                    ..
                })
            ),
            "code {code}"
        );
        assert!(matches!(
            data.check_vocab(1 << 40),
            Err(Error::TokenRange { token: -1, .. })
        ));
    }
    let wide: Vec<u8> = [1i64 << 32; 5]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let data = Index::new(5, 8).open(&wide).unwrap();
    assert!(matches!(
        data.read(0, 0, &mut [0]),
        Err(Error::TokenRange { .. })
    ));
}

#[test]
fn damaged_indexes_are_refused() {
    let bin = [0u8; 10];
    let refuse = |change: &dyn Fn(&mut Index), part: &str| {
        let mut index = Index::new(8, 2);
        change(&mut index);
        let text = index.message(&bin);
        assert!(text.contains(part), "{part}: {text}");
    };
    assert!(Index::new(8, 2).open(&bin).is_ok());
    refuse(
        &|index| index.magic = b"TNTIDX\0\0\0",
        "--dataset-impl mmap",
    );
    refuse(
        &|index| index.magic = b"GARBAGE\0\0",
        "not an index of token data\n  expected: 34 bytes or more, the first of them MMIDIDX\n  \
         got:      \"GARBAGE",
    );
    refuse(&|index| index.version = 2, "unknown version");
    refuse(&|index| index.counts.0 = 3, "another length");
    refuse(
        &|index| {
            index.counts.1 = 0;
            index.documents = vec![];
        },
        "the document index is empty\n  expected: 1 entry or more",
    );
    refuse(
        &|index| index.version = 1 << 40,
        "expected: 1\n  got:      1099511627776",
    );
    refuse(
        &|index| index.counts = (u64::MAX, u64::MAX),
        "another length",
    );
    refuse(
        &|index| index.counts = (u64::MAX / 12 + 1, 2),
        "another length",
    );
    refuse(&|index| index.documents.push(2), "another length");
    refuse(
        &|index| index.lengths = vec![2, -3],
        "sequence 1 has a negative length\n  expected: a length from 0 tokens\n  got:      -3 tokens",
    );
    refuse(
        &|index| index.lengths = vec![2, i32::MAX],
        "sequence 1 ends after the .bin file\n  expected: at most 6 bytes from byte 4, where the file ends\n  \
         got:      4294967294 bytes from byte 4",
    );
    refuse(
        &|index| index.lengths = vec![2, 2],
        "longer than its index says",
    );
    for (pointers, told) in [
        (
            vec![0, -4],
            "sequence 1 does not begin where the one before ends\n  expected: byte 4\n  got:      byte -4",
        ),
        (vec![0, 2], "expected: byte 4\n  got:      byte 2"),
        (
            vec![0, i64::MAX],
            "expected: byte 4\n  got:      byte 9223372036854775807",
        ),
        (
            vec![2, 4],
            "sequence 0 does not begin where the one before ends\n  expected: byte 0\n  got:      byte 2",
        ),
    ] {
        refuse(&|index| index.pointers.clone_from(&pointers), told);
    }
    for (documents, told) in [
        (
            vec![1, 2],
            "entry 0 of the document index is wrong\n  expected: 0, the first sequence\n  got:      1",
        ),
        (
            vec![0, 1],
            "entry 1 of the document index is wrong\n  expected: 2, the number of sequences\n  got:      1",
        ),
        (
            vec![0, -1],
            "expected: 2, the number of sequences\n  got:      -1",
        ),
    ] {
        refuse(&|index| index.documents.clone_from(&documents), told);
    }
    refuse(
        &|index| {
            index.documents = vec![0, 2, 1, 2];
            index.counts.1 = 4;
        },
        "entry 2 of the document index is wrong\n  expected: a number from 2, that of the entry before, to 2, \
         the number of sequences\n  got:      1",
    );
    assert!(Index::new(8, 2).message(&[0; 9]).contains("sequence 1"));
    let empty = Index {
        counts: (0, 1),
        lengths: vec![],
        pointers: vec![],
        documents: vec![0],
        ..Index::new(8, 2)
    };
    assert_eq!(empty.open(&[]).unwrap().sequences(), 0);
}

#[test]
fn every_truncation_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let source = workspace_fixture("corpus_text_document");
    let file = |end: &str| std::fs::read(format!("{}.{end}", source.display())).unwrap();
    let (bin, index) = (file("bin"), file("idx"));
    let prefix = dir.path().join("d");
    let refused = |bin: &[u8], index: &[u8]| {
        std::fs::write(dir.path().join("d.bin"), bin).unwrap();
        std::fs::write(dir.path().join("d.idx"), index).unwrap();
        MegatronData::open(&prefix).is_err()
    };
    for length in 0..index.len() {
        assert!(refused(&bin, &index[..length]), "index of {length}");
    }
    for length in (0..bin.len()).step_by(97) {
        assert!(refused(&bin[..length], &index), "data of {length}");
    }
}

proptest! {
    #[test]
    fn mutations_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
    ) {
        let source = workspace_fixture("corpus_text_document");
        let mut index = std::fs::read(format!("{}.idx", source.display())).unwrap();
        for (at, byte) in changes {
            let at = at.index(index.len());
            index[at] = byte;
        }
        index.truncate(length.index(index.len() * 4).max(30));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("d.idx"), &index).unwrap();
        std::fs::copy(format!("{}.bin", source.display()), dir.path().join("d.bin")).unwrap();
        if let Ok(data) = MegatronData::open(&dir.path().join("d")) {
            let _ = data.check_vocab(100);
            let read: usize = (0..data.sequences()).map(|sequence| data.sequence_tokens(sequence).unwrap()).sum();
            prop_assert_eq!(read as u64, data.tokens());
        }
    }
}
