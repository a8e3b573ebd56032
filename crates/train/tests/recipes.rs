//! The recipes of the repository and what their comments say, and the page that lists their keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokenformer_train::recipe::{Recipe, keys, resolve};
use toml::{Table, Value};

/// A file of the repository.
fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

fn recipe(name: &str) -> Recipe {
    let resolved = resolve(Some(&in_repository(name)), &[]).unwrap();
    resolved.check_effects().unwrap();
    resolved.recipe
}

#[test]
fn every_recipe_can_be_used_as_it_stands() {
    for folder in ["recipes", "recipes/vision"] {
        for entry in std::fs::read_dir(in_repository(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".toml") {
                recipe(&format!("{folder}/{name}"));
            }
        }
    }
}

/// "A decay at the end only, so that each stage learns at the full rate."
#[test]
fn the_recipe_that_grows_decays_at_its_end_only() {
    let recipe = recipe("recipes/grow.toml");
    let growths: Vec<u64> = recipe.grow.iter().map(|growth| growth.at_step).collect();
    assert_eq!((growths, recipe.train.steps), (vec![1000, 2000], 3000));
    for step in recipe.schedule.warmup_steps..=2400 {
        assert_eq!(recipe.lr_at(step), recipe.schedule.lr, "step {step}");
    }
    assert!(recipe.lr_at(2401) < recipe.schedule.lr);
    let last = recipe.lr_at(3000) / recipe.schedule.lr;
    assert!((last - 0.1).abs() < 1e-9, "{last}");
}

/// The default of every key in the tables of `docs/recipe.md`, as it stands there.
fn documented() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(in_repository("docs/recipe.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [key, _, default, _] = cells[..] else {
            panic!("not four columns: {row}");
        };
        let key = key.trim_start_matches("| ").trim_end_matches(" *");
        (key.replace('`', ""), default.replace('`', ""))
    })
    .collect()
}

#[test]
fn every_key_has_a_row() {
    let rows = documented();
    let keys = keys();
    // Some tables have the keys of another one.
    let is_told = |key: &String| {
        let own = ["grow.schedule.", "planner.grow."].iter().any(|table| {
            key.strip_prefix(table).is_some() && rows.contains_key(table.trim_end_matches('.'))
        });
        own || rows.contains_key(key)
    };
    let missing: Vec<&String> = keys.iter().filter(|key| !is_told(key)).collect();
    assert!(missing.is_empty(), "without a row: {missing:?}");
    // Of another kind of crop than the one that the list of keys has.
    let other = [
        "images.augment.crop.pixels",
        "grow.schedule",
        "planner.grow",
    ];
    let unknown: Vec<&String> = (rows.keys())
        .filter(|row| !keys.contains(row) && !other.contains(&row.as_str()))
        .collect();
    assert!(unknown.is_empty(), "no such key: {unknown:?}");
}

#[test]
fn the_defaults_of_the_rows_are_those_of_a_recipe() {
    fn visit(table: &Table, path: &str, rows: &BTreeMap<String, String>, seen: &mut usize) {
        for (key, value) in table {
            let name = format!("{path}{key}");
            if let Value::Table(inner) = value {
                visit(inner, &format!("{name}."), rows, seen);
                continue;
            }
            let told = match rows[&name].as_str() {
                "none" => "\"\"",
                told => told,
            };
            let told = format!("v = {told}").parse::<Table>().unwrap().remove("v");
            let told = told.unwrap();
            let number = |value: &Value| value.as_float().or(value.as_integer().map(|n| n as f64));
            let is_same = match (number(&told), number(value)) {
                (Some(told), Some(value)) => told == value,
                _ => told == *value,
            };
            assert!(is_same, "{name}: {told} in the row, {value} in a recipe");
            *seen += 1;
        }
    }
    let mut seen = 0;
    let defaults = Table::try_from(Recipe::default()).unwrap();
    visit(&defaults, "", &documented(), &mut seen);
    assert!(seen > 50, "{seen} values");
}
