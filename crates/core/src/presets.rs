//! Models by name.

use crate::config::{Family, Init, LogitScale, ModelSpec, Positions, Slots};
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

const fn sites(qkv: usize, ffn: usize) -> Layers {
    Layers::Sites([qkv, qkv, ffn])
}

/// All presets, small to large within each family.
pub const PRESETS: [Preset; 18] = [
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
        }
    }
}
