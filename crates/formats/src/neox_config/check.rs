//! Checks which settings a TokenFormer model can have.

use super::keys::Keys;
use super::{ConfigValue, NeoxConfig, Norm, NormActivation, Positions, Training};
use crate::Result;

/// Optional keys that decide what the model computes. Without one of them its default is taken, and nothing in the weights
/// would tell.
const DECIDING: [&str; 18] = [
    "attention_config",
    "final_norm",
    "gpt_j_residual",
    "gpt_j_tied",
    "layernorm_epsilon",
    "model_parallel_size",
    "moe_num_experts",
    "no_weight_tying",
    "norm",
    "norm_activation_type",
    "num_kv_heads",
    "rotary_emb_base",
    "rotary_pct",
    "sliding_window_width",
    "sparsity_config",
    "use_bias_in_attn_linear",
    "use_bias_in_mlp",
    "use_mup",
];

/// Keys of GPT-NeoX that look like one of these.
const NO_MISSPELLINGS: [&str; 9] = [
    "attention_dropout",
    "layernorm_fusion",
    "moe_expert_parallel_size",
    "pipe_parallel_size",
    "rms_norm_epsilon",
    "rmsnorm_epsilon",
    "scalenorm_epsilon",
    "use_bias_in_norms",
    "use_tutel",
];

pub(super) fn config(mut keys: Keys) -> Result<NeoxConfig> {
    let absent: Vec<&str> = (DECIDING.into_iter())
        .filter(|key| !keys.has(key))
        .collect();
    let num_layers = keys.count("num_layers")?;
    let hidden_size = keys.count("hidden_size")?;
    let num_attention_heads = keys.required(
        "num_attention_heads",
        &format!("a divisor of hidden_size, which is {hidden_size}"),
        |value| {
            value
                .as_usize()
                .filter(|&heads| heads > 0 && hidden_size.is_multiple_of(heads))
        },
    )?;
    refuse_other_architectures(&mut keys, num_layers, num_attention_heads)?;
    let positions = positions(&mut keys, hidden_size / num_attention_heads)?;
    let norm = norm(&mut keys, "norm")?.unwrap_or(Norm::Affine);
    let (seq_length, max_position_embeddings) = lengths(&mut keys)?;
    let config = NeoxConfig {
        num_layers,
        hidden_size,
        num_attention_heads,
        qkv_slot_num: keys.count("qkv_slot_num")?,
        proj_slot_num: keys.count("proj_slot_num")?,
        ffn_slot_num: keys.count("ffn_slot_num")?,
        seq_length,
        max_position_embeddings,
        positions,
        no_weight_tying: keys.flag("no_weight_tying")?.unwrap_or(false),
        norm,
        final_norm: self::norm(&mut keys, "final_norm")?.unwrap_or(norm),
        layernorm_epsilon: keys
            .optional("layernorm_epsilon", "a number above 0", |value| {
                value.as_f64().filter(|&eps| eps > 0.0)
            })?
            .unwrap_or(1e-5),
        norm_activation_type: keys
            .optional(
                "norm_activation_type",
                "l2_norm_gelu, gelu_l2_norm or softmax",
                |value| {
                    Some(match value.as_str()? {
                        "l2_norm_gelu" => NormActivation::L2NormGelu,
                        "gelu_l2_norm" => NormActivation::GeluL2Norm,
                        "softmax" => NormActivation::Softmax,
                        _ => return None,
                    })
                },
            )?
            .unwrap_or(NormActivation::L2NormGelu),
        make_vocab_size_divisible_by: keys
            .optional_count("make_vocab_size_divisible_by")?
            .unwrap_or(128),
        init_method: keys.text("init_method")?.unwrap_or_else(|| "normal".into()),
        output_layer_init_method: keys
            .text("output_layer_init_method")?
            .unwrap_or_else(|| "scaled_normal".into()),
        init_method_std: keys
            .optional("init_method_std", "a number from 0", |value| {
                value.as_f64().filter(|&std| std >= 0.0)
            })?
            .unwrap_or(0.02),
        training: Training::take(&mut keys)?,
        ignored: Vec::new(),
    };
    keys.refuse_similar(&absent, &NO_MISSPELLINGS)?;
    Ok(NeoxConfig {
        ignored: keys.rest(),
        ..config
    })
}

/// Sequence length and longest sequence; if one is missing, the other is used.
fn lengths(keys: &mut Keys) -> Result<(usize, usize)> {
    let longest = keys.optional_count("max_position_embeddings")?;
    let expected = match longest {
        Some(longest) => {
            format!("an integer from 1 to max_position_embeddings, which is {longest}")
        }
        None => "an integer from 1".into(),
    };
    let length = keys.optional("seq_length", &expected, |value| {
        value
            .as_usize()
            .filter(|&length| length > 0 && length <= longest.unwrap_or(i32::MAX as usize))
    })?;
    match (length, longest) {
        (Some(length), longest) => Ok((length, longest.unwrap_or(length))),
        (None, Some(longest)) => Ok((longest, longest)),
        (None, None) => Err(keys.missing(
            "seq_length",
            "an integer from 1",
            "add \"seq_length\": 2048 or what the model was trained with",
        )),
    }
}

