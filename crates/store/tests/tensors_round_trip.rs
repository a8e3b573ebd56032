//! What is written is read back, here and by the official crate, and the same input gives the same bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use proptest::prelude::*;
use tokenformer_store::{Dtype, Error, SafetensorsFile, TensorSource, write_safetensors};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_string(), "pt".to_string())])
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[test]
fn every_bit_of_odd_shapes_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let long: Vec<f32> = (0..10_007).map(|i| i as f32 * 0.37 - 11.0).collect();
    let odd = [
        f32::NAN,
        f32::from_bits(0x7fa0_0001),
        f32::NEG_INFINITY,
        -0.0,
        f32::MIN_POSITIVE / 2.0,
        1.5,
    ];
    let tensors: [(&str, &[usize], &[f32]); 6] = [
        ("scalar", &[], &[42.0]),
        ("empty", &[3, 0, 5], &[]),
        ("odd", &[1, 3, 1, 2], &odd),
        ("long.prime", &[10_007], &long),
        ("a name with \"quotes\" and ü", &[1], &[-1.0]),
        ("", &[2], &[0.0, 1.0]),
    ];
    let sources = tensors.map(|(name, shape, values)| TensorSource::f32(name, shape, values));
    let written = write_safetensors(&path, &metadata(), sources).unwrap();

    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(written.bytes, bytes.len() as u64);
    assert_eq!(written.blake3, blake3::hash(&bytes).to_string());
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.metadata(), &metadata());
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.0).collect();
    names.sort();
    assert_eq!(file.names().collect::<Vec<_>>(), names);
    for (name, shape, values) in tensors {
        assert_eq!(file.shape(name).unwrap(), shape);
        assert_eq!(file.dtype(name).unwrap(), Dtype::F32);
        assert_eq!(bits(&file.read_f32(name).unwrap()), bits(values));
        let mut into = vec![0.0; values.len()];
        file.read_f32_into(name, &mut into).unwrap();
        assert_eq!(bits(&into), bits(values));
    }
}

#[test]
fn a_file_without_tensors_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.safetensors");
    write_safetensors(&path, &BTreeMap::new(), []).unwrap();
    assert_eq!(SafetensorsFile::open(&path).unwrap().names().len(), 0);
    assert!(
        safetensors::SafeTensors::deserialize(&std::fs::read(&path).unwrap())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn mixed_types_are_laid_out_as_the_official_writer_does() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let (b, a, tokens, flags) = ([1.0f32, 2.0], [3.0f32], [7u32, 8, 9], [1u8, 0, 1]);
    let token_bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();

    let mut write_tokens = |out: &mut dyn Write| {
        tokens
            .iter()
            .try_for_each(|token| out.write_all(&token.to_le_bytes()))
    };
    let mut write_flags = |out: &mut dyn Write| out.write_all(&flags);
    let mut write_wide = |out: &mut dyn Write| out.write_all(&(-5i64).to_le_bytes());
    let sources = [
        TensorSource::stream("flags", Dtype::Bool, &[3], &mut write_flags),
        TensorSource::f32("b", &[2, 1], &b),
        TensorSource::stream("tokens", Dtype::U32, &[3], &mut write_tokens),
        TensorSource::f32("a", &[1], &a),
        TensorSource::stream("wide", Dtype::I64, &[1], &mut write_wide),
    ];
    write_safetensors(&ours, &metadata(), sources).unwrap();

    use safetensors::tensor::{Dtype as Theirs, TensorView};
    let (a_bytes, b_bytes, wide) = (le_bytes(&a), le_bytes(&b), (-5i64).to_le_bytes());
    let views = [
        (
            "flags",
            TensorView::new(Theirs::BOOL, vec![3], &flags).unwrap(),
        ),
        (
            "a",
            TensorView::new(Theirs::F32, vec![1], &a_bytes).unwrap(),
        ),
        (
            "b",
            TensorView::new(Theirs::F32, vec![2, 1], &b_bytes).unwrap(),
        ),
        (
            "tokens",
            TensorView::new(Theirs::U32, vec![3], &token_bytes).unwrap(),
        ),
        (
            "wide",
            TensorView::new(Theirs::I64, vec![1], &wide).unwrap(),
        ),
    ];
    let their_metadata: HashMap<String, String> = metadata().into_iter().collect();
    safetensors::serialize_to_file(views, Some(their_metadata), &theirs).unwrap();

    assert_eq!(
        std::fs::read(&ours).unwrap(),
        std::fs::read(&theirs).unwrap()
    );
    let file = SafetensorsFile::open(&theirs).unwrap();
    assert_eq!(file.read_u32("tokens").unwrap(), tokens);
    assert_eq!(file.bytes("flags").unwrap(), flags);
    assert_eq!(file.read_f32("b").unwrap(), b);
}

