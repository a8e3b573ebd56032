//! Plain vision Transformers of timm (`VisionTransformer`): the configuration follows from the shapes of the tensors, and
//! from `config.json` where they leave something open.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tokenformer_core::ModelConfig;
use tokenformer_core::config::{
    Family, HeadKind, ImageInput, Init, Input, LogitScale, ModelSpec, NormKind, Pool, Positions,
    Residual,
};
use tokenformer_store::read_small;

use super::config::{HERE, cannot, expect_plain_blocks, hidden};
use crate::error::shown;
use crate::source::Source;
use crate::{Error, Result};

/// The tensor that only such a model has.
const PATCHES: &str = "patch_embed.proj.weight";
/// The largest configuration that is read.
const MAX_BYTES: u64 = 1 << 20;
/// Widths and heads of timm's `vit_{tiny,small,base,large,huge}`.
const HEADS: [(usize, usize); 5] = [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)];
/// ε of timm's LayerNorms.
const EPS: f64 = 1e-6;

/// Whether the tensors are named as those of a vision Transformer of timm.
pub(crate) fn is_timm(source: &Source) -> bool {
    prefix(source).is_some()
}

/// What stands before the names of the model.
fn prefix(source: &Source) -> Option<&str> {
    let mut names = source.names();
    names.find_map(|name| {
        let prefix = name.strip_suffix(PATCHES)?;
        source.shape(&format!("{prefix}blocks.0.attn.qkv.weight"))?;
        Some(prefix)
    })
}

/// What `config.json` says in addition to the shapes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    architecture: Option<String>,
    global_pool: Option<String>,
    model_args: Args,
    pretrained_cfg: Pretrained,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    num_heads: Option<usize>,
    img_size: Option<Size>,
    global_pool: Option<String>,
    act_layer: Option<Value>,
    norm_layer: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pretrained {
    input_size: Option<[usize; 3]>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Square(usize),
    Sides([usize; 2]),
}

impl Config {
    fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let config: Self =
            serde_json::from_slice(&read_small(path, MAX_BYTES)?).map_err(|error| {
                Error::Damaged {
                    path: path.into(),
                    what: "the configuration cannot be read",
                    expected: "a JSON object with the keys of timm".into(),
                    got: error.to_string(),
                    help: "give the config.json that was saved with the weights",
                }
            })?;
        let refuse = |what, expected, got: String| {
            Err(Error::Unsupported {
                place: path.display().to_string(),
                what,
                expected,
                got,
                help: "a model with this setting computes something else; only the expected one is known here",
            })
        };
        let quick = config
            .architecture
            .as_ref()
            .filter(|name| name.contains("quickgelu"));
        if let Some(name) = quick {
            return refuse("architecture", "one with the exact GELU", shown(name));
        }
        for (what, layer) in [
            ("act_layer", &config.model_args.act_layer),
            ("norm_layer", &config.model_args.norm_layer),
        ] {
            if let Some(layer) = layer {
                return refuse(what, "timm's default", shown(&layer.to_string()));
            }
        }
        Ok(config)
    }

    /// Height and width of the images.
    fn image_size(&self) -> Option<[usize; 2]> {
        let own = self.model_args.img_size.map(|size| match size {
            Size::Square(side) => [side; 2],
            Size::Sides(sides) => sides,
        });
        own.or(self
            .pretrained_cfg
            .input_size
            .map(|[_, height, width]| [height, width]))
    }
}

