//! Pictures for a report: which are shown, and how.

use super::{Insight, TokenUse, Verdict, Verdicts, spread};
use crate::error::Result;
use tokenformer_images::{Filter, Picture, resize};
use tokenformer_report::pictures::{ClassTokens, PictureGroup, Shown, TokenRow};

const RIGHT: usize = 8;
const WRONG: usize = 16;
const UNSURE: usize = 8;
const ROLLOUT: usize = 8;
/// Classes that are named below a picture.
const NAMED: usize = 3;
/// Classes whose tokens are shown, tokens of each, pictures of each token.
const CLASSES: usize = 20;
const TOKENS: usize = 5;
const PICTURES: usize = 9;
/// Longest sides of pictures in the page.
const LARGE: usize = 160;
const SMALL: usize = 40;

impl Insight<'_> {
    /// Pictures that were recognised, wrongly named with confidence, and named with the least.
    pub(super) fn groups(&self, verdicts: &Verdicts) -> Vec<PictureGroup> {
        let all = &verdicts.all;
        let right: Vec<&Verdict> = all.iter().filter(|verdict| verdict.is_right()).collect();
        let mut wrong: Vec<&Verdict> = all.iter().filter(|verdict| !verdict.is_right()).collect();
        wrong.sort_by(|a, b| b.confidence().total_cmp(&a.confidence()));
        let mut unsure: Vec<&Verdict> = all.iter().collect();
        unsure.sort_by(|a, b| a.confidence().total_cmp(&b.confidence()));
        let group = |heading: &str, chosen: &[&Verdict], count: usize| PictureGroup {
            heading: heading.into(),
            pictures: chosen
                .iter()
                .filter_map(|verdict| self.with_verdict(verdict))
                .take(count)
                .collect(),
        };
        vec![
            group("Right", &spread(&right, RIGHT), RIGHT),
            group("Wrong, with the most confidence", &wrong, WRONG),
            group("Least sure", &unsure, UNSURE),
        ]
    }

    /// Pictures next to where attention looked.
    pub(super) fn rollout(&self, verdicts: &Verdicts) -> Result<Vec<[Shown; 2]>> {
        let Some(&input) = self.model.input().image() else {
            return Ok(Vec::new());
        };
        let right: Vec<&Verdict> = (verdicts.all.iter())
            .filter(|verdict| verdict.is_right())
            .collect();
        let mut shown = Vec::new();
        for verdict in spread(&right, ROLLOUT) {
            let (Some(picture), Ok(read)) = (
                self.with_verdict(verdict),
                self.pictures.picture(verdict.index),
            ) else {
                continue;
            };
            let pixels = self.preprocess.input(read.clone());
            let seen = self.model.seen(&pixels, 1, true)?;
            let looked = heated(&self.preprocess.center(read), &seen.rollout, input.patch);
            let png = fitted(looked, LARGE).to_png();
            let most = seen.rollout.iter().copied().fold(0.0f32, f32::max);
            let least = seen.rollout.iter().copied().fold(1.0f32, f32::min);
            shown.push([
                picture,
                Shown {
                    png,
                    lines: vec![
                        "attention".into(),
                        format!("{:.1} to {:.1} %", 100.0 * least, 100.0 * most),
                    ],
                    title: "share of each patch in the answer".into(),
                },
            ]);
        }
        Ok(shown)
    }

    /// The most selective tokens of each class; `watched` are the pictures that `used` has seen.
    pub(super) fn class_tokens(&self, used: &TokenUse, watched: &[usize]) -> Vec<ClassTokens> {
        if watched.is_empty() {
            return Vec::new();
        }
        let classes = 0..self.classes.len().min(CLASSES) as u32;
        let of_class = |class| ClassTokens {
            class,
            tokens: (used.selective(class, TOKENS).into_iter())
                .map(|found| TokenRow {
                    token: found.token,
                    stage: found.stage,
                    selectivity: found.selectivity,
                    pictures: (used.strongest(found.token, PICTURES).into_iter())
                        .filter_map(|at| self.small(watched[at]))
                        .collect(),
                })
                .collect(),
        };
        classes.map(of_class).collect()
    }

    /// A picture as the model sees it, of at most `side` pixels.
    fn thumbnail(&self, index: usize, side: usize) -> Option<Vec<u8>> {
        let picture = self.pictures.picture(index).ok()?;
        Some(fitted(self.preprocess.center(picture), side).to_png())
    }

    fn with_verdict(&self, verdict: &Verdict) -> Option<Shown> {
        let name = |class: u32| self.classes[class as usize].as_str();
        let mut lines = vec![match verdict.is_right() {
            true => name(verdict.label).to_owned(),
            false => format!("is {}", name(verdict.label)),
        }];
        let top = verdict.top.iter().take(NAMED);
        lines.extend(top.map(|(class, share)| format!("{:.1} % {}", 100.0 * share, name(*class))));
        Some(Shown {
            png: self.thumbnail(verdict.index, LARGE)?,
            lines,
            title: self.pictures.name(verdict.index).into(),
        })
    }

    fn small(&self, index: usize) -> Option<Shown> {
        let class = &self.classes[self.pictures.label(index) as usize];
        Some(Shown {
            png: self.thumbnail(index, SMALL)?,
            lines: Vec::new(),
            title: format!("{class}: {}", self.pictures.name(index)),
        })
    }
}

