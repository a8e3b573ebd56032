//! Tensors of another source under other names.

use std::collections::BTreeMap;

use super::Source;

/// Tensors of a source under the names of their model.
pub(crate) struct Named {
    source: Box<Source>,
    /// Maps a name in the model to its name in the source.
    names: BTreeMap<String, String>,
    note: Option<String>,
}

impl Named {
    /// Tensors of `source`, whose names in the model `names` maps to those in the source.
    pub(crate) fn new(
        source: Source,
        names: BTreeMap<String, String>,
        note: Option<String>,
    ) -> Self {
        Self {
            source: Box::new(source),
            names,
            note,
        }
    }

    /// The source of the tensors.
    pub(crate) fn inner(&self) -> &Source {
        &self.source
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The name in the source.
    pub(crate) fn original(&self, name: &str) -> Option<&str> {
        self.names.get(name).map(String::as_str)
    }

    /// A note that says which part of the source was used.
    pub(crate) fn note(&self) -> Option<String> {
        self.note.clone()
    }
}
