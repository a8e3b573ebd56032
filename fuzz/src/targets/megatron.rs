//! Megatron's token data.

use tokenformer_formats::megatron::MegatronData;

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// The first byte is the length of the `.bin` file, the rest the index.
pub fn run(input: &[u8]) {
    let Some((&length, index)) = input.split_first() else {
        return;
    };
    files::write("tokens.bin", &vec![1; length.into()]);
    let path = files::write("tokens.idx", index);
    bounded(input, MIB, || match MegatronData::open(&path) {
        Ok(data) => {
            let mut tokens = 0;
            for sequence in 0..data.sequences() {
                let count = data.sequence_tokens(sequence).expect("a listed sequence");
                let mut out = vec![0; count];
                let _ = data.read(sequence, 0, &mut out);
                assert!(data.read(sequence, usize::MAX, &mut out).is_err() || count == 0);
                tokens += count as u64;
            }
            assert!(tokens <= data.tokens() || data.token_type().size_bytes() > 1);
            let sequences: usize = (0..data.documents())
                .map(|document| data.document(document).expect("a listed document").len())
                .sum();
            assert_eq!(sequences, data.sequences());
            let _ = data.check_vocab(2);
        }
        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
    });
}
