//! Binary CIFAR files, whose size says of which kind they are.

use tokenformer_images::source::{Source, SourceOptions};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Bytes of a record without its labels.
const PIXELS: usize = 3072;

/// The first byte chooses the kind, or a file that is left as it is; others are filled up to whole records.
pub fn run(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let mut file = rest.to_vec();
    if let labels @ (1 | 2) = usize::from(kind % 3) {
        let record = PIXELS + labels;
        file.resize(rest.len().div_ceil(record) * record, 0);
    }
    let path = files::write("batch.bin", &file);
    bounded(&file, 2 * MIB, || {
        super::every_picture(Source::open(&path, &SourceOptions::default()));
    });
}
