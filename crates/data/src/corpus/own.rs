//! Detects folders that this program wrote, which are not used as text.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::file_names;
use crate::tokens::MAGIC;

/// Number of bytes of a manifest that are searched for its format, which is the first key.
const MANIFEST_HEAD_BYTES: u64 = 4096;

/// What a folder holds, such as a dataset, if this program wrote it.
pub(super) fn kind(folder: &Path) -> Option<&'static str> {
    let is_file = |name: &str| folder.join(name).is_file();
    let begins_with = |name: &str, bytes: &[u8]| head(&folder.join(name), 64).starts_with(bytes);
    let contains = |name: &str, text: &str| {
        let head = head(&folder.join(name), MANIFEST_HEAD_BYTES);
        memchr::memmem::find(&head, text.as_bytes()).is_some()
    };
    if is_file(file_names::DATASET) && begins_with(file_names::TRAIN, &MAGIC) {
        return Some("a dataset");
    }
    if is_file(file_names::NOTE) || is_file(file_names::LOCK) {
        return Some("a dataset in the making");
    }
    if contains("manifest.json", "\"tokenformer-manifest\"") {
        return Some("a model directory");
    }
    if is_file("metrics.jsonl") && is_file("config.toml") {
        return Some("a run");
    }
    None
}

/// The first bytes of a file; empty if it cannot be read.
fn head(path: &Path, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if path.is_file()
        && let Ok(file) = File::open(path)
        && file.take(most).read_to_end(&mut bytes).is_err()
    {
        bytes.clear();
    }
    bytes
}
