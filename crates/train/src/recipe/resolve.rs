//! From defaults, preset, file and `--set` to one recipe, remembering where each value came from.

use super::schema::{check_keys, expectation, schema};
use super::{GrowEvent, ModelTable, Recipe};
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// A recipe and the origin of its values.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The recipe.
    pub recipe: Recipe,
    origins: BTreeMap<String, String>,
}

impl Resolved {
    /// Where a value came from, such as `train.steps`: a file, `--set`, a preset; `None` for a default.
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.origins.get(key).map(String::as_str)
    }

    /// As [`Resolved::origin`], where a table counts as well: that of its first value.
    pub(super) fn origin_of(&self, key: &str) -> Option<&str> {
        let is_within = |name: &str| {
            name.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let found = self.origins.iter().find(|(name, _)| is_within(name));
        found.map(|(_, origin)| origin.as_str())
    }

    /// The whole recipe as TOML.
    pub fn to_toml(&self) -> String {
        // Numbers above what TOML has cannot be in it: `resolve_table` read all of it from TOML.
        toml::to_string(&self.recipe).expect("a recipe is plain data with string keys")
    }

    /// The whole recipe as TOML, each value with a comment that says where it came from.
    pub fn explain(&self) -> String {
        let mut lines = String::new();
        self.explain_table(&self.to_table(), "", "", &mut lines);
        lines
    }

    /// As [`Resolved::to_toml`], parsed: keys keep the order of the recipe's fields.
    fn to_table(&self) -> Table {
        // A recipe was read from TOML, so it can be written as such.
        Table::try_from(&self.recipe).expect("a recipe is plain data with string keys")
    }

    /// Appends the lines of a table. `name` is what its header calls it, and `path` what its values' origins do, both with
    /// a dot after them: the elements of a list share their name, but not their path.
    fn explain_table(&self, table: &Table, name: &str, path: &str, lines: &mut String) {
        let (tables, values): (Vec<_>, Vec<_>) = table
            .iter()
            .partition(|(_, value)| value.is_table() || is_list_of_tables(value));
        for (key, value) in values {
            let origin = self.origin(&format!("{path}{key}")).unwrap_or("default");
            let line = Table::from_iter([(key.clone(), value.clone())]).to_string();
            let line = line.trim_end();
            *lines += &match line.contains('\n') {
                false => format!("{line:<44} # {origin}\n"),
                // A comment inside of a string would be a part of it.
                true => format!("# {key}: {origin}\n{line}\n"),
            };
        }
        for (key, value) in tables {
            let (name, path) = (format!("{name}{key}"), format!("{path}{key}"));
            let mut append = |open: &str, table: &Table, close: &str, path: &str| {
                *lines += &format!("\n{open}{name}{close}\n");
                self.explain_table(table, &format!("{name}."), &format!("{path}."), lines);
            };
            match value {
                Value::Table(table) => append("[", table, "]", &path),
                list => {
                    let elements = list.as_array().into_iter().flatten();
                    for (i, table) in elements.filter_map(Value::as_table).enumerate() {
                        append("[[", table, "]]", &format!("{path}[{i}]"));
                    }
                }
            }
        }
    }
}

fn is_list_of_tables(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|list| list.first().is_some_and(Value::is_table))
}

/// Resolves the recipe of a file (`None` for defaults alone) with `--set` assignments over it.
///
/// # Errors
/// [`Error::Recipe`] for malformed TOML, unknown keys (naming the nearest), values of the wrong type or out
/// of range; [`Error::Io`] if the file cannot be read.
pub fn resolve(file: Option<&Path>, sets: &[String]) -> Result<Resolved> {
    let (table, name) = match file {
        Some(path) => (read_table(path)?, path.display().to_string()),
        None => (Table::new(), "file".into()),
    };
    resolve_table(table, &name, sets)
}

/// As [`resolve`], for a table that was read already and is called `name`.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_table(table: Table, name: &str, sets: &[String]) -> Result<Resolved> {
    let schema = schema();
    let mut layers = vec![(name.to_string(), table)];
    for set in sets {
        layers.push(("--set".into(), parse_set(set, &schema)?));
    }
    for (_, layer) in &mut layers {
        rename_old_keys(layer);
    }
    for (origin, layer) in &layers {
        check_keys(layer, &schema, origin, "")?;
    }

    let mut preset = "tiny".to_string();
    for (origin, layer) in &layers {
        match layer.get("model").and_then(|m| m.get("preset")) {
            Some(Value::String(name)) => preset.clone_from(name),
            Some(other) => {
                let place = format!("{origin}: model.preset");
                return Err(wrong(
                    place,
                    "not a name",
                    "a string",
                    other,
                    "presets are listed by `config presets`",
                ));
            }
            None => {}
        }
    }
    let model = ModelTable::from_preset(&preset)?;
    let defaults = Recipe {
        model,
        ..Recipe::default()
    };
    // Defaults and a preset of the library: no number of an input yet.
    let mut merged = Table::try_from(&defaults).expect("a recipe is plain data with string keys");
    let mut origins = BTreeMap::new();
    if let Some(Value::Table(model)) = merged.get("model") {
        let model = model.clone();
        note_origins(&model, "model.", &format!("preset {preset}"), &mut origins);
    }
    for (origin, layer) in layers {
        note_origins(&layer, "", &origin, &mut origins);
        merge(&mut merged, layer);
    }
    check_growths(&merged, &schema, &origins, name)?;
    let recipe: Recipe = serde_path_to_error::deserialize(Value::Table(merged)).map_err(|e| {
        let path = e.path().to_string();
        let origin = origins
            .get(&path)
            .cloned()
            .unwrap_or_else(|| name.to_string());
        Error::Recipe {
            place: format!("{origin}: {path}"),
            problem: "a value of the wrong kind".into(),
            expected: expectation(&schema, &path),
            got: e.into_inner().to_string().trim_end().replace('\n', " "),
            help: "docs/recipe.md lists every key with its values".into(),
        }
    })?;
    recipe.validate()?;
    Ok(Resolved { recipe, origins })
}

