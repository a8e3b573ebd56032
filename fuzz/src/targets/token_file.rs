//! Token files, as they come and with hashes that fit.

use tokenformer_data::TokenFile;

use super::MIB;
use crate::memory::bounded;
use crate::{files, forge};

/// Opens the input, then the same with its hashes made to fit.
pub fn run(input: &[u8]) {
    open(input);
    let mut sealed = input.to_vec();
    forge::reseal(&mut sealed);
    open(&sealed);
}

fn open(bytes: &[u8]) {
    let path = files::write("input.tokens", bytes);
    bounded(bytes, MIB, || match TokenFile::open(&path) {
        Ok(file) => {
            let mut tokens = vec![0; file.len().min(100)];
            file.read(0, &mut tokens).expect("the first tokens");
            file.read(file.len() - tokens.len(), &mut tokens)
                .expect("the last tokens");
            assert!(tokens.iter().all(|&id| (id as usize) < file.vocab_size()));
            assert!(file.read(usize::MAX, &mut tokens).is_err());
            let mut end = 0;
            for doc in 0..file.doc_count() {
                let bounds = file.doc_bounds(doc).expect("a listed document");
                assert!(bounds.start == end && bounds.end > end);
                end = bounds.end;
            }
            assert_eq!(end, file.len());
            assert!(file.doc_bounds(file.doc_count()).is_none());
        }
        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
    });
}
