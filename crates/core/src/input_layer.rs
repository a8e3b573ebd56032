//! What stands before the blocks: rows of an embedding table, or the patches of an image; and positions.

use crate::build::{Builder, trunk};
use crate::config::{ImageInput, Input, ModelConfig, Pool, Positions};
use crate::error::Result;
use crate::graph::Graph;
use crate::layers::Linear;
use crate::param::Param;
use crate::path::ParamRole;
use crate::tensor::Tensor;
use tokenformer_device::{Buffer, Role};

/// What stands before the blocks.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of them in a model")]
pub(crate) enum InputLayer {
    /// The embedding of a language model's tokens.
    Tokens(TokenEmbedding),
    /// The embedding of an image model's patches.
    Image(PatchEmbedding),
}

/// `E[token]`, plus learned vectors of positions.
#[derive(Debug)]
pub(crate) struct TokenEmbedding {
    pub embedding: Param,
    positions: Option<Param>,
}

/// A linear embedding of patches, a class token, positions.
#[derive(Debug)]
pub(crate) struct PatchEmbedding {
    pub input: ImageInput,
    patches: Linear,
    class_token: Option<Param>,
    positions: ImagePositions,
}

/// The table `[T, D]` that is added to the sequence of an image.
#[derive(Debug)]
enum ImagePositions {
    Learned(Param),
    Fixed(Buffer),
    None,
}

impl ImagePositions {
    fn param(&self) -> Option<&Param> {
        match self {
            Self::Learned(table) => Some(table),
            Self::Fixed(_) | Self::None => None,
        }
    }
}

impl InputLayer {
    pub fn build(builder: &mut Builder<'_, '_>, config: &ModelConfig) -> Result<Self> {
        let d = config.width;
        let positions = trunk(config, "positions");
        let learned = |builder: &mut Builder<'_, '_>| {
            builder.table(positions, ParamRole::Positions, [config.context, d])
        };
        let input = match &config.input {
            Input::Tokens => {
                let place = trunk(config, "embedding");
                return Ok(Self::Tokens(TokenEmbedding {
                    embedding: builder.table(place, ParamRole::Embedding, [config.vocab, d])?,
                    positions: match config.positions {
                        Positions::Learned => Some(learned(builder)?),
                        _ => None,
                    },
                }));
            }
            Input::Image(image) => *image,
        };
        let place = trunk(config, "patches");
        let patches = builder.linear(place, [d, input.patch_len()], true)?;
        let class_token = match input.has_class_token() {
            true => {
                let place = trunk(config, "class_token");
                Some(builder.table(place, ParamRole::ClassToken, [1, d])?)
            }
            false => None,
        };
        let positions = match config.positions {
            Positions::Learned => ImagePositions::Learned(learned(builder)?),
            Positions::SinCos2d => {
                let table = sincos2d(&input, d);
                ImagePositions::Fixed(builder.device.alloc_from(table, Role::Weight)?)
            }
            Positions::Rotary { .. } | Positions::None => ImagePositions::None,
        };
        Ok(Self::Image(PatchEmbedding {
            input,
            patches,
            class_token,
            positions,
        }))
    }

    /// What the model reads.
    pub fn input(&self) -> Input {
        match self {
            Self::Tokens(_) => Input::Tokens,
            Self::Image(input_layer) => Input::Image(input_layer.input),
        }
    }

    /// Its arrays, in the order of files.
    pub fn params(&self) -> impl Iterator<Item = &Param> {
        let params = match self {
            Self::Tokens(input_layer) => [
                Some(&input_layer.embedding),
                input_layer.positions.as_ref(),
                None,
                None,
            ],
            Self::Image(input_layer) => [
                Some(&input_layer.patches.weight),
                input_layer.patches.bias.as_ref(),
                input_layer.class_token.as_ref(),
                input_layer.positions.param(),
            ],
        };
        params.into_iter().flatten()
    }

    /// As [`InputLayer::params`], to change.
    pub fn params_mut(&mut self) -> impl Iterator<Item = &mut Param> {
        let params = match self {
            Self::Tokens(input_layer) => [
                Some(&mut input_layer.embedding),
                input_layer.positions.as_mut(),
                None,
                None,
            ],
            Self::Image(input_layer) => [
                Some(&mut input_layer.patches.weight),
                input_layer.patches.bias.as_mut(),
                input_layer.class_token.as_mut(),
                match &mut input_layer.positions {
                    ImagePositions::Learned(table) => Some(table),
                    ImagePositions::Fixed(_) | ImagePositions::None => None,
                },
            ],
        };
        params.into_iter().flatten()
    }
}

impl TokenEmbedding {
    /// `[B, T, D]` of `tokens` `[B, T]`, the first of which stand at position `first`.
    pub fn forward<'m>(
        &'m self,
        g: &mut Graph<'m>,
        tokens: &[u32],
        batch: usize,
        first: usize,
    ) -> Result<Tensor> {
        let h = g.embed(&self.embedding, tokens, batch)?;
        let Some(table) = &self.positions else {
            return Ok(h);
        };
        let p = g.positions(table, first, [batch, tokens.len() / batch])?;
        Ok(g.add(h, p)?)
    }

    /// As [`TokenEmbedding::forward`], for rows of several sequences at the given `positions` `[R]`: `[1, R, D]`.
    pub fn forward_at<'m>(
        &'m self,
        g: &mut Graph<'m>,
        tokens: &[u32],
        positions: &[u32],
    ) -> Result<Tensor> {
        let h = g.embed(&self.embedding, tokens, 1)?;
        let Some(table) = &self.positions else {
            return Ok(h);
        };
        let p = g.embed(table, positions, 1)?;
        Ok(g.add(h, p)?)
    }
}

