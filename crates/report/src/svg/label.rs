//! Labels: the text of axis ticks and the width of text.

use crate::table::human_count;

/// The label of a tick, as exact as `step`, the distance between ticks, needs.
pub(crate) fn tick_label(value: f64, step: f64) -> String {
    let (size, step) = (value.abs(), step.abs());
    if size >= 1e18 {
        return format!("{value:.0e}");
    }
    if size >= 1000.0 && step >= 1.0 {
        let sign = if value < 0.0 { "-" } else { "" };
        return format!("{sign}{}", human_count(size.round() as u64));
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    if step < 1e-3 && size < 1.0 {
        // Drop "1.0e-5" to "1e-5" but keep "2.5e-5".
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    // Ten decimals are more than any axis between here and 1 shows apart.
    let decimals = (-step.log10().floor()).clamp(0.0, 10.0) as usize;
    format!("{value:.decimals$}")
}

/// Estimates the width of `text`, rather too wide than too narrow, since the reader's font is unknown.
pub(super) fn text_width(text: &str, font_px: f64) -> f64 {
    text.chars().count() as f64 * font_px * 0.6
}
