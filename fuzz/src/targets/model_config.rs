//! `config.json` of a model directory.

use tokenformer_core::optim::MomentFormat;
use tokenformer_core::{ModelConfig, Recompute};
use tokenformer_train::memory::{TrainingPlan, inference_bytes};

use super::MIB;
use crate::memory::bounded;

/// Parses the input; what is accepted has to survive being written and read, and its counts must not overflow.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    bounded(input, 2 * MIB, || {
        match ModelConfig::from_json(text, "config.json") {
            Ok((config, training)) => {
                let (again, _) =
                    ModelConfig::from_json(&config.to_json(), "again").expect("what was accepted");
                assert_eq!(again, config);
                assert!(config.params() >= config.body_params());
                assert!(config.forward_flops_per_token(config.context).is_finite());
                let (recompute, moments) = (Recompute::None, MomentFormat::Bf16);
                let plan = TrainingPlan::new(&config, 1 << 24, config.context, recompute, moments);
                assert!(plan.total_bytes() > 0);
                let _ = (inference_bytes(&config, u64::MAX), config.logit_factor());
                for anneal in training.anneals.values() {
                    let _ = (anneal.at(0), anneal.at(u64::MAX));
                }
            }
            Err(error) => {
                let _ = error.to_string();
            }
        }
    });
}