fn positions(keys: &mut Keys, head_size: usize) -> Result<Positions> {
    const EXPECTED: &str = "\"rotary\" or \"none\"";
    let rotary = keys.optional("pos_emb", EXPECTED, |value| match value.as_str()? {
        "rotary" => Some(true),
        "none" => Some(false),
        _ => None,
    })?;
    let fraction = keys
        .optional("rotary_pct", &format!("a share of a head's {head_size} channels, from 0 to 1, that is an even number of channels"), |value| {
            value.as_f64().filter(|&fraction| {
                let channels = (head_size as f64 * fraction) as usize;
                (0.0..=1.0).contains(&fraction) && channels.is_multiple_of(2)
            })
        })?
        .unwrap_or(1.0);
    let base = keys
        .optional("rotary_emb_base", "a number above 0", |value| {
            value.as_f64().filter(|&base| base > 0.0)
        })?
        .unwrap_or(10_000.0);
    match rotary {
        Some(true) => Ok(Positions::Rotary { fraction, base }),
        Some(false) => Ok(Positions::None),
        None => Err(keys.missing("pos_emb", EXPECTED, "without it the model would have learned positions, which TokenFormer has not; add \"pos_emb\": \"rotary\"")),
    }
}

fn norm(keys: &mut Keys, key: &str) -> Result<Option<Norm>> {
    keys.optional(key, "\"layernorm_nonparam\" or \"layernorm\"", |value| {
        Some(match value.as_str()? {
            "layernorm_nonparam" => Norm::Plain,
            "layernorm" => Norm::Affine,
            _ => return None,
        })
    })
}

/// Returns an error for settings that would make another architecture than the one that the other keys describe.
fn refuse_other_architectures(keys: &mut Keys, layers: usize, heads: usize) -> Result<()> {
    const SEQUENTIAL: &str = "TokenFormer's blocks are sequential: set it to false or remove it";
    const NO_BIAS: &str = "parameter tokens have no bias: set it to false or remove it";
    const DENSE: &str = "only dense models are read: remove it";
    let is_false = |value: &ConfigValue| value.as_bool() == Some(false);
    let is_empty = |value: &ConfigValue| match value {
        ConfigValue::Map(entries) => entries.is_empty(),
        other => other.as_bool() == Some(false),
    };
    keys.refuse_unless("gpt_j_residual", "false", SEQUENTIAL, is_false)?;
    keys.refuse_unless("gpt_j_tied", "false", SEQUENTIAL, is_false)?;
    for key in ["use_bias_in_attn_linear", "use_bias_in_mlp"] {
        keys.refuse_unless(key, "false", NO_BIAS, is_false)?;
    }
    keys.refuse_unless(
        "use_mup",
        "false",
        "models scaled by muP are not read",
        is_false,
    )?;
    keys.refuse_unless("sparsity_config", "nothing", DENSE, is_empty)?;
    keys.refuse_unless("moe_num_experts", "1", DENSE, |value| {
        value.as_usize().is_some_and(|experts| experts <= 1)
    })?;
    keys.refuse_unless(
        "num_kv_heads",
        &format!("num_attention_heads, which is {heads}"),
        "every head has keys and values of its own: remove it",
        |value| value.as_usize() == Some(heads),
    )?;
    keys.refuse_unless(
        "sliding_window_width",
        "nothing",
        "attention spans the whole sequence: remove it",
        |_| false,
    )?;
    keys.refuse_unless(
        "model_parallel_size",
        "1",
        "merge the checkpoint first; a split one pads its vocabulary differently",
        |value| value.as_usize().is_some_and(|size| size <= 1),
    )?;
    attention(keys, layers)
}

/// Accepts `[[["tokenformer"], n], ...]`, where the numbers add up to the layers; `"all"` means all of them.
fn attention(keys: &mut Keys, layers: usize) -> Result<()> {
    let expected = format!("[[[\"tokenformer\"], {layers}]]");
    let valid = |value: &ConfigValue| -> Option<bool> {
        let mut total = 0usize;
        for group in value.as_list()? {
            let [kinds, count] = group.as_list()? else {
                return None;
            };
            let kinds = kinds.as_list()?;
            if kinds.is_empty()
                || kinds
                    .iter()
                    .any(|kind| kind.as_str() != Some("tokenformer"))
            {
                return Some(false);
            }
            let repeats = match count.as_str() {
                Some("all") => layers,
                _ => count.as_usize()?.checked_mul(kinds.len())?,
            };
            total = total.checked_add(repeats)?;
        }
        Some(total == layers)
    };
    let help = "each layer is a TokenFormer layer; correct num_layers or attention_config";
    keys.refuse_unless("attention_config", &expected, help, |value| {
        valid(value) == Some(true)
    })
}
