//! Warps: Pillow's `Image.transform` with an affine matrix, in f64.
//!
//! An output pixel takes the value at (a·x + b·y + c, d·x + e·y + f) of the source, where pixel centres lie at halves.
//! A centre outside the source takes the fill; neighbours outside are those of the edge.

use super::Warp;
use crate::picture::Picture;
use crate::resize::Filter;

/// `[a, b, c, d, e, f]`.
pub(super) type Matrix = [f64; 6];

/// Around the centre of a picture of this size, as Pillow's `Image.rotate` computes it.
pub(super) fn rotation(degrees: f64, width: f64, height: f64) -> Matrix {
    // Pillow rounds the sines to 15 decimals; printing and reading rounds as it does.
    let rounded = |x: f64| format!("{x:.15}").parse::<f64>().unwrap_or(x);
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let (sin, cos, minus_sin) = (
        rounded(angle.sin()),
        rounded(angle.cos()),
        rounded(-angle.sin()),
    );
    let (x, y) = (width / 2.0, height / 2.0);
    let c = cos * -x + sin * -y + x;
    let f = minus_sin * -x + cos * -y + y;
    [cos, sin, c, minus_sin, cos, f]
}

pub(super) fn transform(picture: &Picture, matrix: Matrix, warp: Warp) -> Picture {
    let (width, height, channels) = picture.shape();
    let [a, b, c, d, e, f] = matrix;
    let mut pixels = Vec::with_capacity(width * height * channels);
    for y in 0..height {
        let y = y as f64 + 0.5;
        for x in 0..width {
            let x = x as f64 + 0.5;
            let source = (a * x + b * y + c, d * x + e * y + f);
            let is_inside = source.0 >= 0.0
                && source.0 < width as f64
                && source.1 >= 0.0
                && source.1 < height as f64;
            if !is_inside {
                pixels.extend_from_slice(&warp.fill[..channels]);
                continue;
            }
            match warp.filter {
                Filter::Bicubic => bicubic(picture, source, &mut pixels),
                Filter::Bilinear | Filter::Box => bilinear(picture, source, &mut pixels),
            }
        }
    }
    picture.with_pixels(pixels)
}

/// The pixel left of or above a place, and the distance from it.
fn floor(place: f64) -> (isize, f64) {
    let first = (place - 0.5).floor();
    (first as isize, place - 0.5 - first)
}

fn clip(place: isize, side: usize) -> usize {
    place.clamp(0, side as isize - 1) as usize
}

fn bilinear(picture: &Picture, (x, y): (f64, f64), out: &mut Vec<u8>) {
    let (width, height, channels) = picture.shape();
    let ((x, dx), (y, dy)) = (floor(x), floor(y));
    let columns = [0, 1].map(|step| clip(x + step, width));
    let rows = [0, 1].map(|step| clip(y + step, height));
    for channel in 0..channels {
        let [above, below] = rows.map(|row| {
            let [left, right] = columns.map(|column| f64::from(picture.at(column, row, channel)));
            left + (right - left) * dx
        });
        out.push((above + (below - above) * dy) as u8);
    }
}

fn bicubic(picture: &Picture, (x, y): (f64, f64), out: &mut Vec<u8>) {
    let (width, height, channels) = picture.shape();
    let ((x, dx), (y, dy)) = (floor(x), floor(y));
    let columns = [-1, 0, 1, 2].map(|step| clip(x + step, width));
    let rows = [-1, 0, 1, 2].map(|step| clip(y + step, height));
    for channel in 0..channels {
        let values = rows.map(|row| {
            let values = columns.map(|column| f64::from(picture.at(column, row, channel)));
            cubic(values, dx)
        });
        // The cast cuts towards 0 and clips.
        out.push(cubic(values, dy) as u8);
    }
}

/// The cubic with a = -1 between the middle two of four values.
fn cubic([v1, v2, v3, v4]: [f64; 4], d: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + d * (p2 + d * (p3 + d * p4))
}
