//! The files of a finished or running run.

use std::path::{Path, PathBuf};

use crate::files::{create_dir, write_atomically};
use crate::{ReportInput, Result, metrics_csv, plots, render};

/// Writes `report.html`, `metrics.csv` and `plots/*.svg` into `run_dir`, each atomically; returns the path of
/// `report.html`.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) when a folder or file cannot be written.
pub fn write_report(run_dir: impl AsRef<Path>, input: &ReportInput<'_>) -> Result<PathBuf> {
    let run_dir = run_dir.as_ref();
    let plots_dir = run_dir.join("plots");
    create_dir(&plots_dir)?;
    write_atomically(
        &run_dir.join("metrics.csv"),
        metrics_csv(input.records).as_bytes(),
    )?;
    for plot in plots(input.records) {
        write_atomically(
            &plots_dir.join(format!("{}.svg", plot.name)),
            plot.standalone().as_bytes(),
        )?;
    }
    let report = run_dir.join("report.html");
    write_atomically(&report, render(input).as_bytes())?;
    Ok(report)
}
