//! Conversion between the `config.json` of the layouts and the configuration of a model.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenformer_core::config::{
    Family, HeadKind, Init, LayerConfig, LogitScale, ModelSpec, NormKind, Positions, Residual,
};
use tokenformer_core::model::site_name;
use tokenformer_core::{ModelConfig, SiteKind};
use tokenformer_store::read_small;

use super::Layout;
use crate::error::shown;
use crate::{Error, Result};

/// Size limit of a configuration.
const MAX_BYTES: u64 = 1 << 20;

impl Layout {
    fn model_type(self) -> &'static str {
        match self {
            Self::Neox => "gpt_neox",
            Self::Gpt2 => "gpt2",
        }
    }

    fn architecture(self) -> &'static str {
        match self {
            Self::Neox => "GPTNeoXForCausalLM",
            Self::Gpt2 => "GPT2LMHeadModel",
        }
    }
}

/// What a model may lack although both layouts always have it. What is missing is written as constants that have no
/// effect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Parts {
    /// Whether linear layers have biases.
    bias: bool,
    /// The norms of the blocks.
    block_norm: NormKind,
    /// The last norm.
    final_norm: NormKind,
    /// How weights are initialised when the model grows later.
    init: Init,
}

impl Default for Parts {
    /// The values for a checkpoint of another program.
    fn default() -> Self {
        Self {
            bias: true,
            block_norm: NormKind::Affine,
            final_norm: NormKind::Affine,
            init: Init::default(),
        }
    }
}

fn text(path: &Path) -> Result<Option<Value>> {
    // The published TokenFormer configurations are YAML; a file of that kind is not parsed here.
    let text = read_small(path, MAX_BYTES)?;
    Ok(serde_json::from_slice(&text).ok())
}

/// The layout that a configuration names. A model of another kind is refused, since its tensors may have the same names.
pub(super) fn named_layout(path: &Path) -> Result<Option<Layout>> {
    let Some(config) = text(path)? else {
        return Ok(None);
    };
    let model_type = config.get("model_type").and_then(Value::as_str);
    let architecture = (config.get("architectures"))
        .and_then(|all| all.get(0))
        .and_then(Value::as_str);
    let named = match (model_type, architecture) {
        (Some("gpt_neox"), _) => Some(Layout::Neox),
        (Some("gpt2"), _) => Some(Layout::Gpt2),
        (None, Some(name)) if name.starts_with("GPTNeoXFor") || name == "GPTNeoXModel" => {
            Some(Layout::Neox)
        }
        (None, Some(name)) if name.starts_with("GPT2") => Some(Layout::Gpt2),
        // The published TokenFormer names only an architecture.
        (None, _) => None,
        (Some(other), _) if other.to_lowercase().contains("tokenformer") => None,
        (Some(other), _) => {
            return Err(Error::Unsupported {
                place: path.display().to_string(),
                what: "model_type",
                expected: "\"gpt_neox\", \"gpt2\" or a published TokenFormer",
                got: shown(other),
                help: "models of other kinds compute something else",
            });
        }
    };
    Ok(named)
}

/// Reads the configuration of a layout.
pub(super) fn read(layout: Layout, path: &Path) -> Result<ModelConfig> {
    let text = read_small(path, MAX_BYTES)?;
    let (spec, eps) = match layout {
        Layout::Neox => parse::<Neox>(layout, path, &text)?.spec(path)?,
        Layout::Gpt2 => parse::<Gpt2>(layout, path, &text)?.spec(path)?,
    };
    let built = spec.build().and_then(|mut config| {
        config.norm_eps = eps;
        config.validate()?;
        Ok(config)
    });
    built.map_err(|source| Error::Setting {
        place: path.display().to_string(),
        source,
    })
}

fn parse<'a, T: Deserialize<'a>>(layout: Layout, path: &Path, text: &'a [u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| Error::Damaged {
        path: path.into(),
        what: "the configuration cannot be read",
        expected: format!("a JSON object with the keys of {}", layout.model_type()),
        got: error.to_string(),
        help: "give the config.json that was saved with the weights",
    })
}

/// Returns an error for a setting with which the model would compute something else.
fn refuse<T>(path: &Path, what: &'static str, expected: &'static str, got: String) -> Result<T> {
    Err(Error::Unsupported {
        place: path.display().to_string(),
        what,
        expected,
        got,
        help: "a model with this setting computes something else; only the expected one is known here",
    })
}

fn gelu() -> String {
    "gelu".into()
}

fn usual_eps() -> f64 {
    1e-5
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Neox {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "usual_eps")]
    layer_norm_eps: f64,
    rotary_pct: Option<f64>,
    rotary_emb_base: Option<f64>,
    rope_parameters: Option<Rope>,
    rope_scaling: Option<Rope>,
    #[serde(default = "yes")]
    use_parallel_residual: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "yes")]
    attention_bias: bool,
    #[serde(default)]
    tokenformer: Parts,
}

