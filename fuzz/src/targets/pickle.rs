//! Pickles, with a budget of twice their size and a little more.

use tokenformer_formats::pickle::{Pickle, Value};

use super::KIB;
use crate::memory::bounded;

/// Reads the input as a pickle and looks at a bounded part of what it holds.
pub fn run(input: &[u8]) {
    let budget_bytes = 2 * input.len() + 256 * KIB;
    bounded(input, 640 * KIB, || {
        if let Ok(pickle) = Pickle::read("input", input, budget_bytes) {
            let mut left = 1000;
            look(pickle.root(), 8, &mut left);
        }
    });
}

/// Asks a value everything that readers ask; values may contain themselves.
fn look(value: Value<'_>, depth: usize, left: &mut usize) {
    if depth == 0 || *left == 0 {
        return;
    }
    *left -= 1;
    let numbers = (
        value.as_bool(),
        value.as_i64(),
        value.as_usize(),
        value.as_f64(),
    );
    let texts = (value.as_str(), value.as_bytes(), value.as_global());
    assert!(value.describe().len() < 1000, "{numbers:?} {texts:?}");
    let _ = (value.get("module"), value.at(&["a", "b"]), value.element(0));
    if let Some(object) = value.as_object() {
        assert!(!object.class.is_empty());
        for part in [object.args, object.state, object.content] {
            look(part, depth - 1, left);
        }
    }
    if let Some(key) = value.as_persistent() {
        look(key, depth - 1, left);
    }
    for element in value.elements().into_iter().flatten() {
        look(element, depth - 1, left);
    }
    for (key, entry) in value.entries().into_iter().flatten() {
        look(key, depth - 1, left);
        look(entry, depth - 1, left);
    }
}
