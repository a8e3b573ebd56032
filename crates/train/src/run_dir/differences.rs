//! The differences between the recipe of a resumed run and its earlier recipe.

use super::CONFIG_TOML;
use crate::recipe::{Recipe, resolve};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A line for each value of `now` that is another in the recipe of the run that the checkpoint `from` belongs to.
/// Nothing if it belongs to none.
pub(super) fn differences(from: &Path, now: &Recipe) -> Vec<String> {
    let Some(path) = recipe_beside(from).filter(|path| path.exists()) else {
        return Vec::new();
    };
    match resolve(Some(&path), &[]) {
        Ok(before) => compare(&before.recipe, now),
        Err(error) => {
            let problem = error.to_string();
            let problem = problem.lines().next().unwrap_or_default();
            vec![format!("what has changed since is not known: {problem}")]
        }
    }
}

/// The recipe in the run directory of the checkpoint `from`; `None` if it is not in a run directory.
fn recipe_beside(from: &Path) -> Option<PathBuf> {
    let from = from.canonicalize().ok()?;
    let folder = from
        .parent()
        .filter(|folder| folder.ends_with("checkpoints"))?;
    Some(folder.parent()?.join(CONFIG_TOML))
}

fn compare(before: &Recipe, now: &Recipe) -> Vec<String> {
    let [before, now] = [before, now].map(values);
    let keys = before
        .keys()
        .chain(now.keys().filter(|key| !before.contains_key(*key)));
    let shown = |values: &BTreeMap<String, String>, key| {
        values.get(key).cloned().unwrap_or_else(|| "not set".into())
    };
    keys.filter(|key| before.get(*key) != now.get(*key))
        .map(|key| {
            format!(
                "{key} is {} now, and was {}",
                shown(&now, key),
                shown(&before, key)
            )
        })
        .collect()
}

/// All values of a recipe by key, such as `train.batch` or `grow[0].at_step`.
fn values(recipe: &Recipe) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    // A recipe was read from TOML, so it can be written as such.
    let table = Table::try_from(recipe).expect("a recipe is plain data with string keys");
    collect("", &Value::Table(table), &mut found);
    found
}

fn collect(key: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let dot = if key.is_empty() { "" } else { "." };
                collect(&format!("{key}{dot}{name}"), value, found);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                collect(&format!("{key}[{i}]"), value, found);
            }
        }
        value => {
            found.insert(key.into(), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::GrowEvent;

    #[test]
    fn each_value_that_differs_has_a_line() {
        let before = Recipe::default();
        let mut now = before.clone();
        assert_eq!(compare(&before, &now), Vec::<String>::new());
        now.train.batch = 3;
        now.optimizer.clip = 0.5;
        now.schedule.lr = 0.25;
        now.data.dir = "a b".into();
        now.grow.push(GrowEvent {
            at_step: 7,
            ..GrowEvent::default()
        });
        let lines = compare(&before, &now);
        for line in [
            "data.dir is \"a b\" now, and was \"\"",
            "train.batch is 3 now, and was 8",
            "optimizer.clip is 0.5 now, and was 1.0",
            "schedule.lr is 0.25 now, and was 0.001",
            "grow[0].at_step is 7 now, and was not set",
        ] {
            assert!(lines.iter().any(|l| l == line), "no {line:?} in {lines:#?}");
        }
    }
}
