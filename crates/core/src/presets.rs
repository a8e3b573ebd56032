//! Models by name.

use crate::config::{
    Family, HeadKind, ImageInput, Init, Input, LogitScale, ModelSpec, NormKind, Pool, Positions,
    Slots,
};
use crate::error::{Result, config_error};

/// A named model.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    recipe: Recipe,
    vocab: usize,
    layers: usize,
    width: usize,
    heads: usize,
    context: usize,
    layer: Layers,
}

/// Whose choices of positions, logits and initialisation a preset follows.
#[derive(Clone, Copy, Debug)]
enum Recipe {
    /// The published language models: rotary positions, plain logits.
    Released,
    /// The paper's growth study: no positions, logits over √width, fan-in initialisation.
    Growth,
    /// Classification of images: learned positions, no mask, a separate head with a bias, fan-in initialisation.
    Image(ImageInput),
}

/// What the layers of a preset are.
#[derive(Clone, Copy, Debug)]
enum Layers {
    /// Parameter tokens of query, key and value each, of the output projection, of the feed-forward network.
    Sites([usize; 3]),
    /// Linear projections, and an MLP of four times the width.
    Linear,
}

const fn released(
    name: &'static str,
    about: &'static str,
    [vocab, layers, width, heads, context]: [usize; 5],
    layer: Layers,
) -> Preset {
    Preset {
        name,
        about,
        recipe: Recipe::Released,
        vocab,
        layers,
        width,
        heads,
        context,
        layer,
    }
}

const fn growth(name: &'static str, about: &'static str, width: usize, layer: Layers) -> Preset {
    Preset {
        name,
        about,
        recipe: Recipe::Growth,
        vocab: 50304,
        layers: 12,
        width,
        heads: width / 64,
        context: 1024,
        layer,
    }
}

/// Image models: classes, layers, width, heads.
const fn image(
    name: &'static str,
    about: &'static str,
    input: ImageInput,
    [vocab, layers, width, heads]: [usize; 4],
    layer: Layers,
) -> Preset {
    Preset {
        name,
        about,
        recipe: Recipe::Image(input),
        vocab,
        layers,
        width,
        heads,
        context: 0,
        layer,
    }
}

/// Square images, cut into square patches.
const fn square(side: usize, channels: usize, patch: usize, pool: Pool) -> ImageInput {
    ImageInput {
        height: side,
        width: side,
        channels,
        patch: [patch, patch],
        pool,
    }
}

const DIGITS: ImageInput = square(8, 1, 2, Pool::Mean);
const MNIST: ImageInput = square(28, 1, 4, Pool::Mean);
const CIFAR: ImageInput = square(32, 3, 4, Pool::Mean);
const EMOJI: ImageInput = square(64, 3, 8, Pool::Mean);
const IMAGENET: ImageInput = square(224, 3, 16, Pool::Class);

const fn sites(qkv: usize, ffn: usize) -> Layers {
    Layers::Sites([qkv, qkv, ffn])
}

