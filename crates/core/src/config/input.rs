//! What a model reads: the tokens of a text, or the patches of an image.

use super::check::size;
use crate::error::{Result, config_error};
use serde::{Deserialize, Serialize};

/// Largest side of an image, in pixels.
const MAX_SIDE: usize = 1 << 14;
/// Most channels of an image.
const MAX_CHANNELS: usize = 1 << 8;

/// What a model reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Input {
    /// Token numbers of a text, each of which is a row of the embedding.
    #[default]
    Tokens,
    /// Images, cut into patches.
    Image(ImageInput),
}

impl Input {
    /// Whether it is [`Input::Tokens`].
    pub fn is_tokens(&self) -> bool {
        *self == Self::Tokens
    }

    /// The sizes of the images, if it is images.
    pub fn image(&self) -> Option<&ImageInput> {
        match self {
            Self::Tokens => None,
            Self::Image(image) => Some(image),
        }
    }
}

/// Images that a model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageInput {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Channels: 3 for colour, 1 for grey.
    pub channels: usize,
    /// Height and width of a patch in pixels; they divide those of the image.
    pub patch: [usize; 2],
    /// What the head reads.
    pub pool: Pool,
}

/// What the head of an image model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// A class token, which stands before the patches.
    Class,
    /// The mean of all patches; there is no class token.
    Mean,
    /// The mean of all patches, which attend to a class token too; timm's `global_pool="avg"`.
    MeanBesideClass,
}

impl ImageInput {
    /// Patches from top to bottom and from left to right.
    pub fn grid(&self) -> [usize; 2] {
        [self.height / self.patch[0], self.width / self.patch[1]]
    }

    /// Patches `P` of an image.
    pub fn patches(&self) -> usize {
        let [rows, columns] = self.grid();
        rows * columns
    }

    /// Numbers of a patch, `C·ph·pw`.
    pub fn patch_len(&self) -> usize {
        self.channels * self.patch[0] * self.patch[1]
    }

    /// Numbers of an image, `C·H·W`.
    pub fn pixels(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether a class token stands before the patches.
    pub fn has_class_token(&self) -> bool {
        self.pool != Pool::Mean
    }

    /// Length `T` of the sequence that the blocks see: the patches, and the class token if there is one.
    pub fn positions(&self) -> usize {
        self.patches() + usize::from(self.has_class_token())
    }

    /// Checks every size; `field` names the input in messages.
    pub(crate) fn check(&self, field: &str) -> Result<()> {
        size(&format!("{field}.channels"), self.channels, MAX_CHANNELS)?;
        let sides = [("height", self.height), ("width", self.width)];
        for ((name, side), patch) in sides.into_iter().zip(self.patch) {
            size(&format!("{field}.{name}"), side, MAX_SIDE)?;
            if patch == 0 || !side.is_multiple_of(patch) {
                let expected = format!("a {name} that divides the image's {side} pixels");
                let help = "patches cover an image without a rest";
                return Err(config_error(
                    format!("{field}.patch"),
                    expected,
                    patch,
                    help,
                ));
            }
        }
        Ok(())
    }
}
