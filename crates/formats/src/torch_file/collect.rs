//! From a pickled value to the tensors in it.

use std::sync::Arc;

use super::tensors::listed_bytes;
use super::{Archive, Tensors, tensor};
use crate::Result;
use crate::error::shown;
use crate::pickle::Value;

/// Containers inside containers that are followed.
const MAX_DEPTH: usize = 32;
const MAX_NAME_BYTES: usize = 1024;

/// Lists the tensors under a value, nested ones by their dotted path.
pub(super) fn collect(archive: &Arc<Archive>, value: Value<'_>) -> Result<Tensors> {
    let mut collector = Collector {
        archive,
        tensors: Tensors::new(&archive.path),
        budget_bytes: archive.budget_bytes(),
    };
    collector.visit(&mut String::new(), value, 0)?;
    Ok(collector.tensors)
}

struct Collector<'a> {
    archive: &'a Arc<Archive>,
    tensors: Tensors,
    budget_bytes: usize,
}

impl Collector<'_> {
    fn visit(&mut self, name: &mut String, value: Value<'_>, depth: usize) -> Result<()> {
        // Shared parts may be reached in more ways than there are parts: each visit is paid for.
        const VISIT_BYTES: usize = 64;
        self.charge(VISIT_BYTES)?;
        if let Some(view) = tensor::strided(self.archive, name, value)? {
            if name.len() > MAX_NAME_BYTES {
                return Err(self.archive.damaged(
                    "a tensor's name is too long".into(),
                    format!("at most {MAX_NAME_BYTES} bytes"),
                    shown(name),
                ));
            }
            self.charge(view.storage.len() + listed_bytes(name, &view.shape))?;
            return self.tensors.push_strided(self.archive, name.clone(), view);
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
