//! A text file with the name of a class per line, in the order of their numbers, as timm reads it.

use std::collections::HashSet;
use std::path::Path;

use super::MAX_CLASSES;
use crate::error::{Error, Result};
use crate::text::shown;

const MAX_BYTES: u64 = 16 << 20;

/// Reads the names; empty lines are skipped.
pub(super) fn read(path: &Path) -> Result<Vec<String>> {
    let bytes = tokenformer_store::read_small(path, MAX_BYTES)?;
    let invalid = |problem, got: String| Error::Source {
        location: path.display().to_string(),
        problem,
        expected: format!("a text file of 1 to {MAX_CLASSES} different class names, one a line"),
        got,
        help: "write the names of the class folders in the order of their numbers".into(),
    };
    let text = String::from_utf8(bytes)
        .map_err(|_| invalid("not a class map", "other bytes than UTF-8".into()))?;
    let names: Vec<String> = text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(invalid("a class twice", shown(twice)));
    }
    if names.is_empty() || names.len() > MAX_CLASSES {
        return Err(invalid(
            "a wrong number of classes",
            names.len().to_string(),
        ));
    }
    Ok(names)
}
