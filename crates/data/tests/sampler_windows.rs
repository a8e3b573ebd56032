//! Training batches: cover, determinism, limits.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use tokenformer_data::{Batch, Error, TokenFile, TokenFileWriter, WindowSampler};

fn counting(len: usize) -> Vec<u32> {
    (0..len as u32).collect()
}

proptest! {
    #[test]
    fn an_epoch_has_every_window_once(
        context in 1_usize..20,
        extra in 0_usize..200,
        batch in 1_usize..7,
        seed in any::<u64>(),
        epoch in 0_u64..5,
    ) {
        let len = context + 1 + extra;
        let sampler = WindowSampler::new(counting(len), context, seed).unwrap();
        let windows = sampler.windows_per_epoch();
        // All but at most two contexts of the text are used in each epoch.
        prop_assert!(windows as usize * context + 2 * context > len);

        let samples = epoch * windows..(epoch + 1) * windows;
        let mut starts = Vec::new();
        for sample in samples {
            let at = sample % batch as u64;
            let drawn = sampler.batch_at(sample - at, batch).unwrap();
            let at = at as usize * context;
            let inputs = &drawn.inputs[at..at + context];
            let targets = &drawn.targets[at..at + context];
            let start = inputs[0];
            prop_assert!(inputs.iter().zip(start..).all(|(&token, n)| token == n));
            prop_assert!(targets.iter().zip(start + 1..).all(|(&token, n)| token == n));
            starts.push(start as usize);
        }
        starts.sort_unstable();
        let offset = starts[0];
        prop_assert!(offset < context);
        let expected: Vec<usize> = (0..windows as usize).map(|n| offset + n * context).collect();
        prop_assert_eq!(starts, expected);
    }

    #[test]
    fn a_batch_depends_on_its_position_alone(seed in any::<u64>(), first in any::<u64>()) {
        let sampler = WindowSampler::new(counting(500), 7, seed).unwrap();
        let mut reused = sampler.batch_at(first.wrapping_add(1), 3).unwrap();
        sampler.fill(first, &mut reused).unwrap();
        let fresh = WindowSampler::new(counting(500), 7, seed).unwrap();
        prop_assert_eq!(reused, fresh.batch_at(first, 3).unwrap());
    }

    /// However the windows are cut into batches, across the ends of epochs too, their order is one.
    #[test]
    fn batches_of_any_sizes_read_the_same_windows(
        seed in any::<u64>(),
        sizes in prop::collection::vec(1_usize..9, 1..12),
    ) {
        let sampler = WindowSampler::new(counting(60), 5, seed).unwrap();
        let total = sizes.iter().sum();
        let (mut inputs, mut first) = (Vec::new(), 0);
        for size in sizes {
            inputs.extend(sampler.batch_at(first, size).unwrap().inputs);
            first += size as u64;
        }
        prop_assert_eq!(inputs, sampler.batch_at(0, total).unwrap().inputs);
    }
}

#[test]
fn seeds_and_epochs_have_their_own_order_and_offset() {
    let order = |seed, epoch: u64| {
        let sampler = WindowSampler::new(counting(10_000), 10, seed).unwrap();
        let windows = sampler.windows_per_epoch();
        let first = epoch * windows;
        let starts =
            (first..first + windows).map(|window| sampler.batch_at(window, 1).unwrap().inputs[0]);
        starts.collect::<Vec<_>>()
    };
    assert_eq!(order(1, 0), order(1, 0));
    assert_ne!(order(1, 0), order(2, 0));
    assert_ne!(order(1, 0), order(1, 1));
    let mut offsets: HashMap<u32, usize> = HashMap::new();
    for epoch in 0..200 {
        *offsets.entry(order(3, epoch)[0] % 10).or_default() += 1;
    }
    assert_eq!(offsets.len(), 10, "{offsets:?}");
}

#[test]
fn these_are_the_batches_of_every_later_version() {
    // Resumed runs must see the batches they would have seen.
    let sampler = WindowSampler::new(counting(1000), 4, 42).unwrap();
    let starts = |index: u64| {
        let batch = sampler.batch_at(3 * index, 3).unwrap();
        [0, 4, 8].map(|at| batch.inputs[at])
    };
    assert_eq!(
        [0, 1, 100].map(starts),
        [[525, 673, 637], [141, 585, 61], [116, 196, 920]]
    );
}

#[test]
fn batches_cross_from_one_epoch_to_the_next() {
    let sampler = WindowSampler::new(counting(21), 5, 9).unwrap();
    assert_eq!(sampler.windows_per_epoch(), 3);
    assert_eq!(
        [0, 4, 8, 12].map(|window| sampler.epoch_at(window)),
        [0, 1, 2, 4]
    );
    sampler.batch_at(u64::MAX, 4).unwrap();
}

#[test]
fn buffers_of_another_context_are_replaced() {
    let sampler = WindowSampler::new(counting(50), 5, 0).unwrap();
    let mut batch = Batch::new(2, 3);
    sampler.fill(8, &mut batch).unwrap();
    assert_eq!(batch, sampler.batch_at(8, 2).unwrap());
    let address = batch.inputs.as_ptr();
    sampler.fill(10, &mut batch).unwrap();
    assert_eq!(batch.inputs.as_ptr(), address);
}

#[test]
fn a_text_shorter_than_a_window_is_refused() {
    let error = WindowSampler::new(counting(8), 8, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "too few tokens for one window\n  expected: at least 9 tokens (the context of 8 and one \
         target)\n  got:      8 tokens\n  help:     use more text, or a shorter \
         context: model.context of a recipe, --context of `eval`"
    );
    let sampler = WindowSampler::new(counting(9), 8, 0).unwrap();
    assert_eq!(sampler.batch_at(3, 1).unwrap().targets, counting(9)[1..]);
    let error = WindowSampler::new(counting(9), 0, 0).unwrap_err();
    assert!(matches!(error, Error::Option { .. }), "{error}");
    let error = WindowSampler::new(counting(9), usize::MAX, 0).unwrap_err();
    assert!(matches!(error, Error::TooShort { .. }), "{error}");
}

#[test]
fn token_files_are_sampled_like_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tokens");
    let tokens = counting(300);
    let mut writer = TokenFileWriter::create(&path, 300).unwrap();
    writer.push_document(&tokens, 300).unwrap();
    writer.finish().unwrap().publish().unwrap();
    let file = Arc::new(TokenFile::open(&path).unwrap());
    let from_file = WindowSampler::new(Arc::clone(&file), 16, 5).unwrap();
    let from_memory = WindowSampler::new(&tokens, 16, 5).unwrap();
    for index in 0..40 {
        assert_eq!(
            from_file.batch_at(2 * index, 2).unwrap(),
            from_memory.batch_at(2 * index, 2).unwrap()
        );
    }
    assert_eq!(from_file.source().len(), 300);
}
