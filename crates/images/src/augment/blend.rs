//! Operations that blend a picture with a poorer version of itself, as Pillow's `ImageEnhance` does, in f32.

use crate::picture::Picture;

pub(super) fn color(picture: &Picture, factor: f64) -> Picture {
    let grey = picture.to_grey().into_channels(picture.channels());
    blend(picture, factor, |at| grey.pixels()[at])
}

pub(super) fn contrast(picture: &Picture, factor: f64) -> Picture {
    let grey = picture.to_grey();
    let sum: u64 = grey.pixels().iter().map(|&v| u64::from(v)).sum();
    let mean = (sum as f64 / grey.pixels().len() as f64 + 0.5) as u8;
    blend(picture, factor, |_| mean)
}

pub(super) fn brightness(picture: &Picture, factor: f64) -> Picture {
    blend(picture, factor, |_| 0)
}

pub(super) fn sharpness(picture: &Picture, factor: f64) -> Picture {
    let smooth = smoothed(picture);
    blend(picture, factor, |at| smooth[at])
}

fn blend(picture: &Picture, factor: f64, poorer: impl Fn(usize) -> u8) -> Picture {
    let factor = factor as f32;
    let pixels = picture.pixels().iter().enumerate().map(|(at, &value)| {
        let poorer = i32::from(poorer(at));
        let difference = i32::from(value) - poorer;
        // The cast truncates towards 0 and clips.
        (poorer as f32 + factor * difference as f32) as u8
    });
    picture.with_pixels(pixels.collect())
}

/// Smooths with a 3 x 3 kernel of 5/13 in the middle and 1/13 around it; the border is unchanged.
fn smoothed(picture: &Picture) -> Vec<u8> {
    let (width, height, channels) = picture.shape();
    let old = picture.pixels();
    let mut new = old.to_vec();
    if width < 3 || height < 3 {
        return new;
    }
    let row = width * channels;
    let (edge, middle) = (1.0 / 13.0_f32, 5.0 / 13.0_f32);
    let three = |at: usize, center: f32| {
        let value = |at: usize| f32::from(old[at]);
        value(at - channels) * edge + value(at) * center + value(at + channels) * edge
    };
    for y in 1..height - 1 {
        let inner = y * row + channels..(y + 1) * row - channels;
        for (at, new) in inner.clone().zip(&mut new[inner]) {
            // The sum has Pillow's order: from the row below to the one above.
            let sum = 0.5 + three(at + row, edge) + three(at, middle) + three(at - row, edge);
            *new = sum as u8;
        }
    }
    new
}
