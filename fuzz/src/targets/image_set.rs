//! Datasets of pictures: the description and the table of a split, with hashes that fit.

use tokenformer_images::source::{Source, SourceOptions};
use tokenformer_images::{ImageSet, PrepareOptions, Split, prepare};
use tokenformer_store::FileEntry;

use super::MIB;
use crate::memory::bounded;
use crate::{files, forge};

/// The files that an input may replace.
pub const FILES: [&str; 3] = ["images.json", "train.table", "valid.table"];

/// Makes the dataset that a file of is replaced.
pub fn folder() -> std::path::PathBuf {
    files::prepared("images", |path| {
        let source = files::folder().join("source");
        std::fs::create_dir_all(&source).expect("a folder");
        let pictures: Vec<u8> = (0..12u8 * 4).collect();
        let images = [
            &[0, 0, 8, 3, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 2][..],
            &pictures,
        ]
        .concat();
        let labels: Vec<u8> = (0..12).map(|n| n % 2).collect();
        let labels = [&[0, 0, 8, 1, 0, 0, 0, 12][..], &labels].concat();
        std::fs::write(source.join("train-images-idx3-ubyte"), images).expect("a file");
        std::fs::write(source.join("train-labels-idx1-ubyte"), labels).expect("a file");
        let source = Source::open(&source, &SourceOptions::default()).expect("a source");
        let mut options = PrepareOptions::new(path.into());
        options.valid_share = 0.4;
        prepare(&source, &options, &mut |_| {}).expect("a dataset");
    })
}

/// The first byte chooses the file that the rest replaces.
pub fn run(input: &[u8]) {
    let Some((&which, rest)) = input.split_first() else {
        return;
    };
    let whole = folder();
    let broken = files::folder().join("broken");
    std::fs::create_dir_all(&broken).expect("a folder");
    let replaced = FILES[usize::from(which) % FILES.len()];
    let mut listed = Vec::new();
    for entry in std::fs::read_dir(&whole).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "manifest.json" {
            continue;
        }
        let bytes = match name == replaced {
            true => rest.to_vec(),
            false => std::fs::read(&path).expect("a file"),
        };
        std::fs::write(broken.join(&*name), &bytes).expect("a file");
        listed.push(FileEntry {
            name: name.into(),
            bytes: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_string(),
        });
    }
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    std::fs::write(
        broken.join("manifest.json"),
        forge::manifest("images", &listed),
    )
    .expect("a file");
    // Hashing has a buffer of 1 MiB; a class of a description takes a string.
    bounded(rest, 4 * MIB + 64 * rest.len(), || {
        match ImageSet::open(&broken) {
            Ok(set) => {
                for split in Split::ALL {
                    let Some(pictures) = set.split(split) else {
                        continue;
                    };
                    for index in 0..pictures.len().min(64) {
                        let label = pictures.label(index) as usize;
                        assert!(label < set.summary().classes.len());
                        let _ = pictures.name(index);
                        if let Ok(picture) = pictures.picture(index) {
                            assert_eq!(picture.channels(), set.summary().channels);
                        }
                    }
                    assert!(set.identity(split).is_some());
                }
            }
            Err(error) => assert!(error.to_string().len() < 8000, "{error}"),
        }
    });
}
