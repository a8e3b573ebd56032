//! Where a dataset is, or how to make it.

use crate::{shell, usage};
use std::path::{Path, PathBuf};
use tokenformer_images::dataset::is_image_dataset;
use tokenformer_train::recipe::Resolved;
use tokenformer_train::{Error, Result};

/// Resolves `data.dir` of a recipe: as it is, or else relative to the folder of the recipe file that names it, so that
/// a recipe and its data can be moved together.
///
/// # Errors
/// If there is no dataset in either place; the message says how to make it.
pub fn locate(resolved: &mut Resolved, recipe: Option<&Path>) -> Result<()> {
    let named = PathBuf::from(&resolved.recipe.data.dir);
    // A recipe without data has its own answer: `inspect --plan` does without.
    if named.as_os_str().is_empty() || is_dataset(&named) {
        return Ok(());
    }
    let kind = match resolved.recipe.model.input.is_tokens() {
        true => Kind::Text,
        false => Kind::Pictures,
    };
    let from_recipe = resolved.origin("data.dir") != Some("--set");
    let beside = recipe
        .filter(|_| from_recipe && named.is_relative())
        .and_then(Path::parent);
    let Some(folder) = beside.filter(|folder| !folder.as_os_str().is_empty()) else {
        return Err(missing("data.dir", &named, None, kind));
    };
    let found = folder.join(&named);
    match found.to_str() {
        Some(text) if is_dataset(&found) => {
            resolved.recipe.data.dir = text.into();
            Ok(())
        }
        _ => Err(missing("data.dir", &named, Some(folder), kind)),
    }
}

/// Refuses a folder that holds no dataset of text, for the flag `flag`.
///
/// # Errors
/// With the command that makes one.
pub fn ensure_text(flag: &str, dir: &Path) -> Result<()> {
    if is_image_dataset(dir) {
        let help = "name the folder of a text that `data prepare --input` or `data import` made";
        return Err(usage(flag, "a dataset of text", "one of pictures", help));
    }
    match is_dataset(dir) {
        true => Ok(()),
        false => Err(missing(flag, dir, None, Kind::Text)),
    }
}

/// What a dataset consists of.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Pictures,
}

fn is_dataset(dir: &Path) -> bool {
    dir.join("dataset.json").exists() || is_image_dataset(dir)
}

fn missing(place: &str, dir: &Path, beside: Option<&Path>, kind: Kind) -> Error {
    let here = std::env::current_dir().map_or_else(|_| ".".into(), |dir| dir.display().to_string());
    let got = match (dir.is_dir(), beside) {
        (true, _) => "a folder without dataset.json".to_string(),
        (false, _) if dir.exists() => "a file".to_string(),
        (false, _) if dir.is_absolute() => "no such folder".to_string(),
        (false, None) => format!("no such folder in {here}"),
        (false, Some(folder)) => {
            format!(
                "no such folder in {here}, nor beside the recipe in {}",
                folder.display()
            )
        }
    };
    // The folder may hold the text or the pictures themselves.
    let (input, out) = match dir.exists() {
        true => (shell::path(dir), renamed(dir)),
        false => ("FILES-OR-FOLDERS".into(), dir.into()),
    };
    let (what, flag) = match kind {
        Kind::Text => ("text", "--input"),
        Kind::Pictures => ("pictures", "--images"),
    };
    let command = format!(
        "tokenformer data prepare {flag} {input} --out {}",
        shell::path(&out)
    );
    let makers = match kind {
        Kind::Text => "`data prepare` or `data import`",
        Kind::Pictures => "`data prepare`, `data fetch` or `data make`",
    };
    let help = match (known_set(dir, kind), dir.exists()) {
        (Some(make), false) => format!("check the path, or make it with: {make}"),
        (_, true) => format!("if this is {what}, make a dataset of it with: {command}"),
        (_, false) => format!("check the path, or make the dataset of your {what} with: {command}"),
    };
    Error::Damaged {
        path: dir.into(),
        problem: format!(
            "no dataset for {place}\n  expected: a folder that {makers} made\n  got:      {got}"
        ),
        help,
    }
}

/// The command that makes the set of pictures after which the folder is named.
fn known_set(dir: &Path, kind: Kind) -> Option<String> {
    let name = dir.file_name()?.to_str()?;
    let verb = match (kind, name) {
        (Kind::Pictures, "fashion-mnist" | "digits" | "emoji") => "fetch",
        (Kind::Pictures, "fractals") => "make",
        _ => return None,
    };
    let out = shell::path(dir);
    Some(format!("tokenformer data {verb} {name} --out {out}"))
}

/// A name next to `dir` for the dataset of the text in it.
fn renamed(dir: &Path) -> PathBuf {
    let mut name = dir
        .file_name()
        .unwrap_or_else(|| "text".as_ref())
        .to_os_string();
    name.push("-tokens");
    dir.with_file_name(name)
}