#[test]
fn floats_of_every_width_are_converted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("floats");
    // 1, -2.5 and the smallest positive number of each type, by the bits that IEEE 754 gives them.
    let mut half = |out: &mut dyn Write| out.write_all(&[0x00, 0x3c, 0x00, 0xc1, 0x01, 0x00]);
    let mut brain = |out: &mut dyn Write| out.write_all(&[0x80, 0x3f, 0x20, 0xc0, 0x01, 0x00]);
    let mut double = |out: &mut dyn Write| {
        [1.0f64, -2.5, 0.1]
            .iter()
            .try_for_each(|x| out.write_all(&x.to_le_bytes()))
    };
    let sources = [
        TensorSource::stream("half", Dtype::F16, &[3], &mut half),
        TensorSource::stream("brain", Dtype::BF16, &[3], &mut brain),
        TensorSource::stream("double", Dtype::F64, &[3], &mut double),
    ];
    write_safetensors(&path, &BTreeMap::new(), sources).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.read_f32("half").unwrap(), [1.0, -2.5, 2f32.powi(-24)]);
    assert_eq!(file.read_f64("half").unwrap(), [1.0, -2.5, 2f64.powi(-24)]);
    assert_eq!(
        file.read_f32("brain").unwrap(),
        [1.0, -2.5, f32::from_bits(0x0001_0000)]
    );
    assert_eq!(
        file.read_f64("brain").unwrap(),
        [1.0, -2.5, f32::from_bits(0x0001_0000) as f64]
    );
    assert_eq!(file.read_f32("double").unwrap(), [1.0, -2.5, 0.1]);
    assert_eq!(file.read_f64("double").unwrap(), [1.0, -2.5, 0.1]);
}

#[test]
fn integers_are_range_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("integers");
    let mut ok = |out: &mut dyn Write| {
        [0i64, u32::MAX as i64]
            .iter()
            .try_for_each(|x| out.write_all(&x.to_le_bytes()))
    };
    let mut large = |out: &mut dyn Write| {
        [1u64, 1 << 32]
            .iter()
            .try_for_each(|x| out.write_all(&x.to_le_bytes()))
    };
    let mut negative = |out: &mut dyn Write| {
        [3i32, -1]
            .iter()
            .try_for_each(|x| out.write_all(&x.to_le_bytes()))
    };
    let mut narrow = |out: &mut dyn Write| {
        [65_535u16]
            .iter()
            .try_for_each(|x| out.write_all(&x.to_le_bytes()))
    };
    let mut byte = |out: &mut dyn Write| out.write_all(&[255]);
    let sources = [
        TensorSource::stream("ok", Dtype::I64, &[2], &mut ok),
        TensorSource::stream("large", Dtype::U64, &[2], &mut large),
        TensorSource::stream("negative", Dtype::I32, &[2], &mut negative),
        TensorSource::stream("narrow", Dtype::U16, &[1], &mut narrow),
        TensorSource::stream("byte", Dtype::U8, &[1], &mut byte),
    ];
    write_safetensors(&path, &BTreeMap::new(), sources).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.read_u32("ok").unwrap(), [0, u32::MAX]);
    assert_eq!(file.read_u32("narrow").unwrap(), [65_535]);
    assert_eq!(file.read_u32("byte").unwrap(), [255]);
    let message = file.read_u32("large").unwrap_err().to_string();
    assert!(
        message.contains("got:      4294967296 at element 1"),
        "{message}"
    );
    assert!(matches!(
        file.read_u32("negative"),
        Err(Error::IntegerRange {
            index: 1,
            value: -1,
            ..
        })
    ));
}

#[test]
fn errors_say_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let weights = [0.0; 6];
    let sources = [
        TensorSource::f32("layers.0.q.key", &[2, 3], &weights),
        TensorSource::f32("layers.1.q.key", &[2, 3], &weights),
        TensorSource::f32("embedding", &[6], &weights),
    ];
    write_safetensors(&path, &BTreeMap::new(), sources).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();

    let Err(Error::MissingTensor { near, count: 3, .. }) = file.read_f32("layers.0.q.keys") else {
        panic!()
    };
    assert_eq!(near, ["layers.0.q.key", "layers.1.q.key"]);
    let message = file
        .expect_shape("embedding", &[3, 2])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("expected: [3, 2]\n  got:      [6]"),
        "{message}"
    );
    file.expect_shape("embedding", &[6]).unwrap();
    assert!(matches!(
        file.read_u32("embedding"),
        Err(Error::WrongDtype { got, .. }) if got == "F32"
    ));
    let short = file.read_f32_into("embedding", &mut [0.0; 5]);
    assert!(matches!(
        short,
        Err(Error::WrongSize {
            expected: 6,
            got: 5,
            ..
        })
    ));
}

