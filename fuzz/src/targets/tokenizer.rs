//! `tokenizer.json`.

use tokenformer_data::Tokenizer;

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Loads the input, encodes a text and decodes it, and some ids that need not exist.
pub fn run(input: &[u8]) {
    let path = files::write("tokenizer.json", input);
    // A parsed file, the vocabulary in both directions, and the programs of regular expressions, many MB for one.
    bounded(input, 40 * MIB, || match Tokenizer::from_file(&path) {
        Ok(tokenizer) => {
            if let Ok(ids) =
                tokenizer.encode("A text, with  numbers 123\n\nand \u{e9}\u{4e2d}\u{1f600}")
            {
                assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
                let _ = tokenizer.decode(&ids);
            }
            let _ = tokenizer.decode(&[0, 1, 2, u32::MAX, 3, 7, 255, 256]);
            let _ = (
                tokenizer.eod(),
                tokenizer.fingerprint(),
                tokenizer.describe(),
            );
        }
        Err(error) => {
            let _ = error.to_string();
        }
    });
}
