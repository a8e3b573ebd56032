//! Checks of a configuration: every setting, and what they say together. Nothing is allocated.

use super::{
    BlockConfig, HeadKind, ImageInput, Input, LayerConfig, MlpPart, ModelConfig, Positions,
    SiteConfig, SiteKind,
};
use crate::error::{Result, config_error};

/// Largest value of any single size.
pub(crate) const MAX_SIZE: usize = 1 << 24;
/// Most blocks.
pub(crate) const MAX_LAYERS: usize = 1 << 14;
/// Most learnable numbers.
const MAX_PARAMS: u128 = 1 << 50;
/// Largest table of rotary angles, positions times rotated channels: 64 MB, made before any weight of as
/// many positions vouches for it.
const MAX_ANGLES: usize = 1 << 24;

impl ModelConfig {
    /// Checks every setting and their relations; allocates nothing.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for the first contradiction.
    pub fn validate(&self) -> Result<()> {
        if self.format != "tokenformer" {
            let help = "is this a config.json of another program?";
            let expected = "\"tokenformer\"";
            return Err(config_error("format", expected, &self.format, help));
        }
        let sizes = [
            ("vocab", self.vocab, MAX_SIZE),
            ("width", self.width, MAX_SIZE),
            ("heads", self.heads, MAX_SIZE),
            ("context", self.context, MAX_SIZE),
            ("layers", self.blocks.len(), MAX_LAYERS),
        ];
        for (name, got, max) in sizes {
            size(name, got, max)?;
        }
        if !self.width.is_multiple_of(self.heads) {
            let help = "choose a width that is a multiple of the heads";
            let expected = format!("a divisor of the width {}", self.width);
            return Err(config_error("heads", expected, self.heads, help));
        }
        if let Input::Image(image) = &self.input {
            self.check_image(image)?;
        }
        if self.head_bias && self.head == HeadKind::Tied {
            let help = "an embedding has no bias";
            return Err(config_error(
                "head_bias",
                "false, with head = tied",
                true,
                help,
            ));
        }
        self.check_positions()?;
        epsilon("norm_eps", self.norm_eps, 1.0)?;
        for (b, block) in self.blocks.iter().enumerate() {
            for kind in SiteKind::ALL {
                let name = format!("blocks.{b}.{}", kind.name());
                match block.layer(kind) {
                    LayerConfig::Pattention(config) => site(config, &name)?,
                    LayerConfig::Linear { .. } => {}
                    LayerConfig::Mlp { hidden, parts, .. } => mlp(*hidden, parts, &name)?,
                }
            }
        }
        self.check_total()
    }

    /// What images ask of the other settings.
    fn check_image(&self, image: &ImageInput) -> Result<()> {
        image.check("input")?;
        if self.context != image.positions() {
            let expected = format!(
                "{}, the patches of an image and its class token",
                image.positions()
            );
            let help = "context follows from input";
            return Err(config_error("context", expected, self.context, help));
        }
        if self.causal {
            let help = "every patch sees all others";
            return Err(config_error("causal", "false, for images", true, help));
        }
        if self.head == HeadKind::Tied {
            let help = "images have no embedding table that could serve as head";
            return Err(config_error("head", "untied, for images", "tied", help));
        }
        Ok(())
    }

    /// Sines and cosines of two axes share the width. Their table is allocated before any weight confirms the sizes.
    fn check_sines(&self) -> Result<()> {
        let (field, d) = ("positions", self.width);
        if self.input.is_tokens() {
            let help = "text has one axis: choose rotary, learned or none";
            return Err(config_error(
                field,
                "sincos2d with images only",
                "sincos2d",
                help,
            ));
        }
        if !d.is_multiple_of(4) {
            let help = "change the width, or take learned positions";
            return Err(config_error(
                field,
                "a width that is a multiple of 4",
                d,
                help,
            ));
        }
        if self.context > MAX_ANGLES / d {
            let expected = format!("at most {} positions of width {d}", MAX_ANGLES / d);
            let help = "choose larger patches, or learned positions";
            return Err(config_error("context", expected, self.context, help));
        }
        Ok(())
    }

