//! Arms by the names that a user gives.

use tokenformer_train::{Error, Result};

/// Those of `all` with these names, each once and in their order; all without names.
///
/// # Errors
/// [`Error::Recipe`] for an unknown name.
pub(crate) fn named<T: Copy>(
    all: &[T],
    name_of: impl Fn(&T) -> &'static str,
    names: &[String],
) -> Result<Vec<T>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let mut found: Vec<T> = Vec::new();
    for name in names {
        let Some(arm) = all.iter().find(|arm| name_of(arm) == name) else {
            return Err(unknown(all.iter().map(name_of), name));
        };
        if !found.iter().any(|found| name_of(found) == name) {
            found.push(*arm);
        }
    }
    Ok(found)
}

fn unknown(known: impl Iterator<Item = &'static str>, name: &str) -> Error {
    let known: Vec<&str> = known.collect();
    let near = tokenformer_base::nearest(name, known.iter().copied());
    Error::Recipe {
        place: "--arms".into(),
        problem: "no such arm".into(),
        expected: format!("names among {}", known.join(", ")),
        got: name.into(),
        help: near.map_or("leave it out for all of them".into(), |near| {
            format!("did you mean {near}?")
        }),
    }
}