#[test]
fn the_order_of_the_input_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ([1.0f32; 5], [2.0f32; 3]);
    let names = BTreeMap::from([
        ("b".to_string(), "1".to_string()),
        ("a".to_string(), "2".to_string()),
    ]);
    let forth = [
        TensorSource::f32("one", &[5], &one),
        TensorSource::f32("two", &[3], &two),
    ];
    let back = [
        TensorSource::f32("two", &[3], &two),
        TensorSource::f32("one", &[5], &one),
    ];
    let first = write_safetensors(&dir.path().join("forth"), &names, forth).unwrap();
    let second = write_safetensors(&dir.path().join("back"), &names, back).unwrap();
    assert_eq!(first, second);
    let bytes = std::fs::read(dir.path().join("forth")).unwrap();
    assert_eq!(bytes, std::fs::read(dir.path().join("back")).unwrap());
    let header = "{\"__metadata__\":{\"a\":\"2\",\"b\":\"1\"},\
                  \"one\":{\"dtype\":\"F32\",\"shape\":[5],\"data_offsets\":[0,20]},\
                  \"two\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[20,32]}}";
    assert_eq!(&bytes[8..8 + header.len()], header.as_bytes());
    assert_eq!(
        (bytes.len() - 32) % 8,
        0,
        "the data starts at a multiple of 8"
    );
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let values = [1.0f32, 2.0];
    write_safetensors(
        &path,
        &BTreeMap::new(),
        [TensorSource::f32("w", &[2], &values)],
    )
    .unwrap();
    let before = std::fs::read(&path).unwrap();

    let mut too_much = |out: &mut dyn Write| out.write_all(&[0; 12]);
    let mut fails = |_: &mut dyn Write| Err(std::io::Error::other("the device is gone"));
    let wide = [1, usize::MAX, 3];
    let cases = [
        (
            vec![TensorSource::f32("w", &[3], &values)],
            "expected: 12 bytes\n  got:      8 bytes",
        ),
        (
            vec![TensorSource::stream("w", Dtype::U8, &[11], &mut too_much)],
            "got:      12 bytes",
        ),
        (
            vec![TensorSource::stream("w", Dtype::U8, &[11], &mut fails)],
            "the device is gone",
        ),
        (
            vec![
                TensorSource::f32("w", &[2], &values),
                TensorSource::f32("w", &[2], &values),
            ],
            "another tensor has too",
        ),
        (
            vec![TensorSource::f32("__metadata__", &[2], &values)],
            "keeps for itself",
        ),
        (
            vec![TensorSource::f32("w", &wide, &values)],
            "a shape whose size overflows",
        ),
        (
            vec![TensorSource::f32("w", &[1 << 58], &values)],
            "not enough free space",
        ),
    ];
    for (sources, expected) in cases {
        let message = write_safetensors(&path, &BTreeMap::new(), sources)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_mapped_file_is_replaced_and_never_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let (old, new) = (vec![1.0f32; 100_000], vec![2.0f32; 10]);
    write_safetensors(
        &path,
        &BTreeMap::new(),
        [TensorSource::f32("w", &[100_000], &old)],
    )
    .unwrap();
    let mapped = SafetensorsFile::open(&path).unwrap();
    write_safetensors(
        &path,
        &BTreeMap::new(),
        [TensorSource::f32("w", &[10], &new)],
    )
    .unwrap();
    assert_eq!(mapped.read_f32("w").unwrap(), old);
    assert_eq!(
        SafetensorsFile::open(&path).unwrap().read_f32("w").unwrap(),
        new
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_tensors_survive_both_writers_and_both_readers(
        tensors in prop::collection::btree_map(".{0,12}", prop::collection::vec(0usize..5, 0..4), 0..6)
    ) {
        prop_assume!(!tensors.contains_key("__metadata__"));
        let values: BTreeMap<&String, Vec<f32>> = tensors
            .iter()
            .map(|(name, shape)| (name, (0..shape.iter().product()).map(|i: usize| i as f32 + 0.5).collect()))
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ours");
        let sources = tensors.iter().map(|(name, shape)| TensorSource::f32(name.as_str(), shape, &values[name]));
        write_safetensors(&path, &BTreeMap::new(), sources).unwrap();
        let bytes = std::fs::read(&path).unwrap();

        let official = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(official.len(), tensors.len());
        for (name, shape) in &tensors {
            let view = official.tensor(name).unwrap();
            prop_assert_eq!(view.shape(), shape.as_slice());
            prop_assert_eq!(view.data(), le_bytes(&values[name]));
        }
        let views: Vec<_> = official.tensors();
        let theirs = dir.path().join("theirs");
        safetensors::serialize_to_file(views, None, &theirs).unwrap();
        prop_assert_eq!(std::fs::read(&theirs).unwrap(), bytes);
        let file = SafetensorsFile::open(&theirs).unwrap();
        for (name, shape) in &tensors {
            prop_assert_eq!(file.shape(name).unwrap(), shape.as_slice());
            prop_assert_eq!(&file.read_f32(name).unwrap(), &values[name]);
        }
    }
}
