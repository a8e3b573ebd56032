//! IDX files of pictures and their labels, plain and gzipped.

use tokenformer_images::source::{Source, SourceOptions};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// The first two bytes say how long the file of pictures is; the file of labels follows it.
pub fn run(input: &[u8]) {
    let Some((length, rest)) = input.split_at_checked(2) else {
        return;
    };
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let (images, labels) = rest.split_at(length.min(rest.len()));
    let path = files::write("images-idx3-ubyte", images);
    files::write("labels-idx1-ubyte", labels);
    // Deflate expands a byte to 1032 at most; a picture of one byte has a record and a name.
    let expanded = |file: &[u8]| match file.starts_with(&[0x1f, 0x8b]) {
        true => 1032 * file.len(),
        false => file.len(),
    };
    let most = 200 * (expanded(images) + expanded(labels));
    bounded(input, 2 * MIB + most, || {
        super::every_picture(Source::open(&path, &SourceOptions::default()));
    });
}
