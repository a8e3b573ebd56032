//! Lists of class names.

use tokenformer_images::source::{Source, SourceOptions};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Names the classes of a small set by the input.
pub fn run(input: &[u8]) {
    let images = files::prepared("map-images-idx3-ubyte", |path| {
        let pictures = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 9];
        std::fs::write(path, pictures).expect("a file");
    });
    files::prepared("map-labels-idx1-ubyte", |path| {
        std::fs::write(path, [0, 0, 8, 1, 0, 0, 0, 2, 0, 1]).expect("a file");
    });
    let map = files::write("classes.txt", input);
    // A name of a byte takes a string and an entry in the set of those that were seen.
    bounded(input, MIB + 128 * input.len(), || {
        let options = SourceOptions {
            class_map: Some(map),
            ..SourceOptions::default()
        };
        match Source::open(&images, &options) {
            Ok(source) => {
                let mut names = source.classes().to_vec();
                names.sort();
                names.dedup();
                assert!(names.len() == source.classes().len() && names.len() >= 2);
                assert!(names.iter().all(|name| !name.is_empty()));
            }
            Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
        }
    });
}
