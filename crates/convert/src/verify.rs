//! Verifies that a model directory is unchanged since it was written, and that the model still computes the same
//! logits.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use tokenformer_core::Device;
use tokenformer_store::{FileEntry, MANIFEST_NAME, Manifest, hash_file};
use tokenformer_train::files::{self, CONFIG, WEIGHTS};

use crate::checkpoint::Checkpoint;
use crate::export::KIND_EXPORT;
use crate::find::find;
use crate::fingerprint::{FILE, Fingerprint, TOLERANCE};
use crate::forward::Arrays;
use crate::layout::by_published_name;
use crate::source::Source;
use crate::weights::Weights;
use crate::{Error, Result};

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether the check passed.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// Checks a model directory, checkpoint or exported folder: its manifest, the size and hash of every file that the
/// manifest lists, and the fingerprint if there is one, recomputed block by block.
///
/// # Errors
/// Only when the path is not a folder; every problem inside the folder is a check that did not pass.
pub fn verify(dir: &Path, device: &Arc<dyn Device>) -> Result<Vec<Check>> {
    if !std::fs::metadata(dir)
        .map_err(Error::io("look at it", dir))?
        .is_dir()
    {
        return Err(Error::NoCheckpoint {
            path: dir.into(),
            got: "a file".into(),
            help: "give the folder that holds it".into(),
        });
    }
    let mut checks = Vec::new();
    let mut add = |name: &str, result: Result<String>| {
        let passed = result.is_ok();
        checks.push(Check {
            name: name.into(),
            passed,
            found: result.unwrap_or_else(|error| error.to_string()),
        });
    };
    let manifest = Manifest::read(dir).map_err(Error::from);
    let kind = manifest
        .as_ref()
        .map_or("", |manifest| &manifest.kind)
        .to_string();
    let files = manifest
        .as_ref()
        .map_or(Vec::new(), |manifest| manifest.files.clone());
    add(
        MANIFEST_NAME,
        manifest.map(|manifest| format!("{} with {} files", manifest.kind, manifest.files.len())),
    );
    for entry in &files {
        add(&entry.name, check_file(dir, entry));
    }
    if dir.join(FILE).exists() {
        add("logits", check_logits(dir, &kind, device));
    }
    Ok(checks)
}

fn check_file(dir: &Path, entry: &FileEntry) -> Result<String> {
    let path = dir.join(&entry.name);
    let damaged = |what, expected: String, got: String| Error::Damaged {
        path: path.clone(),
        what,
        expected,
        got,
        help: "copy or convert the model again",
    };
    // A pipe under the name of a file would block forever.
    let found = std::fs::metadata(&path).map_err(Error::io("look at it", &path))?;
    if !found.is_file() || found.len() != entry.bytes {
        return Err(damaged(
            "the file has another size",
            format!("{} bytes", entry.bytes),
            format!("{} bytes", found.len()),
        ));
    }
    let got = hash_file(&path)?.blake3;
    if got != entry.blake3 {
        return Err(damaged("the file has changed", entry.blake3.clone(), got));
    }
    Ok(format!("{} bytes, blake3 {}", entry.bytes, &got[..16]))
}

fn check_logits(dir: &Path, kind: &str, device: &Arc<dyn Device>) -> Result<String> {
    let path = dir.join(FILE);
    // An exported folder has published names, and a configuration with published keys.
    let Checkpoint {
        config,
        arrays,
        source,
        ..
    } = if kind == KIND_EXPORT {
        let found = find(dir)?;
        Checkpoint::open(&found.weights, &found.configs)?
    } else {
        Checkpoint {
            config: files::read_config(dir)?,
            arrays: Vec::new(),
            ignored: Vec::new(),
            source: Source::open(&Weights::Safetensors(vec![dir.join(WEIGHTS)]))?,
        }
    };
    let fingerprint = Fingerprint::read(&path, &config)?;
    let named = by_published_name(&arrays);
    let arrays = Arrays::new(&source, &named);
    let difference = fingerprint.difference(device, &config, arrays)?;
    let count = fingerprint.logits.len();
    if difference <= TOLERANCE {
        return Ok(format!(
            "largest difference {difference:.1e} of {count}, at most {TOLERANCE:.0e} is allowed"
        ));
    }
    Err(Error::Damaged {
        path: dir.join(CONFIG),
        what: "the model computes other logits than when it was written",
        expected: format!("differences of at most {TOLERANCE:e}"),
        got: format!("{difference:e}"),
        help: "the weights, the configuration or the fingerprint were exchanged; convert or export the model again",
    })
}