/// The configuration of a model; `path` is that of its `config.json`, if there is one.
pub(super) fn read(source: &Source, path: Option<&Path>) -> Result<ModelConfig> {
    let found = Config::read(path)?;
    let prefix = prefix(source).unwrap_or_default();
    let shape = |name: &str| source.shape(&format!("{prefix}{name}"));
    let place = path.unwrap_or(source.path());
    let damaged = |what, expected: &str, got: String, help| Error::Damaged {
        path: place.into(),
        what,
        expected: expected.into(),
        got,
        help,
    };
    let missing = |name: &'static str, axes: &str| {
        let got = shape(name).map_or("no such tensor".into(), |shape| format!("{shape:?}"));
        let expected = format!("{name} of shape {axes}");
        let help = "the file is incomplete, or no vision Transformer with a classifier";
        damaged("a tensor has another shape", &expected, got, help)
    };
    let Some(&[width, channels, ph, pw]) = shape(PATCHES) else {
        return Err(missing(PATCHES, "[width, channels, height, width]"));
    };
    let Some(&[classes, _]) = shape("head.weight") else {
        return Err(missing("head.weight", "[classes, width]"));
    };
    let Some(&[mlp_hidden, _]) = shape("blocks.0.mlp.fc1.weight") else {
        return Err(missing("blocks.0.mlp.fc1.weight", "[hidden, width]"));
    };
    let has_class = shape("cls_token").is_some();
    let pool = match (shape("fc_norm.weight").is_some(), has_class) {
        (false, _) => Pool::Class,
        (true, true) => Pool::MeanBesideClass,
        (true, false) => Pool::Mean,
    };
    let said = found
        .model_args
        .global_pool
        .as_ref()
        .or(found.global_pool.as_ref());
    let pools = if pool == Pool::Class { "token" } else { "avg" };
    if let Some(said) = said.filter(|said| *said != pools) {
        let expected = "token with a norm called norm, or avg with one called fc_norm";
        let help = "other ways to pool are not known here";
        return Err(damaged(
            "global_pool cannot be converted",
            expected,
            shown(said),
            help,
        ));
    }
    let heads = match found.model_args.num_heads {
        Some(heads) => heads,
        None => (HEADS
            .iter()
            .find(|(of, _)| *of == width)
            .map(|(_, heads)| *heads))
        .ok_or_else(|| {
            let help =
                "shapes do not tell the heads of this width: give timm's config.json with --config";
            let expected = "model_args.num_heads in config.json";
            damaged(
                "the number of heads is not known",
                expected,
                format!("width {width}"),
                help,
            )
        })?,
    };
    let rows = shape("pos_embed").and_then(|shape| shape.get(1).copied());
    let grid = rows.map(|rows| rows.saturating_sub(usize::from(has_class)));
    let side = grid
        .map(usize::isqrt)
        .filter(|side| Some(side * side) == grid);
    let size = found
        .image_size()
        .or(side.map(|side| [side * ph, side * pw]));
    let Some([height, wide]) = size else {
        let got = rows.map_or("no positions".into(), |rows| format!("{rows} positions"));
        let expected = "pretrained_cfg.input_size or model_args.img_size in config.json";
        let help = "the images are no squares: give timm's config.json with --config";
        return Err(damaged(
            "the size of images is not known",
            expected,
            got,
            help,
        ));
    };
    let block = |b: usize| shape(&format!("blocks.{b}.norm1.weight")).is_some();
    let spec = ModelSpec {
        family: Family::Gpt,
        input: Input::Image(ImageInput {
            height,
            width: wide,
            channels,
            patch: [ph, pw],
            pool,
        }),
        vocab: classes,
        width,
        layers: (0..).take_while(|&b| block(b)).count(),
        heads,
        context: rows.unwrap_or(0),
        mlp_hidden,
        bias: true,
        causal: false,
        positions: match rows {
            Some(_) => Positions::Learned,
            None => Positions::None,
        },
        block_norm: NormKind::Affine,
        final_norm: NormKind::Affine,
        head: HeadKind::Untied,
        head_bias: true,
        init: Init::FanIn,
        ..ModelSpec::default()
    };
    spec.build().map_err(|source| Error::Setting {
        place: place.display().to_string(),
        source,
    })
}

/// Refuses a model that timm's class cannot express.
pub(super) fn check(config: &ModelConfig) -> Result<()> {
    let fits = [
        ("logit_scale", config.logit_scale == LogitScale::One, "one"),
        (
            "residual",
            config.residual == Residual::Sequential,
            "sequential",
        ),
        (
            "positions",
            config.positions != Positions::SinCos2d,
            "learned or none",
        ),
        ("norm_eps", config.norm_eps == EPS, "1e-6"),
    ];
    for (place, fits, expected) in fits {
        if !fits {
            return Err(cannot(place, expected, "another choice", HERE));
        }
    }
    expect_plain_blocks(config)
}

/// The ratio from which timm computes the hidden width, `int(embed_dim * mlp_ratio)`. Where the quotient is rounded down, the
/// product may fall below the width; with the next larger number it is at least the width, and far from the next.
fn mlp_ratio(width: usize, hidden: usize) -> f64 {
    let ratio = hidden as f64 / width as f64;
    match (width as f64 * ratio) as usize == hidden {
        true => ratio,
        false => ratio.next_up(),
    }
}

/// The text of `config.json`, which timm reads from a folder.
pub(super) fn write(config: &ModelConfig, image: &ImageInput) -> Value {
    let pool = if image.pool == Pool::Class {
        "token"
    } else {
        "avg"
    };
    let positions = match config.positions {
        Positions::Learned => "learn",
        _ => "none",
    };
    json!({
        "architecture": "vit_base_patch16_224",
        "num_classes": config.classes(),
        "num_features": config.width,
        "global_pool": pool,
        "model_args": {
            "img_size": [image.height, image.width],
            "patch_size": image.patch,
            "in_chans": image.channels,
            "embed_dim": config.width,
            "depth": config.layers(),
            "num_heads": config.heads,
            "mlp_ratio": mlp_ratio(config.width, hidden(config)),
            "num_classes": config.classes(),
            "global_pool": pool,
            "class_token": image.has_class_token(),
            "pos_embed": positions,
        },
        "pretrained_cfg": {
            "input_size": [image.channels, image.height, image.width],
            "num_classes": config.classes(),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::mlp_ratio;

    #[test]
    fn timm_computes_the_hidden_width_from_the_ratio() {
        for width in (1..=2048).step_by(3) {
            for hidden in (1..=5 * width).step_by(7) {
                let ratio = mlp_ratio(width, hidden);
                assert_eq!((width as f64 * ratio) as usize, hidden, "width {width}");
            }
        }
        for (width, hidden) in [(224, 976), (88, 120), (768, 3072), (192, 768)] {
            assert_eq!((width as f64 * mlp_ratio(width, hidden)) as usize, hidden);
        }
        assert_eq!(mlp_ratio(768, 3072), 4.0);
    }
}
