//! Texts to train on: plain, JSON Lines, compressed.

use tokenformer_data::{Corpus, CorpusOptions};

use super::MIB;
use crate::files;
use crate::memory::bounded;

const NAMES: [&str; 6] = [
    "t.txt",
    "t.jsonl",
    "t.txt.gz",
    "t.jsonl.gz",
    "t.txt.zst",
    "t.jsonl.zst",
];

/// The first byte chooses the kind of file, the rest is its content.
pub fn run(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let path = files::write(NAMES[usize::from(kind) % NAMES.len()], rest);
    let options = CorpusOptions {
        max_document_bytes: MIB as u64,
        ..CorpusOptions::new(vec![path])
    };
    // A window of zstd has 128 MiB at most, in a buffer that doubles as it grows.
    bounded(input, (2 * 128 + 24) * MIB, || {
        let visited = Corpus::open(options).and_then(|corpus| {
            corpus.visit(|document| {
                assert!(document.text.len() <= MIB && !document.text.is_empty());
                Ok(())
            })
        });
        if let Err(error) = visited {
            let _ = error.to_string();
        }
    });
}