    fn check_positions(&self) -> Result<()> {
        let (fraction, base) = match self.positions {
            Positions::Rotary { fraction, base } => (fraction, base),
            Positions::SinCos2d => return self.check_sines(),
            Positions::Learned | Positions::None => return Ok(()),
        };
        if !self.input.is_tokens() {
            let expected = "learned, sincos2d or none, for images";
            let help = "patches have a row and a column, and rotary positions a single axis";
            return Err(config_error("positions", expected, "rotary", help));
        }
        if !(fraction > 0.0 && fraction <= 1.0) {
            let help = "0.25 is what the published models use; positions = none turns it off";
            let expected = "above 0, at most 1";
            return Err(config_error("positions.fraction", expected, fraction, help));
        }
        if !(base.is_finite() && base > 1.0) {
            let help = "10000 is what the published models use";
            return Err(config_error(
                "positions.base",
                "a number above 1",
                base,
                help,
            ));
        }
        let dims = self.rotary_dims();
        if dims == 0 || !dims.is_multiple_of(2) {
            let channels = self.channels();
            let expected = "an even number of rotated channels per head, at least 2";
            let got = format!("{dims} (= {channels} channels per head x {fraction}, rounded down)");
            let help = "change the width, the heads or the fraction";
            return Err(config_error("positions.fraction", expected, got, help));
        }
        let most = MAX_ANGLES / dims;
        if self.context > most {
            let expected = format!("at most {most} positions, with {dims} rotated channels");
            let help = "choose a shorter context, or a smaller positions.fraction";
            return Err(config_error("context", expected, self.context, help));
        }
        Ok(())
    }

    /// Each size is small enough; so must be their products, which all counts rely on.
    fn check_total(&self) -> Result<()> {
        let d = self.width as u128;
        let layers = self.blocks.iter().flat_map(BlockConfig::layers);
        let body: u128 = layers.map(|l| u128::from(l.params(self.width))).sum();
        let patches = self.input.image().map_or(0, |image| image.patch_len() + 3);
        let tables = 2 * self.vocab as u128 + self.context as u128 + patches as u128;
        let params = body + d * tables;
        if params > MAX_PARAMS {
            let expected = format!("at most {MAX_PARAMS} learnable numbers");
            let help = "are these the sizes you meant?";
            return Err(config_error("model", expected, params, help));
        }
        Ok(())
    }
}

/// Refuses a size of 0, or above `max`.
pub(crate) fn size(name: &str, size: usize, max: usize) -> Result<()> {
    if size == 0 || size > max {
        let expected = format!("between 1 and {max}");
        let help = "is this the number you meant?";
        return Err(config_error(name, expected, size, help));
    }
    Ok(())
}

/// Whether a number is above 0 and finite, and still is in single precision, in which it is used.
pub(super) fn is_positive(value: f64) -> bool {
    let rounded = value as f32;
    rounded > 0.0 && rounded.is_finite()
}

/// What [`is_positive`] asks for.
pub(super) const POSITIVE: &str =
    "a positive number that single precision has, from about 1e-45 to 3e38";

fn epsilon(name: &str, eps: f64, max: f64) -> Result<()> {
    if !(is_positive(eps) && eps <= max) {
        let expected = format!("above 0 in single precision, at most {max}");
        return Err(config_error(name, expected, eps, "a small positive number"));
    }
    Ok(())
}

fn mlp(hidden: usize, parts: &[MlpPart], name: &str) -> Result<()> {
    size(&format!("{name}.hidden"), hidden, MAX_SIZE)?;
    size(&format!("{name}.parts"), parts.len() + 1, 1 << 16)?;
    let mut newest = 0;
    for (p, part) in parts.iter().enumerate() {
        let name = format!("{name}.parts.{p}");
        size(&format!("{name}.hidden"), part.hidden, MAX_SIZE)?;
        if part.id <= newest || part.id == u32::MAX {
            let help = "number the parts of an MLP from 1 on, in the order of their birth";
            let expected = format!("a number above {newest}");
            return Err(config_error(format!("{name}.id"), expected, part.id, help));
        }
        newest = part.id;
    }
    Ok(())
}

fn site(site: &SiteConfig, name: &str) -> Result<()> {
    let positive = |field: String, value: f64| {
        if is_positive(value) {
            return Ok(());
        }
        let help = "a fresh site has the root of its tokens";
        Err(config_error(field, POSITIVE, value, help))
    };
    positive(format!("{name}.tau"), site.tau)?;
    epsilon(&format!("{name}.eps"), site.eps, 1e-3)?;
    size(&format!("{name}.segments"), site.segments.len(), 1 << 16)?;
    let mut ids: Vec<u32> = Vec::with_capacity(site.segments.len());
    for (s, segment) in site.segments.iter().enumerate() {
        let name = format!("{name}.segments.{s}");
        size(&format!("{name}.tokens"), segment.tokens, MAX_SIZE)?;
        positive(format!("{name}.tau"), segment.tau)?;
        if segment.id == u32::MAX || ids.contains(&segment.id) {
            let help = "number the segments of a site in the order of their birth";
            let expected = "a number that no other segment of the site has";
            return Err(config_error(
                format!("{name}.id"),
                expected,
                segment.id,
                help,
            ));
        }
        ids.push(segment.id);
    }
    Ok(())
}