#[derive(Clone, Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

impl Neox {
    fn spec(self, path: &Path) -> Result<(ModelSpec, f64)> {
        if self.hidden_act != "gelu" {
            return refuse(
                path,
                "hidden_act",
                "\"gelu\", the exact one",
                shown(&self.hidden_act),
            );
        }
        if !self.attention_bias {
            return refuse(path, "attention_bias", "true", "false".into());
        }
        for rope in [&self.rope_parameters, &self.rope_scaling]
            .into_iter()
            .flatten()
        {
            let kind = rope.rope_type.as_deref().unwrap_or("default");
            if kind != "default" {
                return refuse(path, "rope_type", "\"default\"", shown(kind));
            }
        }
        // New versions of the library keep both numbers in a separate table, which overrides the old keys.
        let new = |number: fn(&Rope) -> Option<f64>| self.rope_parameters.as_ref().and_then(number);
        let fraction = new(|rope| rope.partial_rotary_factor).or(self.rotary_pct);
        let base = new(|rope| rope.rope_theta).or(self.rotary_emb_base);
        let spec = ModelSpec {
            vocab: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            context: self.max_position_embeddings,
            mlp_hidden: self.intermediate_size,
            residual: match self.use_parallel_residual {
                true => Residual::Parallel,
                false => Residual::Sequential,
            },
            positions: Positions::Rotary {
                fraction: fraction.unwrap_or(0.25),
                base: base.unwrap_or(10_000.0),
            },
            head: head(self.tie_word_embeddings),
            ..self.tokenformer.spec()
        };
        Ok((spec, self.layer_norm_eps))
    }
}

#[derive(Deserialize)]
struct Gpt2 {
    vocab_size: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_positions: usize,
    n_inner: Option<usize>,
    /// If the key is missing, the library uses another function than this type's default.
    #[serde(default = "gelu_new")]
    activation_function: String,
    #[serde(default = "usual_eps")]
    layer_norm_epsilon: f64,
    #[serde(default = "yes")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default)]
    add_cross_attention: bool,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(default)]
    tokenformer: Parts,
}

fn gelu_new() -> String {
    "gelu_new".into()
}

impl Gpt2 {
    fn spec(self, path: &Path) -> Result<(ModelSpec, f64)> {
        if self.activation_function != "gelu" {
            let expected = "\"gelu\", the exact one; \"gelu_new\" is an approximation of it";
            let got = shown(&self.activation_function);
            return refuse(path, "activation_function", expected, got);
        }
        let flags = [
            ("scale_attn_weights", self.scale_attn_weights, true),
            (
                "scale_attn_by_inverse_layer_idx",
                self.scale_attn_by_inverse_layer_idx,
                false,
            ),
            ("add_cross_attention", self.add_cross_attention, false),
        ];
        if let Some((what, got, _)) = flags.into_iter().find(|(_, got, want)| got != want) {
            let expected = if got { "false" } else { "true" };
            return refuse(path, what, expected, got.to_string());
        }
        let spec = ModelSpec {
            vocab: self.vocab_size,
            width: self.n_embd,
            layers: self.n_layer,
            heads: self.n_head,
            context: self.n_positions,
            // 0 stands for four times the width, which is the library's default too.
            mlp_hidden: self.n_inner.unwrap_or(0),
            positions: Positions::Learned,
            head: head(self.tie_word_embeddings),
            ..self.tokenformer.spec()
        };
        Ok((spec, self.layer_norm_epsilon))
    }
}

fn head(tied: bool) -> HeadKind {
    match tied {
        true => HeadKind::Tied,
        false => HeadKind::Untied,
    }
}

impl Parts {
    fn spec(self) -> ModelSpec {
        ModelSpec {
            family: Family::Gpt,
            bias: self.bias,
            block_norm: self.block_norm,
            final_norm: self.final_norm,
            init: self.init,
            ..ModelSpec::default()
        }
    }
}

pub(super) fn cannot(
    place: &str,
    expected: &str,
    got: impl Into<String>,
    help: &'static str,
) -> Error {
    Error::NotPublishable {
        place: place.into(),
        expected: expected.into(),
        got: got.into(),
        help,
    }
}

pub(super) const HERE: &str = "use the model here as it is";

