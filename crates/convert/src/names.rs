//! Finds the names of the model's tensors in a file that adds prefixes or wrapper parts to them.
//!
//! Training code keeps weights under a key (`model`, `state_dict`), which makes a prefix of the dotted names here.
//! Module wrappers add parts (`module.`, `_orig_mod.`) before and inside names. The prefix is found from the names that
//! the configuration requires: it is what precedes all of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::shown;
use crate::source::{Held, Named, Source};
use crate::{Error, Result};

/// Parts of names that module wrappers add. No name of a model has one.
const WRAPPERS: [&str; 6] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];

/// Names of the module that is an output head, in the code of several models.
pub(crate) const HEADS: [&str; 3] = ["lm_head", "embed_out", "final_linear"];

/// Renames tensors to the names that are wanted, by removing their common prefix and the parts that wrappers added. An
/// output head (a module named in `heads`) that lies beside the model, in a module that holds both, gets the name that it
/// would have in the model.
///
/// # Errors
/// [`Error::Ambiguous`] when all wanted names occur under several prefixes, [`Error::Damaged`] when the name of a wanted
/// tensor or of a head occurs twice.
pub(crate) fn named(source: Source, wanted: &BTreeSet<&str>, heads: &[&str]) -> Result<Source> {
    let prefix = prefix(&source, wanted)?;
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for original in source.names() {
        let name = match original.strip_prefix(&prefix) {
            // Tensors of an optimizer are not weights, even if their names look like it.
            Some(rest) if rest.split('.').any(is_optimizer) => continue,
            Some(rest) => without_wrappers(rest),
            None => match head_beside(original, &prefix, heads) {
                Some(head) => head,
                None => continue,
            },
        };
        let must_be_one = wanted.contains(&*name) || is_of(heads, &name);
        if let Some(other) = names.get(&name).filter(|_| must_be_one) {
            return Err(Error::Damaged {
                path: source.path().into(),
                what: "two tensors have the same name in the model",
                expected: format!("{name} once"),
                got: format!("{} and {}", shown(other), shown(original)),
                help: "save the state dict of the model alone: torch.save(model.state_dict(), path)",
            });
        }
        names.insert(name, original.into());
    }
    let is_same = names.iter().all(|(name, original)| name == original);
    if is_same && names.len() == source.names().count() {
        return Ok(source);
    }
    let note = (!prefix.is_empty()).then(|| {
        format!(
            "the weights are the tensors whose names begin with {}",
            shown(&prefix)
        )
    });
    Ok(Source::Named(Named::new(source, names, note)))
}

/// The prefix of all wanted names; else the prefix that most of them have.
fn prefix(source: &Source, wanted: &BTreeSet<&str>) -> Result<String> {
    let longest = wanted.iter().map(|name| name.len()).max().unwrap_or(0);
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for original in source.names() {
        for (before, name) in ends(original, longest) {
            if let Some(name) = wanted.get(&*name) {
                found.entry(before).or_default().insert(name);
            }
        }
    }
    found.retain(|before, _| !before.split('.').any(is_optimizer));
    let whole = (found.iter()).filter(|(_, names)| names.len() == wanted.len());
    let whole: Vec<&str> = whole.map(|(&before, _)| before).collect();
    match whole[..] {
        [] => {
            let most = found.iter().max_by_key(|(_, names)| names.len());
            Ok(most.map_or("", |(&before, _)| before).into())
        }
        [one] => Ok(one.into()),
        _ => Err(Error::Ambiguous {
            path: source.path().into(),
            places: whole.into_iter().map(place).collect(),
        }),
    }
}

/// Whether a name is that of the matrix of an output head.
pub(crate) fn is_head(name: &str) -> bool {
    is_of(&HEADS, name) && name.ends_with(".weight")
}

/// Whether a name is that of a tensor of one of these modules.
fn is_of(modules: &[&str], name: &str) -> bool {
    let module = name.rsplit('.').nth(1);
    module.is_some_and(|module| modules.contains(&module))
}