/// Reads each key of the tables of growths alone, since a table as a whole does not say which of its keys it failed at.
fn check_growths(
    merged: &Table,
    schema: &Table,
    origins: &BTreeMap<String, String>,
    name: &str,
) -> Result<()> {
    let planned = merged
        .get("planner")
        .and_then(|planner| planner.get("grow"));
    for (table, growths) in [("grow", merged.get("grow")), ("planner.grow", planned)] {
        for (i, growth) in growths
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            for (key, value) in growth.as_table().into_iter().flatten() {
                let alone = Table::from_iter([(key.clone(), value.clone())]);
                if let Err(error) = GrowEvent::deserialize(Value::Table(alone)) {
                    let path = format!("{table}[{i}].{key}");
                    let origin = origins.get(table).map_or(name, |o| o);
                    return Err(Error::Recipe {
                        place: format!("{origin}: {path}"),
                        problem: "a value of the wrong kind".into(),
                        expected: expectation(schema, &path),
                        got: error.to_string().trim_end().replace('\n', " "),
                        help: "docs/recipe.md lists every key with its values".into(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// Keys that had another name in earlier versions; recipes of old runs use them.
fn rename_old_keys(layer: &mut Table) {
    if let Some(Value::Table(train)) = layer.get_mut("train")
        && let Some(old) = train.remove("memory")
    {
        train.entry("recompute").or_insert(old);
    }
}

fn read_table(path: &Path) -> Result<Table> {
    const MAX_BYTES: u64 = 1 << 20;
    let bytes = tokenformer_store::read_small(path, MAX_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|e| Error::Recipe {
        place: path.display().to_string(),
        problem: "not text".into(),
        expected: "a TOML file in UTF-8".into(),
        got: format!(
            "a byte that is not UTF-8 at offset {}",
            e.utf8_error().valid_up_to()
        ),
        help: "is this the recipe?".into(),
    })?;
    text.parse::<Table>().map_err(|e| Error::Recipe {
        place: path.display().to_string(),
        problem: "not TOML".into(),
        expected: "lines like `steps = 1000` under tables like [train]".into(),
        got: e.to_string().trim_end().replace('\n', "\n            "),
        help: "recipes/ has commented examples".into(),
    })
}

/// `a.b=v` as nested tables; `v` is TOML, or else a string. Where a string is wanted it is one, even if it looks like
/// a number: folders can be called `2024`.
fn parse_set(set: &str, schema: &Table) -> Result<Table> {
    let Some((path, text)) = set
        .split_once('=')
        .filter(|(path, _)| !path.trim().is_empty())
    else {
        let help = "for example --set train.steps=500";
        return Err(wrong(
            format!("--set {set}"),
            "not an assignment",
            "KEY=VALUE",
            set,
            help,
        ));
    };
    let parsed = format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("v"));
    let mut value = parsed.unwrap_or_else(|| Value::String(text.into()));
    let path = path.trim();
    let mut keys = path.split('.');
    let known = keys.next().and_then(|key| schema.get(key));
    let known = keys.try_fold(known, |at, key| Some(at?.get(key))).flatten();
    if matches!(known, Some(Value::String(_))) && !value.is_str() {
        value = Value::String(text.into());
    }
    if path.starts_with("grow") {
        let help = "write [[grow]] tables in a recipe file";
        return Err(wrong(
            format!("--set {set}"),
            "growth is a list",
            "another key",
            path,
            help,
        ));
    }
    for key in path.rsplit('.') {
        value = Value::Table(Table::from_iter([(key.to_string(), value)]));
    }
    match value {
        Value::Table(table) => Ok(table),
        _ => unreachable!("a path has at least one part, which made a table"),
    }
}

fn merge(into: &mut Table, layer: Table) {
    for (key, value) in layer {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(value)) => merge(into, value),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn note_origins(table: &Table, path: &str, origin: &str, origins: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let name = format!("{path}{key}");
        match value {
            Value::Table(inner) => note_origins(inner, &format!("{name}."), origin, origins),
            value => {
                if origins.insert(name.clone(), origin.into()).is_some() {
                    // A list replaces an earlier one as a whole.
                    let element = format!("{name}[");
                    origins.retain(|known, _| !known.starts_with(&element));
                }
                for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
                    if let Some(inner) = inner.as_table() {
                        note_origins(inner, &format!("{name}[{i}]."), origin, origins);
                    }
                }
            }
        }
    }
}

fn wrong(place: String, problem: &str, expected: &str, got: impl ToString, help: &str) -> Error {
    Error::Recipe {
        place,
        problem: problem.into(),
        expected: expected.into(),
        got: got.to_string(),
        help: help.into(),
    }
}
