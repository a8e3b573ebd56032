//! `metrics.jsonl` is read as it was written, also after kills and damage.

mod common;

use common::{control, every_kind, note, of_images, train};
use proptest::prelude::*;
use tokenformer_report::{Error, EvalRecord, MetricsWriter, Record, ResumePoint, read};

/// A checkpoint of a step, in the last stage of any run here.
fn at(step: u64) -> Option<ResumePoint> {
    Some(ResumePoint {
        step,
        stage: 9,
        unevaluated: false,
    })
}

fn write(path: &std::path::Path, records: &[Record]) {
    let mut writer = MetricsWriter::open(path, None).unwrap();
    for record in records {
        writer.write(record).unwrap();
    }
    writer.sync().unwrap();
}

#[test]
fn records_read_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&path, &every_kind());
    assert_eq!(read(&path).unwrap(), every_kind());
}

#[test]
fn field_order_and_float_form_are_fixed() {
    let line = serde_json::to_string(&train(2, 0.1 + 0.2)).unwrap();
    assert_eq!(
        line,
        r#"{"kind":"train","step":2,"tokens":128,"loss":0.30000000000000004,"bits_per_byte":0.4328085122666891,"grad_norm":0.5,"lr":0.001,"stage":0,"params":12800,"step_ms":20.0,"tokens_per_s":3200.0,"skipped":false}"#
    );
}

#[test]
fn records_of_pictures_have_no_keys_of_text() {
    let lines: Vec<String> = of_images()
        .iter()
        .map(|record| serde_json::to_string(record).unwrap())
        .collect();
    assert_eq!(
        lines[1],
        r#"{"kind":"train","step":1,"tokens":64,"loss":2.0,"grad_norm":0.5,"lr":0.001,"stage":0,"params":12800,"step_ms":20.0,"images_per_s":1500.0,"waiting":0.25,"skipped":false}"#
    );
    assert_eq!(
        lines[3],
        r#"{"kind":"eval","step":2,"tokens":128,"stage":0,"params":12800,"loss":1.5,"eval_tokens":1024,"top1":0.5,"top5":0.875,"ema_loss":1.25,"ema_top1":0.625,"ema_top5":0.9375}"#
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&path, &of_images());
    assert_eq!(read(&path).unwrap(), of_images());
}

#[test]
fn non_finite_floats_are_null_and_read_back_as_nan() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&path, &[train(1, f64::NAN), train(2, f64::NEG_INFINITY)]);
    let text = std::fs::read_to_string(&path).unwrap();
    for line in text.lines() {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(json["loss"].is_null());
    }
    for record in read(&path).unwrap() {
        let Record::Train(record) = record else {
            panic!("not a train record: {record:?}");
        };
        assert!(record.loss.is_nan());
    }
}

#[test]
fn controls_stay_once_their_growth_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let records = [train(2, 1.0), control(3, 1, 0.5), control(9, 1, 0.25)];
    let resumed_in = |stage: usize| {
        write(&path, &records);
        let (step, unevaluated) = (2, false);
        let point = ResumePoint {
            step,
            stage,
            unevaluated,
        };
        MetricsWriter::open(&path, Some(point)).unwrap();
        let kept = read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        kept
    };
    assert_eq!(resumed_in(0), records[..1], "they are made again");
    assert_eq!(resumed_in(1), records, "they are not made again");
}

#[test]
fn resumed_run_has_the_bytes_of_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let whole: Vec<Record> = (1..=9)
        .map(|step| train(step, 1.0 / step as f64 / 3.0))
        .collect();
    let (straight, killed) = (dir.path().join("straight"), dir.path().join("killed"));
    write(&straight, &whole);
    write(&killed, &whole[..7]);
    let mut writer = MetricsWriter::open(&killed, at(4)).unwrap();
    for record in &whole[4..] {
        writer.write(record).unwrap();
    }
    assert_eq!(
        std::fs::read(&straight).unwrap(),
        std::fs::read(&killed).unwrap()
    );
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files, 2, "temporary files were left behind");
}

#[test]
fn opening_without_a_resume_step_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&path, &[train(1, 2.0), note(u64::MAX, "last")]);
    write(&path, &[train(2, 1.0)]);
    assert_eq!(
        read(&path).unwrap(),
        [train(1, 2.0), note(u64::MAX, "last"), train(2, 1.0)]
    );
}

#[test]
fn torn_last_line_is_dropped_at_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&path, &[train(1, 2.0), train(2, 1.0)]);
    let bytes = std::fs::read(&path).unwrap();
    let first_end = bytes.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    // Up to the closing brace, which makes the record whole even without its line end.
    for end in first_end..bytes.len() - 1 {
        std::fs::write(&path, &bytes[..end]).unwrap();
        assert_eq!(read(&path).unwrap(), [train(1, 2.0)], "cut at {end}");
        let mut writer = MetricsWriter::open(&path, at(1)).unwrap();
        writer.write(&train(2, 1.0)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "cut at {end}");
    }
}

#[test]
fn last_line_that_lacks_only_its_end_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&path, &[train(1, 2.0)]);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    write(&path, &[train(2, 1.0)]);
    assert_eq!(read(&path).unwrap(), [train(1, 2.0), train(2, 1.0)]);
}

