//! Affine warps, as Pillow's `Image.transform`, computed in f64.
//!
//! An output pixel takes the value at (a·x + b·y + c, d·x + e·y + f) of the source, where pixel centres are at
//! half-integers. If that point is outside the source, the pixel gets the fill colour; for interpolation, neighbours
//! outside are replaced by the edge.

use crate::picture::Picture;
use crate::resize::Filter;

/// How warps interpolate and fill areas outside the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warp {
    /// [`Filter::Bilinear`] or [`Filter::Bicubic`]; [`Filter::Box`] is treated as bilinear.
    pub filter: Filter,
    /// Red, green, blue; only the first is used for grey.
    pub fill: [u8; 3],
}

/// `[a, b, c, d, e, f]`.
pub(super) type Matrix = [f64; 6];

/// A rotation around the centre of a picture of this size, as Pillow's `Image.rotate` computes it.
pub(super) fn rotation(degrees: f64, width: f64, height: f64) -> Matrix {
    // Pillow rounds the sines to 15 decimals; formatting and parsing rounds in the same way.
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
    let pixels = match picture.channels() {
        1 => warped::<1>(picture, matrix, warp),
        _ => warped::<3>(picture, matrix, warp),
    };
    picture.with_pixels(pixels)
}

fn warped<const CHANNELS: usize>(picture: &Picture, matrix: Matrix, warp: Warp) -> Vec<u8> {
    let source = Source::<CHANNELS> {
        width: picture.width(),
        height: picture.height(),
        pixels: picture.pixels(),
    };
    let (wide, high) = (source.width as f64, source.height as f64);
    let fill: [u8; CHANNELS] = std::array::from_fn(|channel| warp.fill[channel]);
    let [a, b, c, d, e, f] = matrix;
    let mut pixels = Vec::with_capacity(source.pixels.len());
    for y in 0..source.height {
        let y = y as f64 + 0.5;
        for x in 0..source.width {
            let x = x as f64 + 0.5;
            let (x, y) = (a * x + b * y + c, d * x + e * y + f);
            let is_inside = x >= 0.0 && x < wide && y >= 0.0 && y < high;
            pixels.extend(match (is_inside, warp.filter) {
                (false, _) => fill,
                (true, Filter::Bicubic) => source.bicubic(x, y),
                (true, Filter::Bilinear | Filter::Box) => source.bilinear(x, y),
            });
        }
    }
    pixels
}

/// A picture of a known number of channels.
struct Source<'a, const CHANNELS: usize> {
    width: usize,
    height: usize,
    pixels: &'a [u8],
}

/// The index of the pixel left of or above a coordinate, and the distance from it.
fn floor(place: f64) -> (isize, f64) {
    let first = (place - 0.5).floor();
    (first as isize, place - 0.5 - first)
}

fn clip(place: isize, side: usize) -> usize {
    place.clamp(0, side as isize - 1) as usize
}

impl<const CHANNELS: usize> Source<'_, CHANNELS> {
    /// `COUNT` pixels of a row from column `first` on; pixels outside are replaced by the edge.
    fn pixels_of_row<const COUNT: usize>(
        &self,
        row: isize,
        first: isize,
    ) -> [[u8; CHANNELS]; COUNT] {
        let row = clip(row, self.height) * self.width;
        let (pixels, _) = self.pixels[row * CHANNELS..].as_chunks::<CHANNELS>();
        std::array::from_fn(|step| pixels[clip(first + step as isize, self.width)])
    }

    fn bilinear(&self, x: f64, y: f64) -> [u8; CHANNELS] {
        let ((x, dx), (y, dy)) = (floor(x), floor(y));
        let rows = [0, 1].map(|step| self.pixels_of_row::<2>(y + step, x));
        std::array::from_fn(|channel| {
            let [above, below] = rows.map(|row| {
                let [left, right] = row.map(|pixel| f64::from(pixel[channel]));
                left + (right - left) * dx
            });
            (above + (below - above) * dy) as u8
        })
    }

    fn bicubic(&self, x: f64, y: f64) -> [u8; CHANNELS] {
        let ((x, dx), (y, dy)) = (floor(x), floor(y));
        let rows = [-1, 0, 1, 2].map(|step| self.pixels_of_row::<4>(y + step, x - 1));
        std::array::from_fn(|channel| {
            let values = rows.map(|row| cubic(row.map(|pixel| f64::from(pixel[channel])), dx));
            // The cast truncates towards 0 and clips.
            cubic(values, dy) as u8
        })
    }
}

/// Cubic interpolation with a = -1 between the middle two of four values.
fn cubic([v1, v2, v3, v4]: [f64; 4], d: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + d * (p2 + d * (p3 + d * p4))
}
