//! The keys that a recipe can have, and what kind of value each takes.

use super::{
    EmaTable, EvalTable, GrowEvent, ImagesTable, ModelTable, MomentsOn, PlannerTable, RanksTable,
    Recipe, Reduce, TokensOn, TrainTable,
};
use crate::error::{Error, Result};
use crate::schedule::{DecayShape, Schedule};
use tokenformer_base::nearest;
use tokenformer_core::config::{BaseSizes, NormSpan};
use tokenformer_core::growth::{Amount, At, Fill, Growth, Method, Moments};
use tokenformer_core::optim::AdamWConfig;
use tokenformer_images::Augment;
use tokenformer_images::augment::Erase;
use toml::{Table, Value};

/// A recipe with every optional key present: the keys that there are.
pub(super) fn schema() -> Table {
    let schedule = Schedule {
        decay_steps: 100,
        decay: DecayShape::Sqrt,
        ..Schedule::default()
    };
    let grow = GrowEvent {
        growth: Growth {
            method: Some(Method::Segment),
            query: Some(Amount::Add(0)),
            key: Some(Amount::Add(0)),
            value: Some(Amount::Add(0)),
            sites: [("blocks.0.ffn".to_string(), Amount::Add(16))].into(),
            at: Some(At::Even),
            width: Amount::To(128),
            noise: Some(0.316),
            shrink: Some(0.4),
            keys: Some(Fill::Zero),
            values: Some(Fill::Zero),
            norm: Some(NormSpan::Joint),
            warmup: Some(0),
            moments: Moments::Reset,
            old_lr: 0.5,
            ..Growth::default()
        },
        schedule: Some(schedule.clone()),
        control: 200,
        ..GrowEvent::default()
    };
    // A preset of images, since their sizes are keys that other models do not have.
    let model = ModelTable::from_preset("vit-mnist").expect("a preset of the library");
    let full = Recipe {
        model,
        images: ImagesTable {
            resize: true,
            augment: Augment {
                erase: Some(Erase::default()),
                ..Augment::mae()
            },
            ..ImagesTable::default()
        },
        train: TrainTable {
            drop_path: 0.1,
            ..TrainTable::default()
        },
        eval: EvalTable {
            images: 1000,
            ..EvalTable::default()
        },
        planner: PlannerTable {
            evidence: vec!["runs/growth".into()],
            grow: vec![grow.growth.clone()],
            ..PlannerTable::default()
        },
        grow: vec![grow],
        schedule,
        optimizer: AdamWConfig {
            layer_decay: 0.65,
            ..AdamWConfig::default()
        },
        ema: EmaTable {
            decay: 0.9998,
            ..EmaTable::default()
        },
        ranks: RanksTable {
            reduce: Reduce::Fast,
            moments: MomentsOn::Owner,
            tokens: TokensOn::Divided,
        },
        lr_base: BaseSizes {
            width: 64,
            mlp_hidden: 256,
            qkv: 48,
            proj: 48,
            ffn: 192,
        },
        ..Recipe::default()
    };
    // Constants alone.
    Table::try_from(&full).expect("a recipe is plain data with string keys")
}

/// Every key that a recipe can have, such as `train.steps`; those of the elements of a list as `grow.at_step`.
pub fn keys() -> Vec<String> {
    fn visit(table: &Table, path: &str, keys: &mut Vec<String>) {
        for (key, value) in table {
            let name = format!("{path}{key}");
            let inner = match value {
                // Keyed by the layers of the model.
                Value::Table(_) if name.ends_with("grow.sites") => None,
                Value::Table(inner) => Some(inner),
                Value::Array(list) => list.first().and_then(Value::as_table),
                _ => None,
            };
            match inner {
                Some(inner) => visit(inner, &format!("{name}."), keys),
                None => keys.push(name),
            }
        }
    }
    let mut keys = Vec::new();
    visit(&schema(), "", &mut keys);
    keys
}

/// Checks that every key of `table` is one of `schema`; `origin` and `path` say where it was found.
///
/// # Errors
/// [`Error::Recipe`] for the first that is none, naming the nearest.
pub(super) fn check_keys(table: &Table, schema: &Table, origin: &str, path: &str) -> Result<()> {
    for (key, value) in table {
        let Some(known) = schema.get(key) else {
            let near = nearest(key, schema.keys().map(String::as_str)).or_else(|| {
                let starts = |known: &&str| known.starts_with(key.as_str());
                schema.keys().map(String::as_str).find(starts)
            });
            let keys: Vec<&str> = schema.keys().map(String::as_str).collect();
            return Err(Error::Recipe {
                place: format!("{origin}: {path}{key}"),
                problem: "unknown key".into(),
                expected: format!("one of {}", keys.join(", ")),
                got: key.clone(),
                help: near.map_or("docs/recipe.md lists every key".into(), |near| {
                    format!("did you mean {path}{near}?")
                }),
            });
        };
        let inner = format!("{path}{key}.");
        match (known, value) {
            // Keyed by the layers of the model, which is not known here.
            (Value::Table(_), Value::Table(_)) if inner.ends_with("grow.sites.") => {}
            // Its keys depend on its kind, which is checked when it is read.
            (Value::Table(_), Value::Table(_)) if inner == "images.augment.crop." => {}
            (Value::Table(known), Value::Table(value)) => check_keys(value, known, origin, &inner)?,
            (Value::Array(known), Value::Array(values)) => {
                let Some(Value::Table(known)) = known.first() else {
                    continue;
                };
                for value in values.iter().filter_map(Value::as_table) {
                    check_keys(value, known, origin, &inner)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The kind of value that the schema has at a path.
pub(super) fn expectation(schema: &Table, path: &str) -> String {
    let mut at = Some(&Value::Table(schema.clone())).cloned();
    for key in path.split(['.', '[']).filter(|k| !k.ends_with(']')) {
        at = at.and_then(|value| match value {
            Value::Array(items) => items.first().and_then(|i| i.get(key)).cloned(),
            value => value.get(key).cloned(),
        });
    }
    match at {
        Some(Value::Integer(n)) => format!("a whole number from 0 on, such as {n}"),
        Some(Value::Float(x)) => format!("a number such as {x}"),
        Some(Value::String(s)) => format!("a string such as \"{s}\""),
        Some(Value::Boolean(_)) => "true or false".into(),
        Some(Value::Table(_)) => "a table".into(),
        Some(Value::Array(_)) => "a list of tables".into(),
        _ => "another kind of value".into(),
    }
}
