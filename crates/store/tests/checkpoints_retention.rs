//! Old checkpoints go; the newest good one, the best and the protected ones stay.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tokenformer_store::{CheckpointWriter, Error, Which, resolve};

fn run_with(run: &Path, steps: impl IntoIterator<Item = u64>) -> CheckpointWriter {
    let mut writer = CheckpointWriter::open(run, &mut |warning| panic!("{warning}")).unwrap();
    for step in steps {
        writer
            .save(step, "checkpoint", |dir| {
                dir.write_bytes("weights", &[1, 2, 3])
            })
            .unwrap_or_else(|e: Error| panic!("{e}"));
    }
    writer
}

fn steps(writer: &CheckpointWriter) -> Vec<u64> {
    writer
        .list()
        .unwrap()
        .into_iter()
        .map(|(step, _)| step)
        .collect()
}

fn damage(writer: &CheckpointWriter, step: u64) {
    fs::write(writer.dir_for(step).join("weights"), [1, 2, 4]).unwrap();
}

#[test]
fn the_last_the_best_and_the_protected_stay() {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = run_with(scratch.path(), 1..=9);
    writer.set_best(3).unwrap();
    writer.set_best_average(5).unwrap();
    assert_eq!(writer.retain(2, &[1, 77]).unwrap(), [2, 4, 6, 7]);
    assert_eq!(steps(&writer), [1, 3, 5, 8, 9]);
    assert!(writer.retain(2, &[1]).unwrap().is_empty());
    let folder = fs::read_dir(scratch.path().join("checkpoints")).unwrap();
    assert_eq!(folder.count(), 5, "nothing else is left in the folder");
}

#[test]
fn the_newest_good_one_stays_even_if_newer_ones_are_broken() {
    let scratch = tempfile::tempdir().unwrap();
    drop(run_with(scratch.path(), 1..=6));
    let mut writer = run_with(scratch.path(), []);
    for step in [4, 5, 6] {
        damage(&writer, step);
    }
    assert_eq!(writer.retain(1, &[]).unwrap(), [1, 2, 4, 5]);
    assert_eq!(steps(&writer), [3, 6]);
}

#[test]
fn protecting_a_step_changes_neither_the_latest_nor_the_best() {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = run_with(scratch.path(), 1..=7);
    writer.set_best(4).unwrap();
    let step = |which| {
        let found = resolve(scratch.path(), which, &mut |warning| panic!("{warning}"));
        found.unwrap().step
    };
    // A trainer protects the newest step whose loss was finite: older than the best, then newer.
    for (protected, left) in [(2, [2, 4, 7].as_slice()), (7, &[4, 7])] {
        writer.retain(1, &[protected]).unwrap();
        assert_eq!(steps(&writer), left);
        assert_eq!((step(Which::Latest), step(Which::Best)), (Some(7), Some(4)));
    }
    // Newer ones come and go, the protected one stays.
    for newer in 8..=12 {
        writer
            .save(newer, "checkpoint", |dir| dir.write_bytes("weights", &[0]))
            .unwrap_or_else(|e: Error| panic!("{e}"));
        writer.retain(1, &[7]).unwrap();
        assert_eq!(steps(&writer), [4, 7, newer]);
        assert_eq!(
            (step(Which::Latest), step(Which::Best)),
            (Some(newer), Some(4))
        );
    }
}

#[test]
fn nothing_is_deleted_while_nothing_is_good() {
    let scratch = tempfile::tempdir().unwrap();
    drop(run_with(scratch.path(), 1..=3));
    let mut writer = run_with(scratch.path(), []);
    for step in 1..=3 {
        damage(&writer, step);
    }
    assert!(writer.retain(1, &[]).unwrap().is_empty());
    assert_eq!(steps(&writer), [1, 2, 3]);
}

#[test]
fn keeping_none_keeps_the_newest() {
    let scratch = tempfile::tempdir().unwrap();
    let mut writer = run_with(scratch.path(), 1..=3);
    assert_eq!(writer.retain(0, &[]).unwrap(), [1, 2]);
    assert_eq!(steps(&writer), [3]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn best_newest_good_and_protected_are_never_deleted(
        present in prop::collection::btree_set(0u64..30, 1..6),
        broken in prop::collection::vec(any::<bool>(), 6),
        best in any::<prop::sample::Index>(),
        protected in prop::collection::vec(0u64..30, 0..3),
        keep_last in 0usize..4,
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let all: Vec<u64> = present.iter().copied().collect();
        let mut writer = run_with(scratch.path(), all.clone());
        let best = *best.get(&all);
        writer.set_best(best).unwrap();
        drop(writer);
        let mut writer = run_with(scratch.path(), []);
        let mut good = Vec::new();
        for (&step, &broken) in all.iter().zip(&broken) {
            if broken { damage(&writer, step) } else { good.push(step) }
        }

        let deleted: BTreeSet<u64> = writer.retain(keep_last, &protected).unwrap().into_iter().collect();
        let left: BTreeSet<u64> = steps(&writer).into_iter().collect();
        prop_assert_eq!(deleted.union(&left).copied().collect::<Vec<_>>(), all.clone());
        prop_assert!(deleted.is_disjoint(&left));
        prop_assert!(left.contains(&best));
        prop_assert!(good.last().is_none_or(|newest| left.contains(newest)));
        prop_assert!(protected.iter().all(|step| !deleted.contains(step)));
        prop_assert!(all.iter().rev().take(keep_last).all(|step| left.contains(step)));
        if !good.is_empty() {
            prop_assert!(left.len() <= keep_last + 2 + protected.len());
        }
    }
}
