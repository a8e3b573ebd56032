//! Floating-point operations of training.

use tokenformer_core::ModelConfig;

/// Operations per parameter token and position outside the products: norm, scale and GELU.
const PER_SLOT: f64 = 10.0;
/// Forward and backward over forward alone.
const TRAINING: f64 = 3.0;

/// Operations per trained token with windows of `context` tokens, all arrays trained:
/// `3·(2·body + 4·L·D·T + 2·V·D + 10·slots)`.
pub fn per_token(config: &ModelConfig, context: usize) -> f64 {
    let layers = config.blocks.iter().flat_map(|block| block.layers());
    let slots: usize = layers.filter_map(|layer| Some(layer.site()?.tokens())).sum();
    TRAINING * (config.forward_flops_per_token(context) + PER_SLOT * slots as f64)
}

#[cfg(test)]
mod tests {
    use super::per_token;
    use tokenformer_core::ModelSpec;
    use tokenformer_core::config::{Family, Slots};

    fn spec(family: Family) -> ModelSpec {
        ModelSpec {
            family,
            vocab: 1024,
            width: 64,
            layers: 3,
            heads: 4,
            context: 256,
            slots: Slots {
                qkv: 48,
                proj: 48,
                ffn: 192,
            },
            ..ModelSpec::default()
        }
    }

    #[test]
    fn operations_of_the_base_by_hand() {
        // Body 3·(4·2·64·48 + 2·64·192) = 147456, slots 3·(4·48 + 192) = 1152.
        let tokenformer = spec(Family::Tokenformer).build().unwrap();
        let by_hand = 3.0 * (294_912.0 + 196_608.0 + 131_072.0 + 11_520.0);
        assert_eq!(per_token(&tokenformer, 256), by_hand);
        // A plain Transformer of the same width: 12·64² per block, no slots.
        let gpt = spec(Family::Gpt).build().unwrap();
        let by_hand = 3.0 * (294_912.0 + 196_608.0 + 131_072.0);
        assert_eq!(per_token(&gpt, 256), by_hand);
    }
}