impl PatchEmbedding {
    /// `[B, T, D]` of `pixels` `[B, C, H, W]`.
    pub fn forward<'m>(
        &'m self,
        g: &mut Graph<'m>,
        pixels: &[f32],
        batch: usize,
    ) -> Result<Tensor> {
        let rows = g.patch_rows(&self.input, pixels, batch)?;
        let patches = self.patches.forward(g, rows)?;
        let positions = match &self.positions {
            ImagePositions::Learned(table) => Some((table.value(), Some(table))),
            ImagePositions::Fixed(table) => Some((table, None)),
            ImagePositions::None => None,
        };
        Ok(g.assemble(patches, self.class_token.as_ref(), positions)?)
    }

    /// What the head reads of `h` `[B, T, D]`: `[B, 1, D]`.
    pub fn pool(&self, g: &mut Graph<'_>, h: Tensor) -> Result<Tensor> {
        Ok(match self.input.pool {
            Pool::Class => g.rows_at(&h, 0..1)?,
            Pool::Mean => g.mean_rows(&h)?,
            Pool::MeanBesideClass => {
                let patches = g.rows_at(&h, 1..self.input.positions())?;
                g.mean_rows(&patches)?
            }
        })
    }
}

/// The patches of `pixels` `[B, C, H, W]` as rows `[B·P, C·ph·pw]`: patches from left to right and from top to bottom,
/// the numbers of each by channel, then by row, as timm has them.
pub(crate) fn patch_rows(input: &ImageInput, pixels: &[f32], rows: &mut Vec<f32>) {
    let &ImageInput {
        height,
        width,
        channels,
        patch: [ph, pw],
        ..
    } = input;
    let [down, across] = input.grid();
    rows.clear();
    rows.reserve(pixels.len());
    for image in pixels.chunks_exact(input.pixels()) {
        for (top, left) in (0..down).flat_map(|i| (0..across).map(move |j| (i * ph, j * pw))) {
            for (c, y) in (0..channels).flat_map(|c| (0..ph).map(move |y| (c, y))) {
                let start = (c * height + top + y) * width + left;
                rows.extend_from_slice(&image[start..start + pw]);
            }
        }
    }
}

/// The fixed table `[T, D]` of an image's positions: a quarter of the channels each are sines and cosines of the column,
/// then of the row, with frequencies `10000^(−4i/D)`, as in MAE (He et al. 2021). A class token has zeros.
fn sincos2d(input: &ImageInput, width: usize) -> Vec<f32> {
    let quarter = width / 4;
    let mut table = vec![0.0; (input.positions() - input.patches()) * width];
    let [down, across] = input.grid();
    for (y, x) in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
        for at in [x, y] {
            let angle = |i: usize| at as f64 / 10_000f64.powf(i as f64 / quarter as f64);
            table.extend((0..quarter).map(|i| angle(i).sin() as f32));
            table.extend((0..quarter).map(|i| angle(i).cos() as f32));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: ImageInput = ImageInput {
        height: 4,
        width: 6,
        channels: 2,
        patch: [2, 3],
        pool: Pool::Class,
    };

    /// Two images of pixels that are numbered: the patches' numbers by hand.
    #[test]
    fn patches_lie_row_by_row_and_channel_by_channel() {
        let pixels: Vec<f32> = (0..2 * 48).map(|i| i as f32).collect();
        let mut rows = vec![7.0; 3];
        patch_rows(&INPUT, &pixels, &mut rows);
        assert_eq!(rows.len(), pixels.len());
        let first = [0, 1, 2, 6, 7, 8, 24, 25, 26, 30, 31, 32];
        assert_eq!(rows[..12], first.map(|i| i as f32));
        assert_eq!(rows[12..24], first.map(|i| (i + 3) as f32));
        assert_eq!(rows[24..36], first.map(|i| (i + 12) as f32));
        assert_eq!(rows[48..60], first.map(|i| (i + 48) as f32));
    }

    /// Numbers that NumPy gives for MAE's formula.
    #[test]
    fn fixed_positions_are_sines_of_columns_then_of_rows() {
        let table = sincos2d(&INPUT, 8);
        assert_eq!(table.len(), 5 * 8);
        assert_eq!(table[..8], [0.0; 8]);
        // The second patch stands in column 1 and row 0.
        let second = [
            0.841_471,
            0.009_999_833,
            0.540_302_3,
            0.999_95,
            0.0,
            0.0,
            1.0,
            1.0,
        ];
        let third = [
            0.0,
            0.0,
            1.0,
            1.0,
            0.841_471,
            0.009_999_833,
            0.540_302_3,
            0.999_95,
        ];
        for (row, want) in [(2, second), (3, third)] {
            for (got, want) in table[row * 8..].iter().zip(want) {
                assert!((got - want).abs() < 1e-6, "{got} is not {want}");
            }
        }
    }
}
