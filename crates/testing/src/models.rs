//! Small models.

use tokenformer_core::config::{Init, ModelSpec, Positions, Slots};

/// Rotary positions on half of the channels.
pub const ROTARY: Positions = Positions::Rotary {
    fraction: 0.5,
    base: 10_000.0,
};

/// A model of two blocks that takes a moment to train, and whose random weights tell tokens apart.
pub fn small(vocab: usize, context: usize) -> ModelSpec {
    ModelSpec {
        vocab,
        width: 16,
        layers: 2,
        heads: 2,
        context,
        slots: Slots {
            qkv: 12,
            proj: 10,
            ffn: 20,
        },
        positions: ROTARY,
        init: Init::FanIn,
        ..ModelSpec::default()
    }
}