/// All presets, small to large within each family.
pub const PRESETS: [Preset; 33] = [
    released(
        "nano",
        "minutes on a laptop: what the demo trains",
        [2048, 3, 128, 4, 128],
        sites(128, 512),
    ),
    released(
        "tiny",
        "what a newcomer trains",
        [2048, 4, 192, 6, 256],
        sites(192, 768),
    ),
    released(
        "small",
        "an evening on a laptop",
        [4096, 6, 384, 6, 256],
        sites(384, 1536),
    ),
    released(
        "150m",
        "published Pile series",
        [50304, 12, 768, 12, 2048],
        sites(768, 3072),
    ),
    released(
        "450m",
        "published Pile series",
        [50304, 24, 1024, 16, 2048],
        sites(1024, 4096),
    ),
    released(
        "900m",
        "published Pile series",
        [50304, 32, 1280, 16, 2048],
        sites(1280, 5120),
    ),
    released(
        "1.5b",
        "published Pile series",
        [50304, 40, 1536, 16, 2048],
        sites(1536, 6144),
    ),
    growth(
        "124m",
        "paper's growth study, first stage",
        768,
        sites(576, 2304),
    ),
    growth(
        "354m",
        "paper's growth study, second stage",
        768,
        sites(2140, 8560),
    ),
    growth(
        "757m",
        "paper's growth study, third stage",
        768,
        sites(4850, 19400),
    ),
    growth(
        "1.4b",
        "paper's growth study, last stage",
        768,
        sites(8620, 34480),
    ),
    released(
        "gpt-nano",
        "plain Transformer beside nano",
        [2048, 3, 144, 6, 128],
        Layers::Linear,
    ),
    released(
        "gpt-tiny",
        "plain Transformer beside tiny",
        [2048, 4, 216, 9, 256],
        Layers::Linear,
    ),
    released(
        "gpt-small",
        "plain Transformer beside small",
        [4096, 6, 440, 11, 256],
        Layers::Linear,
    ),
    growth(
        "gpt-124m",
        "plain Transformer beside 124m",
        768,
        Layers::Linear,
    ),
    growth(
        "gpt-354m",
        "plain Transformer beside 354m",
        1408,
        Layers::Linear,
    ),
    growth(
        "gpt-757m",
        "plain Transformer beside 757m",
        2112,
        Layers::Linear,
    ),
    growth(
        "gpt-1.4b",
        "plain Transformer beside 1.4b",
        2816,
        Layers::Linear,
    ),
    image(
        "vit-digits",
        "8x8 grey images, a minute",
        DIGITS,
        [10, 3, 64, 4],
        sites(64, 256),
    ),
    image(
        "vit-mnist",
        "28x28 grey images",
        MNIST,
        [10, 4, 96, 3],
        sites(96, 384),
    ),
    image(
        "vit-cifar",
        "32x32 colour images",
        CIFAR,
        [10, 6, 128, 4],
        sites(128, 512),
    ),
    image(
        "vit-emoji",
        "64x64 colour images",
        EMOJI,
        [10, 6, 128, 4],
        sites(128, 512),
    ),
    image(
        "vit-b16",
        "paper's vision model, Base",
        IMAGENET,
        [1000, 12, 768, 12],
        sites(768, 3072),
    ),
    image(
        "vit-b16-matched",
        "as many parameters as vit-plain-b16",
        IMAGENET,
        [1000, 12, 768, 12],
        sites(576, 2304),
    ),
    image(
        "vit-l16",
        "paper's vision model, Large",
        IMAGENET,
        [1000, 24, 1024, 16],
        sites(1024, 4096),
    ),
    image(
        "vit-l16-matched",
        "as many parameters as vit-plain-l16",
        IMAGENET,
        [1000, 24, 1024, 16],
        sites(768, 3072),
    ),
    image(
        "vit-plain-digits",
        "plain Transformer beside vit-digits",
        DIGITS,
        [10, 3, 72, 4],
        Layers::Linear,
    ),
    image(
        "vit-plain-mnist",
        "plain Transformer beside vit-mnist",
        MNIST,
        [10, 4, 112, 4],
        Layers::Linear,
    ),
    image(
        "vit-plain-cifar",
        "plain Transformer beside vit-cifar",
        CIFAR,
        [10, 6, 144, 4],
        Layers::Linear,
    ),
    image(
        "vit-plain-emoji",
        "plain Transformer beside vit-emoji",
        EMOJI,
        [10, 6, 144, 4],
        Layers::Linear,
    ),
    image(
        "vit-plain-tiny16",
        "timm's vit_tiny_patch16_224",
        IMAGENET,
        [1000, 12, 192, 3],
        Layers::Linear,
    ),
    image(
        "vit-plain-b16",
        "timm's vit_base_patch16_224",
        IMAGENET,
        [1000, 12, 768, 12],
        Layers::Linear,
    ),
    image(
        "vit-plain-l16",
        "timm's vit_large_patch16_224",
        IMAGENET,
        [1000, 24, 1024, 16],
        Layers::Linear,
    ),
];

impl Preset {
    /// Finds a preset.
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the known names.
    pub fn named(name: &str) -> Result<Self> {
        PRESETS.into_iter().find(|p| p.name == name).ok_or_else(|| {
            let names = PRESETS.map(|p| p.name);
            let near = tokenformer_base::nearest(name, names)
                .map_or("see `tokenformer config presets`".into(), |n| {
                    format!("did you mean \"{n}\"?")
                });
            config_error(
                "model.preset",
                format!("one of {}", names.join(", ")),
                name.chars().take(100).collect::<String>().escape_debug(),
                near,
            )
        })
    }

    /// The fresh model.
    pub fn spec(&self) -> ModelSpec {
        let (family, [qkv, proj, ffn]) = match self.layer {
            Layers::Sites(slots) => (Family::Tokenformer, slots),
            Layers::Linear => (Family::Gpt, [0; 3]),
        };
        let spec = ModelSpec {
            family,
            vocab: self.vocab,
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            context: self.context,
            slots: Slots { qkv, proj, ffn },
            ..ModelSpec::default()
        };
        match self.recipe {
            Recipe::Released => spec,
            Recipe::Growth => ModelSpec {
                positions: Positions::None,
                logit_scale: LogitScale::InverseSqrtWidth,
                init: Init::FanIn,
                ..spec
            },
            Recipe::Image(input) => ModelSpec {
                input: Input::Image(input),
                causal: false,
                positions: Positions::Learned,
                head: HeadKind::Untied,
                head_bias: true,
                init: Init::FanIn,
                // The plain ones are timm's, with gains and biases everywhere.
                bias: family == Family::Gpt,
                block_norm: match family {
                    Family::Tokenformer => NormKind::Plain,
                    Family::Gpt => NormKind::Affine,
                },
                ..spec
            },
        }
    }
}
