//! The operations of RandAugment against timm's on Pillow, to the bit.

mod common;

use common::{crc, filter, fixture, number, picture};
use tokenformer_images::augment::{Operation, Warp};

/// Those of `make_fixtures.py`: small ones, since borders are where warps and sharpening err.
const PICTURES: [(&str, usize, usize); 8] = [
    ("noise", 23, 17),
    ("slopes", 32, 32),
    ("dull", 31, 29),
    ("flat", 9, 12),
    ("bars", 40, 25),
    ("noise", 1, 1),
    ("noise", 2, 7),
    ("noise", 3, 3),
];

#[test]
fn operations_equal_pillow() {
    let rows = fixture("operations");
    assert!(rows.len() > 150, "{} rows", rows.len());
    for row in rows {
        let arg = row["arg"].as_f64().unwrap_or_default();
        let operation = match row["op"].as_str().unwrap() {
            "AutoContrast" => Operation::AutoContrast,
            "Equalize" => Operation::Equalize,
            "Invert" => Operation::Invert,
            "Rotate" => Operation::Rotate(arg),
            "PosterizeIncreasing" => Operation::Posterize(arg as u32),
            "SolarizeIncreasing" => Operation::Solarize(arg as u32),
            "SolarizeAdd" => Operation::SolarizeAdd(arg as u32),
            "ColorIncreasing" => Operation::Color(arg),
            "ContrastIncreasing" => Operation::Contrast(arg),
            "BrightnessIncreasing" => Operation::Brightness(arg),
            "SharpnessIncreasing" => Operation::Sharpness(arg),
            "ShearX" => Operation::ShearX(arg),
            "ShearY" => Operation::ShearY(arg),
            "TranslateXRel" => Operation::TranslateX(arg),
            "TranslateYRel" => Operation::TranslateY(arg),
            other => panic!("{other}"),
        };
        let warp = Warp {
            filter: filter(&row),
            fill: [124, 116, 104],
        };
        for ((kind, width, height), expected) in
            PICTURES.iter().zip(row["crcs"].as_array().unwrap())
        {
            let old = picture(kind, *width, *height, number(&row, "channels"));
            let new = operation.apply(&old, warp);
            assert_eq!(
                crc(&new) as u64,
                expected.as_u64().unwrap(),
                "{row}: {kind} {width} x {height}"
            );
        }
    }
}
