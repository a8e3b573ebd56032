//! Event files, read back by a parser that shares no code with the writer.

mod common;

use common::{eval, every_kind, grow, sample, train};
use tokenformer_report::{EVENT_FILE_NAME, Record, write_events};

/// A protobuf field: its number and its value.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Varint(u64, u64),
    Fixed64(u64, u64),
    Bytes(u64, Vec<u8>),
    Fixed32(u64, u32),
}

/// Bit by bit, from the definition of CRC32C (reflected polynomial 0x82f63b78).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn masked(bytes: &[u8]) -> u32 {
    let crc = crc32c(bytes);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let length_crc = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        assert_eq!(length_crc, masked(&bytes[..8]));
        let payload = &bytes[12..12 + length];
        let crc = u32::from_le_bytes(bytes[12 + length..16 + length].try_into().unwrap());
        assert_eq!(crc, masked(payload));
        frames.push(payload);
        bytes = &bytes[16 + length..];
    }
    frames
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                fields.push(Field::Varint(key >> 3, varint(&mut bytes)));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        bytes = rest;
        fields.push(match key & 7 {
            1 => Field::Fixed64(key >> 3, u64::from_le_bytes(value.try_into().unwrap())),
            2 => Field::Bytes(key >> 3, value.to_vec()),
            _ => Field::Fixed32(key >> 3, u32::from_le_bytes(value.try_into().unwrap())),
        });
    }
    fields
}

fn sub_message(fields: &[Field], number: u64) -> Option<&[u8]> {
    fields.iter().find_map(|field| match field {
        Field::Bytes(n, bytes) if *n == number => Some(bytes.as_slice()),
        _ => None,
    })
}

/// `(wall time, step, tag, value)`: a scalar's value, or a text's first string.
fn events(bytes: &[u8]) -> Vec<(f64, u64, String, Result<f32, String>)> {
    let mut events = Vec::new();
    for frame in &frames(bytes)[1..] {
        let event = fields(frame);
        let [
            Field::Fixed64(1, time),
            Field::Varint(2, step),
            Field::Bytes(5, summary),
        ] = event.as_slice()
        else {
            panic!("{event:?}");
        };
        for value in fields(summary) {
            let Field::Bytes(1, value) = value else {
                panic!("{value:?}");
            };
            let value = fields(&value);
            let tag = String::from_utf8(sub_message(&value, 1).unwrap().to_vec()).unwrap();
            let content = match value[1] {
                Field::Fixed32(2, bits) => Ok(f32::from_bits(bits)),
                _ => {
                    let tensor = fields(sub_message(&value, 8).unwrap());
                    let metadata = fields(sub_message(&value, 9).unwrap());
                    let plugin = fields(sub_message(&metadata, 1).unwrap());
                    assert_eq!(sub_message(&plugin, 1), Some(b"text".as_slice()));
                    assert!(tensor.contains(&Field::Varint(1, 7)), "{tensor:?}");
                    Err(String::from_utf8(sub_message(&tensor, 8).unwrap().to_vec()).unwrap())
                }
            };
            events.push((f64::from_bits(*time), *step, tag, content));
        }
    }
    events
}

fn written(records: &[Record]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::read(write_events(dir.path(), records).unwrap()).unwrap()
}

#[test]
fn crc_of_the_parser_matches_the_published_check_value() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn file_begins_with_its_version() {
    let bytes = written(&[]);
    assert_eq!(
        fields(frames(&bytes)[0]),
        [
            Field::Fixed64(1, 0),
            Field::Bytes(3, b"brain.Event:2".to_vec())
        ]
    );
}

#[test]
fn scalars_and_texts_carry_step_and_training_time() {
    // Steps 3 to 10 are one record: its mean of 20 ms stands for 8 steps.
    let records = [
        train(1, 5.5),
        train(2, 4.5),
        train(10, 3.5),
        eval(10, 0, 2.0),
        grow(10, 1),
        sample(300, "once ", "upon"),
    ];
    let events = events(&written(&records));
    let find = |step: u64, tag: &str| {
        let found = events
            .iter()
            .find(|event| event.1 == step && event.2 == tag)
            .unwrap_or_else(|| panic!("no {tag} at step {step}"));
        (found.0, found.3.clone())
    };
    assert_eq!(find(1, "train/loss"), (0.02, Ok(5.5)));
    assert_eq!(find(2, "train/loss"), (0.04, Ok(4.5)));
    assert_eq!(find(10, "train/loss"), (0.2, Ok(3.5)));
    assert_eq!(find(10, "train/lr").1, Ok(0.001));
    assert_eq!(find(10, "train/grad_norm").1, Ok(0.5));
    assert_eq!(find(10, "train/tokens_per_s").1, Ok(3200.0));
    assert_eq!(
        find(10, "train/bits_per_byte").1,
        Ok((3.5 / std::f64::consts::LN_2) as f32)
    );
    assert_eq!(find(10, "model/params").1, Ok(12_800.0));
    assert_eq!(find(10, "eval/loss"), (0.2, Ok(2.0)));
    assert_eq!(find(10, "eval/perplexity").1, Ok(2f64.exp() as f32));
    assert_eq!(find(10, "growth").1, Err("+512 ffn".to_owned()));
    assert_eq!(find(300, "samples").1, Err("once upon".to_owned()));
    assert!(events.iter().all(|event| event.2 != "eval/bits_per_byte"));
}

#[test]
fn more_records_append_and_other_records_replace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(EVENT_FILE_NAME);
    let all = every_kind();
    let size = |path: &std::path::Path| std::fs::metadata(path).unwrap().len();

    write_events(dir.path(), &all[..3]).unwrap();
    // A watcher holds the file open: what is appended must reach it.
    let mut watcher = std::fs::File::open(&path).unwrap();
    let before = size(&path);
    write_events(dir.path(), &all).unwrap();
    assert!(size(&path) > before);
    let mut seen = Vec::new();
    std::io::Read::read_to_end(&mut watcher, &mut seen).unwrap();
    assert_eq!(seen, written(&all));

    // A resume dropped records, and an append that was cut short is repaired.
    write_events(dir.path(), &all[..2]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), written(&all[..2]));
    std::fs::write(&path, &written(&all)[..100]).unwrap();
    write_events(dir.path(), &all).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), written(&all));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn long_texts_and_large_steps_are_framed_right() {
    let text = "x".repeat(70_000);
    let records = [sample(u64::MAX / 64, "", &text)];
    let events = events(&written(&records));
    assert_eq!(events[0].1, u64::MAX / 64);
    assert_eq!(events[0].3, Err(text));
}
