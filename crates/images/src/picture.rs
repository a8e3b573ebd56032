//! Pictures of 8 bits per channel.

/// A picture, row-major `[height, width, channels]`, with 1 channel (grey) or 3 (red, green, blue) of 0 to 255.
///
/// Both sides are at least 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// A picture of these pixels; `None` if a side is 0, `channels` is not 1 or 3, or the number of bytes is not
    /// `height * width * channels`.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Option<Self> {
        let bytes = width.checked_mul(height)?.checked_mul(channels)?;
        let is_valid = bytes > 0 && matches!(channels, 1 | 3) && pixels.len() == bytes;
        is_valid.then_some(Self {
            width,
            height,
            channels,
            pixels,
        })
    }

    /// A picture whose pixels come from `pixel(x, y, channel)`.
    pub(crate) fn from_fn(
        (width, height, channels): (usize, usize, usize),
        mut pixel: impl FnMut(usize, usize, usize) -> u8,
    ) -> Self {
        let mut pixels = Vec::with_capacity(width * height * channels);
        for y in 0..height {
            for x in 0..width {
                pixels.extend((0..channels).map(|c| pixel(x, y, c)));
            }
        }
        Self {
            width,
            height,
            channels,
            pixels,
        }
    }

    /// A picture whose size is known to match its pixels.
    pub(crate) fn from_parts(
        width: usize,
        height: usize,
        channels: usize,
        pixels: Vec<u8>,
    ) -> Self {
        debug_assert_eq!(pixels.len(), width * height * channels);
        Self {
            width,
            height,
            channels,
            pixels,
        }
    }

    /// A picture of the same shape with other pixels.
    pub(crate) fn with_pixels(&self, pixels: Vec<u8>) -> Self {
        debug_assert_eq!(pixels.len(), self.pixels.len());
        Self { pixels, ..*self }
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// 1 or 3.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// `[height, width, channels]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    pub(crate) fn shape(&self) -> (usize, usize, usize) {
        (self.width, self.height, self.channels)
    }

    pub(crate) fn at(&self, x: usize, y: usize, channel: usize) -> u8 {
        self.pixels[(y * self.width + x) * self.channels + channel]
    }

    /// The rectangle at (`left`, `top`), which must be inside the picture.
    pub(crate) fn crop(&self, left: usize, top: usize, width: usize, height: usize) -> Self {
        let mut pixels = Vec::with_capacity(width * height * self.channels);
        for y in top..top + height {
            let start = (y * self.width + left) * self.channels;
            pixels.extend_from_slice(&self.pixels[start..start + width * self.channels]);
        }
        Self {
            width,
            height,
            channels: self.channels,
            pixels,
        }
    }

    /// Exchanges left and right.
    pub(crate) fn flip(&mut self) {
        let channels = self.channels;
        for row in self.pixels.chunks_exact_mut(self.width * channels) {
            row.reverse();
            row.chunks_exact_mut(channels).for_each(<[u8]>::reverse);
        }
    }

    /// Converts to one channel as Pillow's `convert("L")`: the luma of ITU-R 601-2 with 16 bits of fraction.
    pub fn to_grey(&self) -> Self {
        if self.channels == 1 {
            return self.clone();
        }
        let luma = |p: &[u8]| {
            let sum = u32::from(p[0]) * 19595 + u32::from(p[1]) * 38470 + u32::from(p[2]) * 7471;
            ((sum + 0x8000) >> 16) as u8
        };
        Self {
            channels: 1,
            pixels: self.pixels.chunks_exact(3).map(luma).collect(),
            ..*self
        }
    }

    /// Converts to three channels; grey is repeated.
    pub fn to_rgb(&self) -> Self {
        if self.channels == 3 {
            return self.clone();
        }
        Self {
            channels: 3,
            pixels: self.pixels.iter().flat_map(|&v| [v; 3]).collect(),
            ..*self
        }
    }

    /// Converts to `channels` (1 or 3).
    pub(crate) fn into_channels(self, channels: usize) -> Self {
        match (self.channels, channels) {
            (3, 1) => self.to_grey(),
            (1, 3) => self.to_rgb(),
            _ => self,
        }
    }

    /// The picture as a PNG file.
    pub fn to_png(&self) -> Vec<u8> {
        let mut file = Vec::new();
        // No side of a picture that is in memory has 32 bits, and writing to a vector cannot fail.
        let mut encoder = png::Encoder::new(&mut file, self.width as u32, self.height as u32);
        encoder.set_color(match self.channels {
            1 => png::ColorType::Grayscale,
            _ => png::ColorType::Rgb,
        });
        let written = encoder
            .write_header()
            .and_then(|mut writer| writer.write_image_data(&self.pixels));
        debug_assert!(written.is_ok(), "{written:?}");
        file
    }

    /// A hash of shape and pixels. Equal pictures have equal hashes, even if their files differ.
    pub fn content_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for side in [self.width, self.height, self.channels] {
            hasher.update(&(side as u64).to_le_bytes());
        }
        hasher.update(&self.pixels);
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked() {
        assert!(Picture::new(2, 1, 3, vec![0; 6]).is_some());
        for (width, height, channels, bytes) in [
            (0, 1, 1, 0),
            (1, 0, 3, 0),
            (1, 1, 2, 2),
            (1, 1, 4, 4),
            (2, 2, 1, 3),
            (usize::MAX, 2, 3, 6),
        ] {
            assert_eq!(Picture::new(width, height, channels, vec![0; bytes]), None);
        }
    }

    #[test]
    fn a_flip_keeps_the_order_of_channels() {
        let mut picture = Picture::new(2, 2, 3, (0..12).collect()).unwrap();
        picture.flip();
        assert_eq!(picture.pixels(), [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]);
    }

    #[test]
    fn a_png_file_has_the_pixels() {
        for channels in [1, 3] {
            let picture = Picture::from_fn((5, 3, channels), |x, y, c| (40 * y + 9 * x + c) as u8);
            let read = crate::decode(&picture.to_png(), &Default::default());
            assert_eq!(read.unwrap(), picture);
        }
    }

    #[test]
    fn crops_and_conversions() {
        let picture = Picture::from_fn((3, 2, 1), |x, y, _| (10 * y + x) as u8);
        assert_eq!(picture.crop(1, 1, 2, 1).pixels(), [11, 12]);
        assert_eq!(picture.to_rgb().to_grey(), picture);
        // Pillow: Image.new("RGB", (1, 1), (255, 0, 0)).convert("L") is 76; green is 150, blue 29.
        for (color, grey) in [([255, 0, 0], 76), ([0, 255, 0], 150), ([0, 0, 255], 29)] {
            let picture = Picture::new(1, 1, 3, color.to_vec()).unwrap();
            assert_eq!(picture.to_grey().pixels(), [grey]);
        }
    }

    #[test]
    fn the_hash_sees_shape_and_pixels() {
        let hash = |w, h, p: &[u8]| Picture::new(w, h, 1, p.to_vec()).unwrap().content_hash();
        assert_eq!(hash(2, 1, &[1, 2]), hash(2, 1, &[1, 2]));
        assert_ne!(hash(2, 1, &[1, 2]), hash(1, 2, &[1, 2]));
        assert_ne!(hash(2, 1, &[1, 2]), hash(2, 1, &[1, 3]));
    }
}
