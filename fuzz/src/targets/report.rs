//! What is drawn from records, however odd.

use tokenformer_report::{ReportInput, metrics_csv, plots, read, render, write_events};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Reads the input as records and makes every file that is derived from them.
pub fn run(input: &[u8]) {
    let path = files::write("metrics.jsonl", input);
    bounded(input, 8 * MIB, || {
        let Ok(records) = read(&path) else {
            return;
        };
        let _ = metrics_csv(&records);
        for plot in plots(&records) {
            assert!(plot.standalone().contains("<svg"));
        }
        let page = render(&ReportInput {
            title: "a run",
            records: &records,
            config_toml: "",
            environment: &[],
            notes: &[],
            pictures: None,
        });
        assert!(!page.contains("<script") && page.ends_with("</html>\n"));
        write_events(files::folder(), &records).expect("a file");
    });
}
