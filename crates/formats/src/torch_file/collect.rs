//! Lists the tensors in a pickled value.

use std::sync::Arc;

use super::tensor::Found;
use super::tensors::{MAX_REPEATED_ELEMENTS, listed_bytes};
use super::{Archive, Strided, Tensors, elements, tensor};
use crate::Result;
use crate::error::shown;
use crate::pickle::Value;

/// Limit of nested containers.
const MAX_DEPTH: usize = 32;
const MAX_NAME_BYTES: usize = 1024;

/// Lists the tensors under a value, nested ones by their dotted path.
pub(super) fn collect(archive: &Arc<Archive>, value: Value<'_>) -> Result<Tensors> {
    let mut collector = Collector {
        archive,
        tensors: Tensors::new(&archive.path),
        budget_bytes: archive.budget_bytes(),
        repeated: MAX_REPEATED_ELEMENTS,
    };
    collector.visit(&mut String::new(), value, 0)?;
    Ok(collector.tensors)
}

struct Collector<'a> {
    archive: &'a Arc<Archive>,
    tensors: Tensors,
    budget_bytes: usize,
    /// Remaining budget for elements of tensors that repeat some.
    repeated: usize,
}

impl Collector<'_> {
    fn visit(&mut self, name: &mut String, value: Value<'_>, depth: usize) -> Result<()> {
        // A shared part may be reached in many ways, so each visit counts against the budget.
        const VISIT_BYTES: usize = 64;
        self.charge(VISIT_BYTES)?;
        match tensor::strided(self.archive, name, value)? {
            Some(Found::Read(view)) => return self.push(name, view),
            Some(Found::Unread(why)) => return self.leave_out(name, why),
            None if is_opaque(value) => {
                return self.leave_out(name, format!("it is {}", value.describe()));
            }
            None => {}
        }
        let children = value
            .entries()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                Some((
                    key.as_str()
                        .map(str::to_owned)
                        .or_else(|| Some(key.as_i64()?.to_string()))?,
                    value,
                ))
            });
        let elements = value
            .elements()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, value)| (index.to_string(), value));
        for (key, child) in children.chain(elements) {
            let length = name.len();
            if depth == MAX_DEPTH {
                return Err(self.archive.damaged(
                    "the values are nested too deeply".into(),
                    format!("at most {MAX_DEPTH} levels"),
                    format!("more at {}", shown(name)),
                ));
            }
            self.charge(key.len())?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&key);
            self.visit(name, child, depth + 1)?;
            name.truncate(length);
        }
        Ok(())
    }

    fn push(&mut self, name: &str, view: Strided) -> Result<()> {
        if name.len() > MAX_NAME_BYTES {
            return Err(self.archive.damaged(
                "a tensor's name is too long".into(),
                format!("at most {MAX_NAME_BYTES} bytes"),
                shown(name),
            ));
        }
        if view.repeats {
            let count = elements(&view.shape).unwrap_or(usize::MAX);
            match self.repeated.checked_sub(count) {
                Some(left) => self.repeated = left,
                None => {
                    let why = format!(
                        "it repeats numbers, {count} in all, and those of a file may come to {MAX_REPEATED_ELEMENTS}"
                    );
                    return self.leave_out(name, why);
                }
            }
        }
        self.charge(view.storage.len() + listed_bytes(name, &view.shape))?;
        (self.tensors).push_strided(self.archive, name.into(), view)
    }

    /// Records an object that cannot be read as a tensor. Names that are too long are not recorded, since no reader
    /// requests them.
    fn leave_out(&mut self, name: &str, why: String) -> Result<()> {
        if name.len() > MAX_NAME_BYTES {
            return Ok(());
        }
        self.charge(why.len() + listed_bytes(name, &[]))?;
        self.tensors.leave_out(name.into(), why);
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.budget_bytes.checked_sub(bytes) {
            Some(left) => {
                self.budget_bytes = left;
                Ok(())
            }
            None => Err(self.archive.damaged(
                "listing the tensors takes more memory than the file justifies".into(),
                format!("{} bytes at most", self.archive.budget_bytes()),
                "more, by values that share parts".into(),
            )),
        }
    }
}

/// Whether a value could be in the place of a tensor: the extra state of a layer, or `None`.
fn is_opaque(value: Value<'_>) -> bool {
    value.is_none() || value.as_bytes().is_some() || value.as_object().is_some()
}
