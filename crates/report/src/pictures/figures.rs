//! The confusion matrix and the reliability plot.

use super::{Calibration, PictureReport};
use crate::escape::escape;

/// Classes up to which all of them are drawn.
pub(super) const MAX_CLASSES: usize = 50;

/// Letters of a class's name in the matrix.
const LETTERS: usize = 18;

/// `[told]` by `[class]`, each row as shares of the pictures of its class; `None` if the classes are too many.
pub(super) fn confusion_matrix(report: &PictureReport) -> Option<String> {
    let classes = report.classes.len();
    if classes == 0 || classes > MAX_CLASSES {
        return None;
    }
    let mut counts = vec![0u64; classes * classes];
    for &(label, told, images) in &report.confusions {
        if let Some(count) = counts.get_mut(label as usize * classes + told as usize) {
            *count += images;
        }
    }
    let cell = (620.0 / classes as f64).clamp(11.0, 46.0);
    let (left, top) = (150.0, 130.0);
    let (width, height) = (
        left + cell * classes as f64 + 20.0,
        top + cell * classes as f64 + 20.0,
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart matrix\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         style=\"width:{width:.0}px\" role=\"img\" aria-label=\"Confusion matrix\">\n"
    );
    out += &format!(
        "<text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">is ↓ taken for →</text>\n",
        left - 8.0,
        top - 8.0
    );
    for (class, name) in report.classes.iter().enumerate() {
        let name = shortened(name);
        let at = (class as f64 + 0.5) * cell;
        out += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <text x=\"0\" y=\"0\" transform=\"translate({:.1} {:.1}) rotate(-60)\">{name}</text>\n",
            left - 8.0,
            top + at + 4.0,
            left + at + 3.0,
            top - 8.0,
        );
    }
    for (label, row) in counts.chunks_exact(classes).enumerate() {
        let total: u64 = row.iter().sum();
        for (told, &count) in row.iter().enumerate() {
            let share = count as f64 / total.max(1) as f64;
            let (x, y) = (left + told as f64 * cell, top + label as f64 * cell);
            let class = if label == told { "right" } else { "wrong" };
            // The square root shows rare confusions, too.
            out += &format!(
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{0:.1}\" height=\"{0:.1}\" \
                 fill-opacity=\"{1:.3}\"><title>{2} taken for {3}: {count} of {total}</title></rect>",
                cell - 1.0,
                share.sqrt(),
                escape(&report.classes[label]),
                escape(&report.classes[told]),
            );
            if count > 0 && cell > 24.0 {
                out += &format!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{count}</text>",
                    x + 0.5 * cell,
                    y + 0.5 * cell + 4.0
                );
            }
        }
        out.push('\n');
    }
    Some(out + "</svg>\n")
}

fn shortened(name: &str) -> String {
    match name.chars().count() > LETTERS {
        true => escape(&(name.chars().take(LETTERS - 1).collect::<String>() + "…")),
        false => escape(name),
    }
}

/// The share that was right over the confidence, with the number of pictures as bars.
pub(super) fn reliability(calibration: &Calibration) -> String {
    let (left, top, side) = (60.0, 20.0, 300.0);
    let place = |x: f64, y: f64| (left + x * side, top + (1.0 - y) * side);
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart matrix\" viewBox=\"0 0 400 380\" style=\"width:400px\" \
         role=\"img\" aria-label=\"Reliability\">\n",
    );
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let ((x, bottom), (_, y)) = (place(tick, 0.0), place(0.0, tick));
        let percent = 100.0 * tick;
        out += &format!(
            "<line class=\"grid\" x1=\"{left}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"dim\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{percent}</text>\
             <text class=\"dim\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{percent}</text>\n",
            left + side,
            left - 8.0,
            y + 4.0,
            bottom + 18.0,
        );
    }
    let most = calibration.bins.iter().map(|bin| bin.images).max();
    let most = most.unwrap_or(1).max(1) as f64;
    for bin in &calibration.bins {
        let (x, _) = place(bin.confidence, 0.0);
        let high = 0.25 * side * bin.images as f64 / most;
        out += &format!(
            "<rect class=\"pale\" x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"{high:.1}\"/>",
            x - 5.0,
            top + side - high
        );
    }
    let ((x0, y0), (x1, y1)) = (place(0.0, 0.0), place(1.0, 1.0));
    out += &format!(
        "<line class=\"growth\" x1=\"{x0}\" y1=\"{y0}\" x2=\"{x1}\" y2=\"{y1}\"/>\n<path class=\"train\" d=\""
    );
    for (i, bin) in calibration.bins.iter().enumerate() {
        let (x, y) = place(bin.confidence, bin.right);
        out += &format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
    }
    out += "\"/>\n";
    for bin in &calibration.bins {
        let (x, y) = place(bin.confidence, bin.right);
        out += &format!(
            "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"><title>{} pictures said with {:.1} %: {:.1} % right</title></circle>",
            bin.images,
            100.0 * bin.confidence,
            100.0 * bin.right
        );
    }
    out += &format!(
        "\n<text class=\"dim\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">confidence, percent (bars: pictures); up: percent right</text>\n</svg>\n",
        left + 0.5 * side,
        top + side + 42.0
    );
    out
}
