//! Event files, read back by a parser that shares no code with the writer.

mod common;

use std::path::Path;

use common::{eval, every_kind, grow, of_images, sample, train};
use tokenformer_report::{Record, write_events};

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
type Event = (f64, u64, String, Result<f32, String>);

fn events(bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    read_on(&mut events, bytes);
    events
}

/// What TensorBoard does with a file: it takes up its events, and at a session start (`session_log` with status 1) it
/// drops what it has of that step or later ones.
fn read_on(events: &mut Vec<Event>, bytes: &[u8]) {
    for frame in &frames(bytes)[1..] {
        let event = fields(frame);
        if let [_, Field::Varint(2, from), Field::Bytes(7, log)] = event.as_slice() {
            assert_eq!(fields(log), [Field::Varint(1, 1)]);
            events.retain(|event| event.1 < *from);
            continue;
        }
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

fn file(number: u32) -> String {
    format!("events.out.tfevents.{number:010}.tokenformer")
}

/// The files of a folder in the order of their names, which must be those of event files from 0 on.
fn files(dir: &Path) -> Vec<Vec<u8>> {
    let count = std::fs::read_dir(dir).unwrap().count() as u32;
    (0..count)
        .map(|number| std::fs::read(dir.join(file(number))).unwrap())
        .collect()
}

/// What a TensorBoard shows that reads a folder afresh.
fn shown(dir: &Path) -> Vec<Event> {
    let mut events = Vec::new();
    for bytes in files(dir) {
        read_on(&mut events, &bytes);
    }
    events
}

#[test]
fn more_records_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let all = every_kind();
    write_events(dir.path(), &all[..3]).unwrap();
    // A watcher holds the file open, so appended records must reach it.
    let mut watcher = std::fs::File::open(dir.path().join(file(0))).unwrap();
    write_events(dir.path(), &all).unwrap();
    write_events(dir.path(), &all).unwrap();
    let mut seen = Vec::new();
    std::io::Read::read_to_end(&mut watcher, &mut seen).unwrap();
    assert_eq!(seen, written(&all));
    assert_eq!(files(dir.path()), [written(&all)]);
}

#[test]
fn a_resume_begins_a_file_and_leaves_those_before_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let before: Vec<Record> = (1..=9).map(|step| train(step, 9.0 - step as f64)).collect();
    write_events(dir.path(), &before).unwrap();

    // Killed after step 9, gone on from the checkpoint of step 4.
    let mut records = before[..4].to_vec();
    records.extend((5..=7).map(|step| train(step, 0.5)));
    let newest = write_events(dir.path(), &records).unwrap();
    assert_eq!(newest, dir.path().join(file(1)));
    let [first, second] = &files(dir.path())[..] else {
        panic!("two files");
    };
    assert_eq!(*first, written(&before), "the first file stays");
    // TensorBoard takes the first start for that of the run, the next ones for restarts.
    let start = fields(frames(first)[1]);
    assert_eq!(
        start[1..],
        [Field::Varint(2, 0), Field::Bytes(7, vec![1 << 3, 1])]
    );
    let start = fields(frames(second)[1]);
    assert!(
        matches!(start[..], [_, Field::Varint(2, 5), Field::Bytes(7, _)]),
        "{start:?}"
    );
    assert_eq!(events(second).len(), 3 * 6, "three steps of six values");
    assert_eq!(shown(dir.path()), events(&written(&records)));

    // It continues in its file, and is then resumed a second time without a new step.
    records.push(train(8, 0.25));
    write_events(dir.path(), &records).unwrap();
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(shown(dir.path()), events(&written(&records)));
    write_events(dir.path(), &records[..6]).unwrap();
    assert_eq!(files(dir.path()).len(), 3);
    assert_eq!(shown(dir.path()), events(&written(&records[..6])));
}

#[test]
fn what_was_there_at_the_first_changed_step_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let records = [train(2, 3.0), eval(2, 0, 2.5), grow(2, 1), eval(2, 1, 2.5)];
    write_events(dir.path(), &records).unwrap();
    // Gone on from before the growth: a session start takes all of step 2 away, so all of it comes again.
    let kept = [train(2, 3.0), eval(2, 0, 2.5), train(3, 2.75)];
    write_events(dir.path(), &kept).unwrap();
    assert_eq!(shown(dir.path()), events(&written(&kept)));
}

