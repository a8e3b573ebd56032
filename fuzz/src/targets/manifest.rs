//! Manifests of published directories.

use serde_json::Value;
use tokenformer_store::{FileEntry, Manifest, verify};

use super::MIB;
use crate::memory::bounded;
use crate::{files, forge};

/// Reads the input as a manifest, and its `kind` and `files` as those of one whose hash fits.
pub fn run(input: &[u8]) {
    read(input);
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let listed = value.get("files").cloned().unwrap_or_default();
    if let Ok(listed) = serde_json::from_value::<Vec<FileEntry>>(listed) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or("model");
        read(&forge::manifest(kind, &listed));
    }
}

fn read(bytes: &[u8]) {
    let folder = files::prepared("published", |path| {
        std::fs::create_dir_all(path).expect("a folder");
        std::fs::write(path.join("a"), b"abc").expect("a file");
        std::fs::write(path.join("b"), b"").expect("a file");
    });
    std::fs::write(folder.join("manifest.json"), bytes).expect("a file");
    // Hashing has a buffer of 1 MiB.
    bounded(bytes, 2 * MIB, || {
        let read = Manifest::read(&folder);
        if let Err(error) = &read {
            assert!(error.to_string().len() < 4000, "{error}");
        }
        if verify(&folder).is_ok() {
            assert!(read.is_ok());
        }
    });
}
