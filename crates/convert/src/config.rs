//! Conversion between configurations with the published keys and those of a model directory.

use serde::Serialize;
use tokenformer_core::config::{
    HeadKind, LogitScale, ModelSpec, NormKind, NormSpan, Positions, Residual, SiteConfig, Slots,
    Theta,
};
use tokenformer_core::model::site_name;
use tokenformer_core::{ModelConfig, SiteKind};
use tokenformer_formats::neox_config::{self, NeoxConfig, Norm, NormActivation};

use crate::{Error, Result};

/// The configuration of a published model whose embedding has `vocab` rows.
///
/// The published code divides by the norm of the scores without an epsilon. Our epsilon of 1e-6, compared with norms of about
/// 15, changes logits by no more than rounding does.
pub(crate) fn from_neox(place: &str, neox: &NeoxConfig, vocab: usize) -> Result<ModelConfig> {
    let unsupported = |what, expected, got: &str, help| Error::Unsupported {
        place: place.into(),
        what,
        expected,
        got: got.into(),
        help,
    };
    if neox.norm != Norm::Plain {
        return Err(unsupported(
            "norm",
            "\"layernorm_nonparam\"",
            "\"layernorm\", or nothing, which means it",
            "the norms inside the blocks must have neither gain nor bias, as in the published models",
        ));
    }
    if neox.no_weight_tying {
        return Err(unsupported(
            "no_weight_tying",
            "false",
            "true",
            "the output head must be the embedding, as in the published models",
        ));
    }
    let spec = ModelSpec {
        vocab,
        width: neox.hidden_size,
        layers: neox.num_layers,
        heads: neox.num_attention_heads,
        context: neox.seq_length,
        slots: Slots {
            qkv: neox.qkv_slot_num,
            proj: neox.proj_slot_num,
            ffn: neox.ffn_slot_num,
        },
        theta: match neox.norm_activation_type {
            NormActivation::L2NormGelu => Theta::L2NormGelu,
            NormActivation::GeluL2Norm => Theta::GeluL2Norm,
            NormActivation::Softmax => Theta::Softmax,
        },
        norm: NormSpan::Joint,
        positions: match neox.positions {
            neox_config::Positions::Rotary { fraction, base } => {
                Positions::Rotary { fraction, base }
            }
            neox_config::Positions::None => Positions::None,
        },
        final_norm: match neox.final_norm {
            Norm::Affine => NormKind::Affine,
            Norm::Plain => NormKind::Plain,
        },
        ..ModelSpec::default()
    };
    let built = spec.build().and_then(|mut config| {
        config.norm_eps = neox.layernorm_epsilon;
        config.validate()?;
        Ok(config)
    });
    built.map_err(|source| Error::Setting {
        place: place.into(),
        source,
    })
}

