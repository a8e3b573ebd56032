//! `metrics.jsonl`.

use tokenformer_report::{MetricsWriter, ResumePoint, read};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Reads the input, opens it for more records, and checks that what was kept is read the same.
pub fn run(input: &[u8]) {
    let path = files::write("metrics.jsonl", input);
    bounded(input, MIB, || {
        let before = read(&path);
        if let Err(error) = &before {
            assert!(error.to_string().len() < 4000, "{error}");
        }
        let opened = MetricsWriter::open(&path, None).expect("any bytes can be gone on from");
        assert_eq!(before.is_ok(), opened.damage().is_none());
        if let Ok(before) = before {
            let after = read(&path).expect("what was kept");
            assert_eq!(format!("{before:?}"), format!("{after:?}"));
            let point = ResumePoint {
                step: 3,
                stage: 0,
                unevaluated: false,
            };
            MetricsWriter::open(&path, Some(point)).expect("what was kept");
            let resumed = read(&path).expect("what was kept");
            assert!(resumed.iter().all(|record| record.step() <= 3));
        }
    });
}
