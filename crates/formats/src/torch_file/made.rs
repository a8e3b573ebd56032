//! Finds the call that makes a tensor inside the calls that only add a class and attributes.

use crate::error::shown;
use crate::pickle::Value;

/// A call that makes a tensor from a storage.
pub(super) struct Made<'p> {
    pub(super) args: Value<'p>,
    /// Index of the argument with the element type, if the storage's class does not determine it.
    pub(super) dtype: Option<usize>,
    /// Index of the argument that says how to interpret the bytes, such as negated numbers.
    metadata: usize,
}

/// Limit of nested calls around a tensor; PyTorch makes two.
const MAX_WRAPPERS: usize = 8;

/// Limit of the attributes and of the metadata of a tensor, which a pickle can share between many.
const MAX_ENTRIES: usize = 256;

/// The call of a value, or the reason why its tensor cannot be read; `None` if it is not a tensor.
pub(super) fn made(value: Value<'_>) -> Option<Result<Made<'_>, String>> {
    let object = value.as_object()?;
    let (mut class, mut args, mut state) = (object.class, object.args, Some(object.state));
    for _ in 0..MAX_WRAPPERS {
        let function = match class {
            "torch.nn.parameter.Parameter" | "torch._tensor._rebuild_from_type_v2" => class,
            _ => class.strip_prefix("torch._utils._rebuild_")?,
        };
        // PyTorch changes the numbers of a tensor when its pickle sets a state on it.
        if state.is_some_and(|state| !state.is_none()) {
            return Some(Err("its pickle changes it after it was made".into()));
        }
        let plain = |dtype, metadata| Made {
            args,
            dtype,
            metadata,
        };
        let (inside, attributes) = match function {
            "tensor" | "tensor_v2" => return Some(Ok(plain(None, 6))),
            "tensor_v3" => return Some(Ok(plain(Some(6), 7))),
            "parameter" | "parameter_with_state" | "torch.nn.parameter.Parameter" => {
                (args.element(0)?, args.element(3))
            }
            "torch._tensor._rebuild_from_type_v2" => {
                let kind = args.element(1)?.as_global()?;
                if !matches!(kind, "torch.Tensor" | "torch.nn.parameter.Parameter") {
                    return Some(Err(format!("it is a tensor of the class {}", shown(kind))));
                }
                if let Some(problem) = args.element(3).and_then(other_numbers) {
                    return Some(Err(problem));
                }
                (class, args, state) = (args.element(0)?.as_global()?, args.element(2)?, None);
                continue;
            }
            _ => return Some(Err(format!("it was made by {class}"))),
        };
        if let Some(problem) = attributes.and_then(other_numbers) {
            return Some(Err(problem));
        }
        let object = inside.as_object()?;
        (class, args, state) = (object.class, object.args, Some(object.state));
    }
    Some(Err("too many calls lie around it".into()))
}

/// The problem of attributes that change the numbers of a tensor.
fn other_numbers(attributes: Value<'_>) -> Option<String> {
    const NUMBERS: [&str; 3] = ["data", "real", "imag"];
    // A dict, or a pair of the dict and the slots.
    let pair = attributes.elements().into_iter().flatten();
    let sizes = pair.take(MAX_ENTRIES).chain([attributes]).map(|part| {
        let entries = part.entries().map_or(0, |entries| entries.len());
        entries + part.elements().map_or(0, |elements| elements.len())
    });
    let size = sizes.fold(0, usize::saturating_add);
    if size > MAX_ENTRIES {
        return Some(format!("it has {size} attributes or more"));
    }
    let dicts = attributes
        .elements()
        .into_iter()
        .flatten()
        .chain([attributes]);
    let mut keys = dicts
        .filter_map(Value::entries)
        .flatten()
        .filter_map(|(key, _)| key.as_str());
    let key = keys.find(|key| NUMBERS.contains(key))?;
    Some(format!("its attribute {key} gives it other numbers"))
}

impl Made<'_> {
    /// Whether the numbers are the negatives of those in the storage; an error says which property is not supported.
    pub(super) fn is_negated(&self) -> Result<bool, String> {
        const HOOKS: usize = 5;
        let hooks = self.args.element(HOOKS);
        if hooks.is_some_and(|hooks| !is_empty(hooks)) {
            return Err("it has hooks, which are not followed".into());
        }
        let Some(metadata) = self.args.element(self.metadata).filter(|m| !m.is_none()) else {
            return Ok(false);
        };
        let entries = metadata
            .entries()
            .ok_or_else(|| format!("its metadata is {}", metadata.describe()))?;
        if entries.len() > MAX_ENTRIES {
            return Err(format!("its metadata has {} entries", entries.len()));
        }
        let mut negated = false;
        for (key, value) in entries {
            match (key.as_str(), value.as_bool()) {
                (Some("neg"), Some(value)) => negated = value,
                (Some("conj"), Some(false)) => {}
                _ => {
                    let key = key.as_str().map_or_else(|| key.describe(), shown);
                    return Err(format!(
                        "its metadata has {key}: {}, which is not followed",
                        value.describe()
                    ));
                }
            }
        }
        Ok(negated)
    }
}

fn is_empty(value: Value<'_>) -> bool {
    value.is_none() || value.entries().is_some_and(|entries| entries.len() == 0)
}
