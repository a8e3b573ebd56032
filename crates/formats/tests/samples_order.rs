//! The training order: golden numbers of GPT-NeoX and numpy, splits and mixtures.

mod common;

use common::workspace_fixture;
use proptest::prelude::*;
use tokenformer_formats::Error;
use tokenformer_formats::megatron::{MegatronData, MegatronWriter};
use tokenformer_formats::numpy_rng::RandomState;
use tokenformer_formats::samples::{
    SampleOrder, SampleStart, blend, blend_requests, split_documents,
};

#[test]
fn shuffles_are_numpys() {
    // r = numpy.random.RandomState(seed); a = numpy.arange(n); r.shuffle(a); b = numpy.arange(n); r.shuffle(b)
    // a[:8], sum((i + 1) * a[i]), b[:4]
    type Case = (u32, usize, &'static [u32], u64, &'static [u32]);
    let cases: [Case; 7] = [
        (0, 10, &[2, 8, 4, 9, 1, 6, 7, 3], 230, &[3, 5, 1, 2]),
        (1, 2, &[0, 1], 2, &[0, 1]),
        (1234, 10, &[7, 2, 9, 1, 0, 8, 4, 5], 242, &[7, 3, 5, 1]),
        (
            1234,
            33,
            &[7, 10, 4, 1, 28, 8, 3, 27],
            9738,
            &[22, 32, 3, 8],
        ),
        (
            u32::MAX,
            17,
            &[8, 1, 5, 14, 10, 15, 16, 13],
            1105,
            &[3, 11, 2, 12],
        ),
        (
            42,
            1000,
            &[521, 737, 740, 660, 411, 678, 626, 513],
            251874299,
            &[93, 692, 100, 562],
        ),
        (
            7,
            65537,
            &[47804, 15466, 49000, 13259, 14555, 60170, 48426, 26651],
            70375355228216,
            &[49727, 59654, 32868, 15204],
        ),
    ];
    for (seed, count, first, sum, second) in cases {
        let mut random = RandomState::new(seed);
        let mut numbers: Vec<u32> = (0..count as u32).collect();
        random.shuffle(&mut numbers);
        assert_eq!(
            numbers[..first.len()],
            *first,
            "seed {seed}, {count} numbers"
        );
        assert_eq!(
            (1..)
                .zip(&numbers)
                .map(|(i, &v)| i * u64::from(v))
                .sum::<u64>(),
            sum
        );
        let mut numbers: Vec<u32> = (0..count as u32).collect();
        random.shuffle(&mut numbers);
        assert_eq!(numbers[..second.len()], *second);
    }
    RandomState::new(0).shuffle::<u32>(&mut []);
}

fn list(value: &serde_json::Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_u64().unwrap() as u32)
        .collect()
}

#[test]
fn the_golden_order_is_reproduced() {
    let data = MegatronData::open(&workspace_fixture("corpus_text_document")).unwrap();
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(workspace_fixture("corpus_samples.json")).unwrap())
            .unwrap();
    let number = |key: &str| golden[key].as_u64().unwrap() as usize;
    let order = SampleOrder::build(
        &data,
        0..data.sequences(),
        number("seq_len"),
        number("needed"),
        number("seed") as u32,
    )
    .unwrap();
    assert_eq!(order.epochs(), number("epochs"));
    assert_eq!(order.shuffled().len(), number("num_samples"));
    assert_eq!(order.len(), number("num_samples") - 1);
    let documents = list(&golden["doc_idx"]);
    assert_eq!(order.documents()[..documents.len()], documents);
    let shuffled = list(&golden["shuffle_idx"]);
    assert_eq!(order.shuffled()[..shuffled.len()], shuffled);
    for (start, expected) in order
        .starts()
        .iter()
        .zip(golden["sample_idx"].as_array().unwrap())
    {
        assert_eq!([start.position, start.offset_tokens], *list(expected));
    }
    let mut tokens = vec![0; order.seq_length() + 1];
    let items = golden["items"].as_array().unwrap();
    assert!(items.len() >= 4);
    for (index, item) in items.iter().enumerate() {
        order.read(&data, index, &mut tokens).unwrap();
        assert_eq!(tokens, list(item), "item {index}");
    }
    // Beyond the last one it begins again.
    let mut again = tokens.clone();
    order.read(&data, 3, &mut tokens).unwrap();
    order.read(&data, order.len() * 5 + 3, &mut again).unwrap();
    assert_eq!(tokens, again);
    assert!(order.read(&data, 0, &mut tokens[1..]).is_err());
}

#[test]
fn samples_cover_the_stream_with_one_token_shared() {
    let data = MegatronData::open(&workspace_fixture("corpus_text_document")).unwrap();
    for (range, seq_length, needed) in [
        (0..40, 32, 150),
        (5..9, 7, 0),
        (39..40, 3, 100),
        (0..40, 5000, 2),
    ] {
        let order = SampleOrder::build(&data, range, seq_length, needed, 5).unwrap();
        assert!(order.shuffled().len() >= needed);
        let mut stream = Vec::new();
        for &document in order.documents() {
            let mut tokens = vec![0; data.sequence_tokens(document as usize).unwrap()];
            data.read(document as usize, 0, &mut tokens).unwrap();
            stream.extend(tokens);
        }
        assert_eq!(order.starts().len(), order.shuffled().len() + 1);
        let mut tokens = vec![0; seq_length + 1];
        for (index, &sample) in order.shuffled().iter().enumerate() {
            order.read(&data, index, &mut tokens).unwrap();
            let at = sample as usize * seq_length;
            assert_eq!(tokens, stream[at..=at + seq_length]);
        }
    }
}

