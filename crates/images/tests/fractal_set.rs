//! The fractals as a dataset.

use tokenformer_images::fractals::{FractalOptions, source};
use tokenformer_images::{ImageSet, PrepareOptions, Split, prepare};

#[test]
fn fractals_become_a_dataset_with_three_splits() {
    let scratch = tempfile::tempdir().unwrap();
    let options = FractalOptions {
        classes: 4,
        per_class: 40,
        test_per_class: 5,
        side: 16,
        seed: 3,
    };
    let mut prepare_options = PrepareOptions::new(scratch.path().join("set"));
    prepare_options.valid_share = 0.2;
    let summary = prepare(&source(&options).unwrap(), &prepare_options, &mut |_| {}).unwrap();
    let images = |split| summary.split(split).unwrap().images;
    assert_eq!(images(Split::Train) + images(Split::Valid), 160);
    assert_eq!(images(Split::Test), 20);
    assert_eq!(summary.duplicates.across, 0);
    let set = ImageSet::open(&scratch.path().join("set")).unwrap();
    let train = set.split(Split::Train).unwrap();
    assert_eq!(train.picture(0).unwrap().pixels().len(), 16 * 16 * 3);
    assert_eq!(summary.classes[3], "fractal-3");
}