/// The picture with no side longer than `side`.
fn fitted(picture: Picture, side: usize) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    let longest = width.max(height);
    if longest <= side {
        return picture;
    }
    let scaled = |length: usize| (length * side).div_ceil(longest).max(1);
    resize(&picture, scaled(width), scaled(height), Filter::Bicubic)
}

/// A picture whose patches are coloured by their `shares`: dark blue for none, yellow for the most.
fn heated(picture: &Picture, shares: &[f32], [high, wide]: [usize; 2]) -> Picture {
    const COLD: [f32; 3] = [20.0, 24.0, 82.0];
    const WARM: [f32; 3] = [255.0, 214.0, 60.0];
    const BLEND: f32 = 0.6;
    let most = shares.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let (rgb, across) = (picture.to_rgb(), picture.width() / wide);
    let width = rgb.width();
    let pixels = rgb.pixels().chunks_exact(3).enumerate();
    let pixels = pixels.flat_map(|(at, pixel)| {
        let (x, y) = (at % width, at / width);
        let share = shares.get(y / high * across + x / wide);
        let heat = share.copied().unwrap_or(0.0) / most;
        std::array::from_fn::<u8, 3, _>(|channel| {
            let colour = COLD[channel] + heat * (WARM[channel] - COLD[channel]);
            let mixed = (1.0 - BLEND) * f32::from(pixel[channel]) + BLEND * colour;
            mixed.round() as u8
        })
    });
    let pixels = pixels.collect();
    // Three bytes for each pixel of a picture that exists.
    Picture::new(width, rgb.height(), 3, pixels).unwrap_or(rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_coloured_by_their_share() {
        let black = Picture::new(4, 2, 1, vec![0; 8]).unwrap();
        let heated = heated(&black, &[0.2, 0.8], [2, 2]);
        let pixel = |x: usize| &heated.pixels()[3 * x..3 * x + 3];
        // The brighter patch has all of the warm colour, six tenths of it over black.
        assert_eq!(pixel(2), [153, 128, 36]);
        assert_eq!(pixel(3), pixel(2));
        assert!(pixel(0)[0] < pixel(2)[0] && pixel(0) == pixel(1));
    }

    #[test]
    fn large_pictures_are_made_to_fit() {
        let sizes = |w, h| {
            let fitted = fitted(Picture::new(w, h, 1, vec![7; w * h]).unwrap(), 40);
            (fitted.width(), fitted.height())
        };
        assert_eq!(sizes(40, 30), (40, 30));
        assert_eq!(sizes(224, 112), (40, 20));
        assert_eq!(sizes(1, 5000), (1, 40));
    }
}
