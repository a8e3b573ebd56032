//! Dataset folders: a fuzzed description next to valid files.

use tokenformer_data::{Dataset, Document, DocumentSource, PrepareOptions, prepare};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Makes the folder that the description is put into.
pub fn folder() -> std::path::PathBuf {
    files::prepared("dataset", |path| {
        let document = |text: &str| Document {
            source: "text".into(),
            text: text.into(),
        };
        let source = DocumentSource::Memory {
            label: "texts".into(),
            documents: ["one small text", "another one", "and a third"]
                .map(document)
                .to_vec(),
        };
        prepare(&PrepareOptions::new(source, path.into()), |_| {}).expect("a dataset");
    })
}

/// Opens a dataset whose `dataset.json` is the input.
pub fn run(input: &[u8]) {
    let folder = folder();
    std::fs::write(folder.join("dataset.json"), input).expect("a file");
    bounded(input, 4 * MIB, || match Dataset::open(&folder) {
        Ok(dataset) => assert!(dataset.train.len() > 0),
        Err(error) => {
            let _ = error.to_string();
        }
    });
}