/// The layout that expresses a model exactly.
pub(super) fn layout_for(config: &ModelConfig) -> Result<Layout> {
    if config.head_bias {
        let help = "heads of these layouts have no bias; use the model here";
        return Err(cannot("head_bias", "false", "true", help));
    }
    let layout = match config.positions {
        Positions::Rotary { .. } => Layout::Neox,
        Positions::Learned => Layout::Gpt2,
        Positions::None | Positions::SinCos2d => {
            let expected = "rotary (GPT-NeoX layout) or learned (GPT-2 layout)";
            return Err(cannot("positions", expected, "none", HERE));
        }
    };
    if config.logit_scale != LogitScale::One {
        return Err(cannot("logit_scale", "one", "inverse-sqrt-width", HERE));
    }
    if !config.causal {
        let help = "these layouts are of models that continue a text; use the encoder here";
        return Err(cannot("causal", "true", "false", help));
    }
    if layout == Layout::Gpt2 && config.residual != Residual::Sequential {
        let help = "with rotary positions the GPT-NeoX layout would take it; use the model here";
        return Err(cannot(
            "residual",
            "sequential (GPT-2 layout)",
            "parallel",
            help,
        ));
    }
    expect_plain_blocks(config)?;
    Ok(layout)
}

/// Refuses blocks that the layouts have no names for.
pub(super) fn expect_plain_blocks(config: &ModelConfig) -> Result<()> {
    let hidden = hidden(config);
    for (b, block) in config.blocks.iter().enumerate() {
        for kind in SiteKind::ALL {
            let fits = match block.layer(kind) {
                LayerConfig::Linear { .. } => kind != SiteKind::Ffn,
                // After growth the parts of an MLP are separate arrays, for which the layouts have no names.
                LayerConfig::Mlp {
                    hidden: own, parts, ..
                } => kind == SiteKind::Ffn && *own == hidden && parts.is_empty(),
                LayerConfig::Pattention(_) => false,
            };
            if !fits {
                let expected = match kind {
                    SiteKind::Ffn => {
                        format!("an MLP of hidden width {hidden} in one part, as in all blocks")
                    }
                    _ => "a linear layer".into(),
                };
                let layer = block.layer(kind);
                let got = match layer {
                    LayerConfig::Mlp { parts, .. } if !parts.is_empty() => {
                        "an MLP in several parts, which a growth by ffn makes".into()
                    }
                    _ => format!("another layer, of hidden width {}", layer.hidden()),
                };
                return Err(cannot(&site_name(b, kind), &expected, got, HERE));
            }
        }
    }
    Ok(())
}

/// Hidden width of the first MLP.
pub(super) fn hidden(config: &ModelConfig) -> usize {
    let first = config.blocks.first();
    first.map_or(0, |block| block.layer(SiteKind::Ffn).hidden())
}

/// The text of a layout's `config.json`.
pub(super) fn write(
    layout: Layout,
    config: &ModelConfig,
    torch_dtype: &'static str,
) -> Result<Vec<u8>> {
    let mut layers = config.blocks.iter().flat_map(|block| block.layers());
    let parts = Parts {
        // If some layers have biases and some have none, all are read back with biases, the others' being zero.
        bias: layers.any(|layer| {
            let (LayerConfig::Linear { bias } | LayerConfig::Mlp { bias, .. }) = layer else {
                return false;
            };
            *bias
        }),
        block_norm: config.block_norm,
        final_norm: config.final_norm,
        init: config.init,
    };
    let tied = config.head == HeadKind::Tied;
    let mut keys = json!({
        "architectures": [layout.architecture()],
        "model_type": layout.model_type(),
        "vocab_size": config.vocab,
        "tie_word_embeddings": tied,
        "bos_token_id": null,
        "eos_token_id": null,
        "torch_dtype": torch_dtype,
        "tokenformer": parts,
    });
    let more = match layout {
        Layout::Neox => neox_keys(config),
        Layout::Gpt2 => json!({
            "n_embd": config.width,
            "n_layer": config.layers(),
            "n_head": config.heads,
            "n_positions": config.context,
            "n_inner": hidden(config),
            "activation_function": "gelu",
            "layer_norm_epsilon": config.norm_eps,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        }),
    };
    if let (Value::Object(keys), Value::Object(more)) = (&mut keys, more) {
        keys.extend(more);
    }
    to_text(&keys)
}

/// The text of `config.json`.
pub(super) fn to_text(keys: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(keys).map_err(|error| {
        Error::io("write the configuration", Path::new("config.json"))(error.into())
    })?;
    text.push(b'\n');
    Ok(text)
}

fn neox_keys(config: &ModelConfig) -> Value {
    let (fraction, base) = match config.positions {
        Positions::Rotary { fraction, base } => (fraction, base),
        // `layout_for` chooses this layout only for models with rotary positions.
        Positions::Learned | Positions::SinCos2d | Positions::None => (0.0, 1.0),
    };
    json!({
        "hidden_size": config.width,
        "num_hidden_layers": config.layers(),
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.context,
        "intermediate_size": hidden(config),
        "hidden_act": "gelu",
        "layer_norm_eps": config.norm_eps,
        // One key for old versions of the library and one for new ones.
        "rotary_pct": fraction,
        "rotary_emb_base": base,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": base,
            "partial_rotary_factor": fraction,
        },
        "use_parallel_residual": config.residual == Residual::Parallel,
        "attention_bias": true,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    })
}
