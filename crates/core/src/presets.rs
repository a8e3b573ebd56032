//! Models by name.

use crate::config::{FinalNorm, Init, LogitScale, ModelSpec, NormSpan, Positions, Slots, Theta};
use crate::error::{Result, config_error};

/// A named model.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    family: Family,
    vocab: usize,
    layers: usize,
    width: usize,
    heads: usize,
    context: usize,
    slots: [usize; 3],
}

#[derive(Clone, Copy, Debug)]
enum Family {
    /// The published language models: rotary positions, affine final norm, plain logits.
    Released,
    /// The paper's growth study: no positions, logits over √width, fan-in initialisation.
    Growth,
}

const fn released(
    name: &'static str,
    about: &'static str,
    [vocab, layers, width, heads, context]: [usize; 5],
    slots: [usize; 3],
) -> Preset {
    Preset {
        name,
        about,
        family: Family::Released,
        vocab,
        layers,
        width,
        heads,
        context,
        slots,
    }
}

const fn growth(name: &'static str, about: &'static str, slots: [usize; 3]) -> Preset {
    let family = Family::Growth;
    Preset {
        name,
        about,
        family,
        vocab: 50304,
        layers: 12,
        width: 768,
        heads: 12,
        context: 1024,
        slots,
    }
}

/// All presets, small to large within each family.
pub const PRESETS: [Preset; 11] = [
    released(
        "nano",
        "minutes on a laptop: what the demo trains",
        [2048, 3, 128, 4, 128],
        [128, 128, 512],
    ),
    released(
        "tiny",
        "what a newcomer trains",
        [2048, 4, 192, 6, 256],
        [192, 192, 768],
    ),
    released(
        "small",
        "an evening on a laptop",
        [4096, 6, 384, 6, 256],
        [384, 384, 1536],
    ),
    released(
        "150m",
        "published Pile series",
        [50304, 12, 768, 12, 2048],
        [768, 768, 3072],
    ),
    released(
        "450m",
        "published Pile series",
        [50304, 24, 1024, 16, 2048],
        [1024, 1024, 4096],
    ),
    released(
        "900m",
        "published Pile series",
        [50304, 32, 1280, 16, 2048],
        [1280, 1280, 5120],
    ),
    released(
        "1.5b",
        "published Pile series",
        [50304, 40, 1536, 16, 2048],
        [1536, 1536, 6144],
    ),
    growth(
        "124m",
        "paper's growth study, first stage",
        [576, 576, 2304],
    ),
    growth(
        "354m",
        "paper's growth study, second stage",
        [2140, 2140, 8560],
    ),
    growth(
        "757m",
        "paper's growth study, third stage",
        [4850, 4850, 19400],
    ),
    growth(
        "1.4b",
        "paper's growth study, last stage",
        [8620, 8620, 34480],
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
            let near = crate::nearest(name, names)
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
        let [qkv, proj, ffn] = self.slots;
        let spec = ModelSpec {
            vocab: self.vocab,
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            context: self.context,
            slots: Slots { qkv, proj, ffn },
            theta: Theta::L2NormGelu,
            norm: NormSpan::Joint,
            positions: Positions::Rotary {
                fraction: 0.25,
                base: 10_000.0,
            },
            final_norm: FinalNorm::Affine,
            logit_scale: LogitScale::One,
            init: Init::Released,
        };
        match self.family {
            Family::Released => spec,
            Family::Growth => ModelSpec {
                positions: Positions::None,
                final_norm: FinalNorm::Affine,
                logit_scale: LogitScale::InverseSqrtWidth,
                init: Init::FanIn,
                ..spec
            },
        }
    }
}
