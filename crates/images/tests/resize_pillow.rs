//! Resampling and evaluation crops against Pillow and torchvision, to the bit.

mod common;

use common::{crc, filter, fixture, number, picture, source};
use tokenformer_images::{Preprocess, resize};

#[test]
fn resizing_equals_pillow() {
    for row in fixture("resize") {
        let new = resize(
            &source(&row),
            number(&row, "new_width"),
            number(&row, "new_height"),
            filter(&row),
        );
        assert_eq!(crc(&new), number(&row, "crc"), "{row}");
    }
}

/// `Resize(short side)` and `CenterCrop` on 30 shapes.
#[test]
fn evaluation_crops_equal_torchvision() {
    for row in fixture("center") {
        let side = number(&row, "side");
        let preprocess = Preprocess {
            height: side,
            width: side,
            crop_share: row["crop_share"].as_f64().unwrap(),
            filter: filter(&row),
            ..Preprocess::imagenet()
        };
        let center = preprocess.center(picture(
            "noise",
            number(&row, "width"),
            number(&row, "height"),
            3,
        ));
        assert_eq!(crc(&center), number(&row, "crc"), "{row}");
    }
}