#[test]
fn a_malformed_line_is_an_error_of_a_reader_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    write(&path, &[train(1, 2.0)]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(b"{\"kind\":\"dance\",\"step\":2}\x1b\n");
    std::fs::write(&path, &bytes).unwrap();

    let error = read(&path).unwrap_err();
    assert!(matches!(error, Error::BadRecord { line: 2, .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("metrics.jsonl:2: "), "{message}");
    assert!(
        message.contains("help:") && message.contains("dance"),
        "{message}"
    );
    assert!(!message.contains('\x1b'), "{message:?}");

    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn damaged_lines_are_put_aside_and_told_when_a_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let line = |record: &Record| serde_json::to_string(record).unwrap();
    let bad = [
        "\0\0\0",
        "{\"kind\":\"note\",\"step\":2}",
        "{\"kind\":\"train\",\"st\u{1b}",
    ];
    let lines = [
        line(&train(1, 2.0)),
        bad[0].into(),
        bad[1].into(),
        line(&train(2, 1.5)),
        bad[2].into(),
    ];
    std::fs::write(
        &path,
        lines.join("\n") + "\n" + &line(&train(3, 1.0)) + "\n",
    )
    .unwrap();

    let mut writer = MetricsWriter::open(&path, at(2)).unwrap();
    let damage = writer.damage().unwrap().clone();
    assert_eq!((damage.count, damage.first_line), (3, 2));
    let said = damage.to_string();
    let start = format!(
        "{0}: 3 lines are no records and are kept in {0}.damaged",
        path.display()
    );
    assert!(said.starts_with(&start), "{said}");
    assert!(
        said.contains("line 2: ") && said.contains("\\u{0}"),
        "{said}"
    );
    writer.write(&train(3, 0.5)).unwrap();
    assert_eq!(
        read(&path).unwrap(),
        [train(1, 2.0), train(2, 1.5), train(3, 0.5)]
    );
    let aside = dir.path().join("metrics.jsonl.damaged");
    assert_eq!(
        std::fs::read_to_string(&aside).unwrap(),
        bad.join("\n") + "\n"
    );

    // The next call finds no damage; later damage is stored behind the kept lines.
    assert_eq!(MetricsWriter::open(&path, at(3)).unwrap().damage(), None);
    std::fs::write(&path, "later\n").unwrap();
    let writer = MetricsWriter::open(&path, None).unwrap();
    let said = writer.damage().unwrap().to_string();
    assert!(
        said.contains("a line is no record and is kept in"),
        "{said}"
    );
    assert_eq!(read(&path).unwrap(), []);
    assert_eq!(
        std::fs::read_to_string(&aside).unwrap(),
        bad.join("\n") + "\nlater\n"
    );
}

#[test]
fn lines_have_a_largest_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let rest = "0,".repeat(2 << 20);
    let line = format!("{{\"kind\":\"note\",\"step\":2,\"text\":\"a\",\"rest\":[{rest}0]}}\n");
    std::fs::write(&path, line).unwrap();
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("at most 4194304 are read"), "{message}");
    assert!(message.len() < 1000, "{} bytes of message", message.len());
}

#[test]
fn missing_required_key_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    std::fs::write(&path, "{\"kind\":\"note\",\"step\":2}\n").unwrap();
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("missing field `text`"), "{message}");
}

#[test]
fn missing_file_is_an_error_for_read_and_created_by_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    assert!(matches!(read(&path), Err(Error::Io { .. })));
    MetricsWriter::open(&path, at(3)).unwrap();
    assert_eq!(read(&path).unwrap(), []);
}

proptest! {
    #[test]
    fn any_bytes_are_records_or_are_put_aside(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, &bytes).unwrap();
        let good = read(&path).is_ok();
        let writer = MetricsWriter::open(&path, None).unwrap();
        prop_assert_eq!(writer.damage().is_none(), good);
        prop_assert!(read(&path).is_ok());
    }

    #[test]
    fn finite_losses_read_back_bit_for_bit(bits in any::<u64>()) {
        let loss = f64::from_bits(bits);
        prop_assume!(loss.is_finite());
        let line = serde_json::to_string(&train(1, loss)).unwrap();
        let Record::Train(read) = serde_json::from_str(&line).unwrap() else { unreachable!() };
        prop_assert_eq!(read.loss.to_bits(), bits);
    }
}

#[test]
fn a_growth_after_the_checkpoint_of_its_step_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let eval = |step, stage| {
        Record::Eval(EvalRecord {
            step,
            tokens: 8 * step,
            stage,
            params: 1,
            flops: None,
            loss: 1.0,
            bits_per_byte: None,
            perplexity: Some(1f64.exp()),
            eval_tokens: 4,
            top1: None,
            top5: None,
            ema_loss: None,
            ema_top1: None,
            ema_top5: None,
        })
    };
    let mut writer = MetricsWriter::open(&path, None).unwrap();
    for record in [eval(3, 0), eval(4, 0), eval(4, 1)] {
        writer.write(&record).unwrap();
    }
    drop(writer);
    let point = ResumePoint {
        step: 4,
        stage: 0,
        unevaluated: false,
    };
    MetricsWriter::open(&path, Some(point)).unwrap();
    assert_eq!(read(&path).unwrap(), [eval(3, 0), eval(4, 0)]);
}

#[test]
fn an_evaluation_that_was_interrupted_is_recorded_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let eval = |step| -> Record {
        let line = format!(
            r#"{{"kind":"eval","step":{step},"tokens":1,"stage":0,"params":1,"loss":1.0,"perplexity":2.0,"eval_tokens":1}}"#
        );
        serde_json::from_str(&line).unwrap()
    };
    let all = [train(4, 1.0), eval(4), train(8, 1.0), note(8, "a"), eval(8)];
    write(&path, &all);
    let point = |unevaluated| ResumePoint {
        step: 8,
        stage: 0,
        unevaluated,
    };
    MetricsWriter::open(&path, Some(point(false))).unwrap();
    assert_eq!(read(&path).unwrap(), all);
    MetricsWriter::open(&path, Some(point(true))).unwrap();
    assert_eq!(read(&path).unwrap(), all[..4]);
}