#[test]
fn impossible_orders_are_refused() {
    let data = MegatronData::open(&workspace_fixture("corpus_text_document")).unwrap();
    for (range, seq_length, needed) in [
        (0..41, 32, 1),
        (5..5, 32, 1),
        (0..40, 0, 1),
        (0..40, usize::MAX, 1),
        (0..40, 32, usize::MAX),
        (0..40, 32, 1 << 40),
        (0..40, 1 << 30, 1 << 40),
    ] {
        let order = SampleOrder::build(&data, range.clone(), seq_length, needed, 0);
        assert!(
            matches!(order, Err(Error::Argument { .. })),
            "{range:?} {seq_length} {needed}"
        );
    }
}

#[test]
fn one_document_of_one_sample_wraps() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("d");
    let mut writer = MegatronWriter::create(&prefix, 10).unwrap();
    writer.add_document(&[1, 2, 3]).unwrap();
    writer.finish().unwrap();
    let data = MegatronData::open(&prefix).unwrap();
    let order = SampleOrder::build(&data, 0..1, 2, 1, 0).unwrap();
    assert_eq!(
        (order.len(), order.is_empty(), order.epochs()),
        (0, true, 1)
    );
    assert_eq!(
        order.starts(),
        [
            SampleStart {
                position: 0,
                offset_tokens: 0
            },
            SampleStart {
                position: 0,
                offset_tokens: 2
            }
        ]
    );
    let mut tokens = [0; 3];
    order.read(&data, 0, &mut tokens).unwrap();
    assert_eq!(tokens, [1, 2, 3]);
    assert!(order.read(&data, 1, &mut tokens).is_err());
}

#[test]
fn splits_round_as_python() {
    // get_train_valid_test_split_ of GPT-NeoX.
    for (split, documents, expected) in [
        ("969, 30, 1", 1000, [0..969, 969..999, 999..1000]),
        ("969,30,1", 40, [0..39, 39..40, 40..40]),
        ("1", 7, [0..7, 7..7, 7..7]),
        ("1/1", 5, [0..3, 3..5, 5..5]),
        ("0.9,0.1", 25, [0..23, 23..25, 25..25]),
        ("1,1,1", 10, [0..4, 4..7, 7..10]),
        ("98, 2, 0", 0, [0..0, 0..0, 0..0]),
    ] {
        assert_eq!(
            split_documents(split, documents).unwrap(),
            expected,
            "{split} of {documents}"
        );
    }
    for bad in [
        "",
        "a",
        "0,0,0",
        "-1,2,0",
        "nan,1,1",
        "inf,1,1",
        "1e308,1e308,1e308",
        ",,",
    ] {
        assert!(
            matches!(split_documents(bad, 10), Err(Error::Argument { .. })),
            "{bad}"
        );
    }
}

#[test]
fn mixtures_follow_their_weights() {
    let order: Vec<(u8, u32)> = blend(&[1.0, 3.0], 8)
        .unwrap()
        .into_iter()
        .map(|s| (s.part, s.sample))
        .collect();
    // build_blending_indices of GPT-NeoX for the weights 0.25 and 0.75.
    assert_eq!(
        order,
        [
            (1, 0),
            (0, 0),
            (1, 1),
            (1, 2),
            (0, 1),
            (1, 3),
            (1, 4),
            (1, 5)
        ]
    );
    assert_eq!(blend_requests(&[1.0, 3.0], 1000).unwrap(), [252, 754]);
    assert!(
        blend(&[], 1).is_err()
            && blend(&[0.0], 1).is_err()
            && blend(&[f64::NAN], 1).is_err()
            && blend(&[-1.0, 2.0], 1).is_err()
    );
    assert!(blend(&[1.0; 256], 1).is_err() && blend(&[1.0], usize::MAX).is_err());
}

proptest! {
    #[test]
    fn mixtures_stay_near_their_weights(weights in prop::collection::vec(0.05f64..1.0, 1..6), length in 1usize..500) {
        let order = blend(&weights, length).unwrap();
        let sum: f64 = weights.iter().sum();
        for (part, weight) in weights.iter().enumerate() {
            let taken: Vec<u32> = order.iter().filter(|s| usize::from(s.part) == part).map(|s| s.sample).collect();
            prop_assert!(taken.iter().copied().eq(0..taken.len() as u32));
            prop_assert!((taken.len() as f64 - weight / sum * length as f64).abs() <= weights.len() as f64);
        }
    }

    #[test]
    fn splits_cover_all_documents_or_are_refused(split in "[0-9,./ -]{0,20}", documents in 0usize..10_000) {
        if let Ok([train, valid, test]) = split_documents(&split, documents) {
            prop_assert_eq!(train.start, 0);
            prop_assert_eq!(train.end, valid.start);
            prop_assert_eq!(valid.end, test.start);
            prop_assert_eq!(test.end, documents);
        }
    }
}
