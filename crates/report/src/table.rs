//! Aligned plain-text tables and short numbers for terminals.

use std::fmt;

/// A plain-text table: the first column left, the others right, two spaces between.
///
/// ```
/// use tokenformer_report::table::Table;
///
/// let mut table = Table::new(["site", "tokens"]);
/// table.row(["ffn".to_string(), "1024".to_string()]);
/// assert_eq!(table.to_string(), "site  tokens\n----  ------\nffn     1024\n");
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column headers and no rows.
    #[must_use]
    pub fn new<S: Into<String>>(headers: impl IntoIterator<Item = S>) -> Self {
        Self {
            headers: headers.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Appends a row; missing cells are empty, surplus ones are dropped.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.headers.len(), String::new());
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = vec![0; self.headers.len()];
        for row in std::iter::once(&self.headers).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        for row in [&self.headers, &rule].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A count in three significant digits with k, M, B (1e9), T, P or E.
///
/// ```
/// use tokenformer_report::table::human_count;
///
/// assert_eq!(human_count(812), "812");
/// assert_eq!(human_count(2_751_488), "2.75M");
/// assert_eq!(human_count(999_999), "1M");
/// ```
#[must_use]
pub fn human_count(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", "k", "M", "B", "T", "P", "E"])
}

/// The numbers from the least to the most of several things; just the number, if they do not differ.
///
/// ```
/// use tokenformer_report::table::range;
///
/// assert_eq!(range(48, None), "48");
/// assert_eq!(range(48, Some(64)), "48..64");
/// ```
#[must_use]
pub fn range(least: u64, most: Option<u64>) -> String {
    match most {
        Some(most) => format!("{least}..{most}"),
        None => least.to_string(),
    }
}

/// A size in three significant digits with binary units.
///
/// ```
/// use tokenformer_report::table::human_bytes;
///
/// assert_eq!(human_bytes(1536), "1.5 KiB");
/// ```
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    scaled(
        bytes as f64,
        1024.0,
        &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"],
    )
}

/// A duration in its two largest units; one that is negative or not finite is `-`.
///
/// ```
/// use tokenformer_report::table::human_duration;
///
/// assert_eq!(human_duration(0.8124), "812ms");
/// assert_eq!(human_duration(8.26), "8.3s");
/// assert_eq!(human_duration(1503.0), "25m 3s");
/// ```
#[must_use]
pub fn human_duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "-".to_owned();
    }
    if seconds < 0.9995 {
        return format!("{:.0}ms", seconds * 1e3);
    }
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    let (days, hours, minutes, seconds) = (
        whole / 86_400,
        whole / 3600 % 24,
        whole / 60 % 60,
        whole % 60,
    );
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// `value` divided by `base` until it is below it, in three significant digits, without trailing zeros.
fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    // Half a unit of the last digit earlier, so that 999 999 becomes 1M and not 1000k.
    while value >= base - 0.5 {
        let Some(next) = units.next() else { break };
        value /= base;
        unit = next;
    }
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}