#[test]
fn an_append_that_was_cut_short_is_not_written_behind() {
    let all = every_kind();
    let whole = written(&all);
    for cut in [0, 5, 100, whole.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file(0));
        std::fs::write(&path, &whole[..cut]).unwrap();
        write_events(dir.path(), &all).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole[..cut], "cut at {cut}");
        let second = std::fs::read(dir.path().join(file(1))).unwrap();
        // The frames that are whole, as a reader takes them, then the next file.
        let mut seen = Vec::new();
        let ends = frame_ends(&whole);
        let end = ends
            .iter()
            .rev()
            .find(|&&end| end <= cut)
            .copied()
            .unwrap_or(0);
        if end > 0 {
            read_on(&mut seen, &whole[..end]);
        }
        read_on(&mut seen, &second);
        assert_eq!(seen, events(&whole), "cut at {cut}");
        // The next report is appended to the second file.
        write_events(dir.path(), &[&all[..], &[train(9, 1.0)]].concat()).unwrap();
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            2,
            "cut at {cut}"
        );
    }
}

fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let ends = frames(bytes).into_iter().scan(0, |end, frame| {
        *end += frame.len() + 16;
        Some(*end)
    });
    ends.collect()
}

#[test]
fn after_files_without_a_start_two_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let old = written(&[train(1, 3.0), train(2, 2.0)]);
    // The same file without its second frame, which is the start.
    let ends = frame_ends(&old);
    let old = [&old[..ends[0]], &old[ends[1]..]].concat();
    std::fs::write(dir.path().join(file(0)), &old).unwrap();
    write_events(dir.path(), &[train(1, 3.0), train(2, 1.0)]).unwrap();
    let second = std::fs::read(dir.path().join(file(1))).unwrap();
    let is_start = |frame: &[u8]| {
        matches!(
            fields(frame)[..],
            [_, Field::Varint(2, 2), Field::Bytes(7, _)]
        )
    };
    let starts = frames(&second).into_iter().filter(|frame| is_start(frame));
    assert_eq!(starts.count(), 2);
}

#[test]
fn a_run_that_begins_again_takes_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    write_events(dir.path(), &every_kind()).unwrap();
    write_events(dir.path(), &[]).unwrap();
    assert_eq!(shown(dir.path()), []);
    write_events(dir.path(), &[eval(0, 0, 4.0)]).unwrap();
    assert_eq!(shown(dir.path()), events(&written(&[eval(0, 0, 4.0)])));
    assert_eq!(files(dir.path()).len(), 2);
}

#[test]
fn records_out_of_order_are_shown_by_step_and_settle() {
    let dir = tempfile::tempdir().unwrap();
    let records = [train(5, 1.0), train(3, 2.0), train(4, 3.0)];
    write_events(dir.path(), &records).unwrap();
    write_events(dir.path(), &records).unwrap();
    let steps: Vec<u64> = shown(dir.path()).iter().map(|event| event.1).collect();
    assert!(steps.is_sorted(), "{steps:?}");
    assert_eq!(files(dir.path()).len(), 1);
}

#[test]
fn long_texts_and_large_steps_are_framed_right() {
    let text = "x".repeat(70_000);
    let records = [sample(u64::MAX / 64, "", &text)];
    let events = events(&written(&records));
    assert_eq!(events[0].1, u64::MAX / 64);
    assert_eq!(events[0].3, Err(text));
}

#[test]
fn accuracies_and_averages_have_tags_of_their_own() {
    let events = events(&written(&of_images()));
    let find = |step: u64, tag: &str| {
        let found = events
            .iter()
            .find(|event| event.1 == step && event.2 == tag);
        found.map(|event| event.3.clone())
    };
    for (tag, value) in [
        ("train/images_per_s", 1500.0),
        ("train/waiting", 0.25),
        ("eval/top1", 0.5),
        ("eval/top5", 0.875),
        ("eval/ema_loss", 1.25),
        ("eval/ema_top1", 0.625),
        ("eval/ema_top5", 0.9375),
    ] {
        assert_eq!(find(2, tag), Some(Ok(value)), "{tag}");
    }
    for tag in ["eval/perplexity", "train/tokens_per_s"] {
        assert_eq!(find(2, tag), None, "{tag}");
    }
}