/// The name, in its module, of a tensor of an output head that does not lie under the model's prefix but beside it: in a
/// module that the prefix leads through. Those who wrap a model keep its head there, and it is a part of what the model
/// computes.
fn head_beside(original: &str, prefix: &str, heads: &[&str]) -> Option<String> {
    // The second way to part a name leaves the tensor and its module.
    let (before, head) = ends(original, usize::MAX).nth(1)?;
    let leads_there = without_wrappers(prefix).starts_with(&without_wrappers(before));
    (leads_there && is_of(heads, &head)).then_some(head)
}

/// A prefix as it is shown in messages.
fn place(prefix: &str) -> String {
    match prefix.strip_suffix('.') {
        Some(key) => shown(key),
        None => "names without a prefix".into(),
    }
}

/// Every way to split a name into a prefix, with its dot, and a rest without wrapper parts.
fn ends(original: &str, longest: usize) -> impl Iterator<Item = (&str, String)> {
    let mut end = String::new();
    let mut before = original;
    let next = move || {
        loop {
            let at = before.rfind('.').map_or(0, |dot| dot + 1);
            let (start, part) = (before.get(..at)?, before.get(at..)?);
            if at == 0 && part.is_empty() {
                return None;
            }
            before = start.strip_suffix('.').unwrap_or_default();
            if WRAPPERS.contains(&part) {
                continue;
            }
            end = match end.is_empty() {
                true => part.into(),
                false => format!("{part}.{end}"),
            };
            return (end.len() <= longest).then(|| (start, end.clone()));
        }
    };
    std::iter::from_fn(next)
}

fn without_wrappers(name: &str) -> String {
    let parts: Vec<&str> = (name.split('.'))
        .filter(|part| !WRAPPERS.contains(part))
        .collect();
    parts.join(".")
}

fn is_optimizer(part: &str) -> bool {
    part.starts_with("optim")
}

/// Returns an error if a wanted tensor does not hold weights.
pub(crate) fn expect_weights(source: &Source, name: &str) -> Result<()> {
    match source.held(name, 0) {
        Some(Held::Integers(got) | Held::Unread(got)) => Err(Error::NoWeights {
            path: source.path().into(),
            name: name.into(),
            got,
        }),
        _ => Ok(()),
    }
}

/// Notes for the user about tensors that were not read. It is called after all wanted tensors were found.
pub(crate) fn left_out(source: &Source) -> Option<String> {
    let mut unread = source
        .names()
        .filter_map(|name| match source.held(name, 0)? {
            Held::Unread(why) => Some((name, why)),
            _ => None,
        });
    let (name, why) = unread.next()?;
    let more = match unread.count() {
        0 => String::new(),
        more => format!(", and {more} more like it"),
    };
    Some(format!("left out: {} ({why}){more}", shown(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parted_at_their_dots() {
        let parted: Vec<(&str, String)> = ends("model.module.a._orig_mod.b", 10).collect();
        let expected = [
            ("model.module.a._orig_mod.", "b"),
            ("model.module.", "a.b"),
            ("", "model.a.b"),
        ];
        let expected: Vec<_> = expected
            .map(|(before, end)| (before, end.to_string()))
            .into();
        assert_eq!(parted, expected);
        assert_eq!(
            ends("a.b", 1).collect::<Vec<_>>(),
            [("a.", "b".to_string())]
        );
        assert_eq!(ends("", 9).count(), 0);
    }

    #[test]
    fn a_head_beside_the_model_is_found_through_wrappers() {
        let found = |name, prefix| head_beside(name, prefix, &HEADS);
        let head = Some("lm_head.weight".to_string());
        assert_eq!(found("lm_head.weight", "model."), head);
        assert_eq!(found("_orig_mod.lm_head.weight", "model."), head);
        assert_eq!(found("net.lm_head.weight", "module.net.model."), head);
        assert_eq!(found("ema.lm_head.weight", "net.model."), None);
        assert_eq!(found("ne.lm_head.weight", "net.model."), None);
        assert_eq!(found("norm.weight", "model."), None);
    }
}