/// The keys of a published `config.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    architectures: [&'static str; 1],
    num_layers: usize,
    hidden_size: usize,
    num_attention_heads: usize,
    qkv_slot_num: usize,
    proj_slot_num: usize,
    ffn_slot_num: usize,
    seq_length: usize,
    max_position_embeddings: usize,
    pos_emb: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotary_pct: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotary_emb_base: Option<f64>,
    no_weight_tying: bool,
    norm: &'static str,
    final_norm: &'static str,
    layernorm_epsilon: f64,
    norm_activation_type: &'static str,
    gpt_j_residual: bool,
    use_bias_in_attn_linear: bool,
    attention_config: [([&'static str; 1], usize); 1],
    make_vocab_size_divisible_by: usize,
    hidden_dropout: f64,
    attention_dropout: f64,
    torch_dtype: &'static str,
}

/// The published keys of a model, if the published layout can express it exactly.
pub(crate) fn to_published(
    config: &ModelConfig,
    tokenizer_tokens: Option<usize>,
    torch_dtype: &'static str,
) -> Result<Published> {
    let refuse = |place: &str, expected: &str, got: String, help| Error::NotPublishable {
        place: place.into(),
        expected: expected.into(),
        got,
        help,
    };
    if config.logit_scale != LogitScale::One {
        let help =
            "published models do not scale their logits; the model can be used here as it is";
        return Err(refuse(
            "logit_scale",
            "one",
            "inverse-sqrt-width".into(),
            help,
        ));
    }
    let plain = [
        ("input", config.input.is_tokens()),
        ("causal", config.causal),
        ("residual", config.residual == Residual::Sequential),
        ("block_norm", config.block_norm == NormKind::Plain),
        ("head", config.head == HeadKind::Tied),
        ("head_bias", !config.head_bias),
    ];
    if let Some((place, _)) = plain.into_iter().find(|(_, fits)| !fits) {
        let help = "the published TokenFormer layout knows one kind of block; use the model here";
        return Err(refuse(
            place,
            "as in the published models",
            "another choice".into(),
            help,
        ));
    }
    let mut theta = None;
    let mut slots = [0; 5];
    for (b, block) in config.blocks.iter().enumerate() {
        for (slots, kind) in slots.iter_mut().zip(SiteKind::ALL) {
            let name = site_name(b, kind);
            let Some(site) = block.site(kind) else {
                let help = "the published TokenFormer layout has parameter tokens in every place";
                let got = "a linear layer".into();
                return Err(refuse(&name, "a Pattention site", got, help));
            };
            check_site(&name, site)?;
            if *theta.get_or_insert(site.theta) != site.theta {
                let help = "published models have one nonlinearity";
                let expected = "the nonlinearity of the other sites";
                return Err(refuse(&name, expected, format!("{:?}", site.theta), help));
            }
            if b > 0 && site.tokens() != *slots {
                let help =
                    "published models have equal blocks; grow the smaller ones to the same size";
                let expected = format!("{slots} tokens, as in the blocks before");
                return Err(refuse(
                    &site_name(b, kind),
                    &expected,
                    site.tokens().to_string(),
                    help,
                ));
            }
            *slots = site.tokens();
        }
    }
    let [query, key, value, proj_slot_num, ffn_slot_num] = slots;
    if query != key || query != value {
        let help = "published models give query, key and value the same number of tokens";
        let got = format!("{query}, {key} and {value} tokens");
        return Err(refuse(
            "query, key, value",
            "equal numbers of tokens",
            got,
            help,
        ));
    }
    let (pos_emb, rotary_pct, rotary_emb_base) = match config.positions {
        Positions::Rotary { fraction, base } => ("rotary", Some(fraction), Some(base)),
        Positions::None => ("none", None, None),
        Positions::Learned | Positions::SinCos2d => {
            let help = "published TokenFormers have rotary positions or none; use the model here";
            return Err(refuse(
                "positions",
                "rotary or none",
                "vectors that are added".into(),
                help,
            ));
        }
    };
    let norm_activation_type = match theta.unwrap_or_default() {
        Theta::L2NormGelu => "l2_norm_gelu",
        Theta::GeluL2Norm => "gelu_l2_norm",
        Theta::Softmax => "softmax",
        other @ (Theta::Gelu | Theta::L1NormGelu) => {
            let help = "published models have no such nonlinearity; use the model here";
            return Err(refuse(
                "theta",
                "l2-norm-gelu, gelu-l2-norm or softmax",
                other.name().into(),
                help,
            ));
        }
    };
    Ok(Published {
        architectures: ["TokenFormerForCausalLM"],
        num_layers: config.layers(),
        hidden_size: config.width,
        num_attention_heads: config.heads,
        qkv_slot_num: query,
        proj_slot_num,
        ffn_slot_num,
        seq_length: config.context,
        max_position_embeddings: config.context,
        pos_emb,
        rotary_pct,
        rotary_emb_base,
        no_weight_tying: false,
        norm: "layernorm_nonparam",
        final_norm: match config.final_norm {
            NormKind::Affine => "layernorm",
            NormKind::Plain => "layernorm_nonparam",
        },
        layernorm_epsilon: config.norm_eps,
        norm_activation_type,
        gpt_j_residual: false,
        use_bias_in_attn_linear: false,
        attention_config: [(["tokenformer"], config.layers())],
        make_vocab_size_divisible_by: divisor(config.vocab, tokenizer_tokens),
        hidden_dropout: 0.0,
        attention_dropout: 0.0,
        torch_dtype,
    })
}

/// A site is equivalent to a published one when one norm spans all its tokens and `τ` is the square root of their
/// number.
fn check_site(name: &str, site: &SiteConfig) -> Result<()> {
    let refuse = |expected: String, got: String, help| Error::NotPublishable {
        place: name.into(),
        expected,
        got,
        help,
    };
    let tau = match (site.norm, &site.segments[..]) {
        (NormSpan::Joint, _) => site.tau,
        (NormSpan::Segment, [only]) => only.tau,
        (NormSpan::Segment, segments) => {
            return Err(refuse(
                "one norm over all tokens".into(),
                format!("a norm for each of {} segments", segments.len()),
                "segments with norms of their own have no place in the published layout; use the model here",
            ));
        }
    };
    let tokens = site.tokens();
    let root = (tokens as f64).sqrt();
    // Kernels use tau as f32.
    if tau as f32 != root as f32 {
        return Err(refuse(
            format!("tau = {root:.6}, the root of its {tokens} tokens"),
            format!("tau = {tau:.6}"),
            "grow with --tau sqrt-n or --tau anneal:STEPS and train on, or use the model here",
        ));
    }
    Ok(())
}

/// The multiple to which the published code has to pad the tokenizer's vocabulary to get `vocab` rows.
fn divisor(vocab: usize, tokenizer_tokens: Option<usize>) -> usize {
    const USUAL: usize = 128;
    let tokens = tokenizer_tokens.unwrap_or(vocab);
    match () {
        () if tokens.next_multiple_of(USUAL) == vocab => USUAL,
        () if tokens == vocab => 1,
        () => vocab,
    }
}
