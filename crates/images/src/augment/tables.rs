//! Operations that look up each value in a table, as Pillow's `ImageOps` does.

use crate::picture::Picture;

type Table = [u8; 256];

pub(super) fn invert(picture: &Picture) -> Picture {
    same_for_all(picture, |v| 255 - v)
}

/// With 0 bits the result is black, as in the versions of Pillow used for the recipes. Pillow 13 returns an error for
/// it, although timm uses it at magnitude 10.
pub(super) fn posterize(picture: &Picture, bits: u32) -> Picture {
    let dropped = 8_u32.saturating_sub(bits);
    let mask = (0xff_u32 << dropped) as u8;
    same_for_all(picture, |v| v & mask)
}

pub(super) fn solarize(picture: &Picture, threshold: u32) -> Picture {
    same_for_all(
        picture,
        |v| {
            if u32::from(v) < threshold { v } else { 255 - v }
        },
    )
}

pub(super) fn solarize_add(picture: &Picture, add: u32) -> Picture {
    same_for_all(picture, |v| match v < 128 {
        true => (u32::from(v) + add).min(255) as u8,
        false => v,
    })
}

pub(super) fn auto_contrast(picture: &Picture) -> Picture {
    by_channel(picture, |histogram| {
        let lowest = histogram.iter().position(|&n| n > 0)?;
        let highest = histogram.iter().rposition(|&n| n > 0)?;
        if highest <= lowest {
            return None;
        }
        let scale = 255.0 / (highest - lowest) as f64;
        let offset = -(lowest as f64) * scale;
        // Casts truncate towards 0 and clip, as Pillow does.
        Some(std::array::from_fn(|v| (v as f64 * scale + offset) as u8))
    })
}

pub(super) fn equalize(picture: &Picture) -> Picture {
    by_channel(picture, |histogram| {
        let values = histogram.iter().filter(|&&n| n > 0).count();
        let last = *histogram.iter().rfind(|&&n| n > 0)?;
        let step = (histogram.iter().sum::<u64>() - last) / 255;
        if values <= 1 || step == 0 {
            return None;
        }
        let mut below = step / 2;
        Some(std::array::from_fn(|v| {
            let level = below / step;
            below += histogram[v];
            level.min(255) as u8
        }))
    })
}

fn same_for_all(picture: &Picture, value: impl Fn(u8) -> u8) -> Picture {
    let table: Table = std::array::from_fn(|v| value(v as u8));
    picture.with_pixels(
        picture
            .pixels()
            .iter()
            .map(|&v| table[usize::from(v)])
            .collect(),
    )
}

/// Applies a table to each channel, made from its histogram; `None` changes nothing.
fn by_channel(picture: &Picture, table: impl Fn(&[u64; 256]) -> Option<Table>) -> Picture {
    let channels = picture.channels();
    let mut pixels = picture.pixels().to_vec();
    for channel in 0..channels {
        let mut histogram = [0; 256];
        for &v in pixels[channel..].iter().step_by(channels) {
            histogram[usize::from(v)] += 1;
        }
        if let Some(table) = table(&histogram) {
            for v in pixels[channel..].iter_mut().step_by(channels) {
                *v = table[usize::from(*v)];
            }
        }
    }
    picture.with_pixels(pixels)
}
