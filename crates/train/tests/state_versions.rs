//! `state.json` of earlier versions is read, and one that no run can have written is refused.

use serde_json::{Value, json};
use tokenformer_train::files::{STATE, TrainState, read_state};
use tokenformer_train::recipe::ModelTable;
use tokenformer_train::{Error, Result};

/// Reads a state with some keys changed; `null` takes one away.
fn read(changes: &[(&str, Value)]) -> Result<TrainState> {
    let mut table = ModelTable::from_preset("nano").unwrap();
    table.context = 64;
    let state = TrainState::new(1, table, "hash".into());
    let mut json = serde_json::to_value(&state).unwrap();
    let keys = json.as_object_mut().unwrap();
    for (key, value) in changes {
        match value {
            Value::Null => assert!(keys.remove(*key).is_some(), "{key}"),
            value => {
                keys.insert((*key).into(), value.clone());
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(STATE), json.to_string()).unwrap();
    read_state(dir.path())
}

#[test]
fn batches_of_an_earlier_version_become_windows() {
    // Ten updates of two micro-batches with four windows of 64 tokens each.
    let old = [
        ("windows", Value::Null),
        ("skipped_in_row", Value::Null),
        ("step", json!(10)),
        ("batches", json!(20)),
        ("tokens", json!(10 * 2 * 4 * 64)),
    ];
    let state = read(&old).unwrap();
    assert_eq!((state.windows, state.skipped_in_row), (80, 0));
    // It is written in the new way.
    let written = serde_json::to_value(&state).unwrap();
    assert_eq!(written["windows"], 80);
    assert_eq!(written.get("batches"), None);
}

#[test]
fn windows_are_kept_as_they_are() {
    let state = read(&[("windows", json!(7)), ("tokens", json!(6400))]).unwrap();
    assert_eq!(state.windows, 7);
}

#[test]
fn counters_that_would_overflow_are_refused() {
    for key in ["step", "tokens", "windows", "skipped", "skipped_in_row"] {
        let error = read(&[(key, json!(u64::MAX))]).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{key}: {error}");
    }
    assert!(read(&[("no_such_key", json!(1))]).is_err());
}

/// Losses of pictures that are shown in another way are no rivals; states of older versions say less, or nothing.
#[test]
fn the_best_is_forgotten_where_something_else_is_measured() {
    let now = "0 of abc, shown as def";
    for (before, is_kept) in [
        (now, true),
        ("0 of abc", true),
        ("", true),
        ("0 of abc, shown as ddd", false),
        ("5 of abc", false),
    ] {
        let best = json!({"step": 3, "loss": 1.5});
        let mut state = read(&[("best", best), ("step", json!(4))]).unwrap();
        state.measured_on = before.into();
        state.measure_on(now.into());
        assert_eq!(state.best.is_some(), is_kept, "{before:?}");
        assert_eq!(state.measured_on, now);
    }
}
