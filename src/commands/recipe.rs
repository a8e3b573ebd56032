//! The recipe that a command is given.

use std::path::Path;
use tokenformer_train::Result;
use tokenformer_train::recipe::{Resolved, resolve};

/// Resolves the recipe in `path` with `sets` over it. Every value must have an effect, except in the recipe of a run
/// which has begun: that stays as it was.
pub fn of_user(path: Option<&Path>, sets: &[String]) -> Result<Resolved> {
    let resolved = resolve(path, sets)?;
    let is_of_run =
        |path: &Path| path.ends_with("config.toml") && path.with_file_name("checkpoints").is_dir();
    if !path.is_some_and(is_of_run) {
        resolved.check_effects()?;
    }
    Ok(resolved)
}
