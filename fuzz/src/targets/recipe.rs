//! Recipes.

use tokenformer_train::memory::TrainingPlan;
use tokenformer_train::recipe::resolve;

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Resolves the input as a recipe file; what is accepted has to survive being written and read.
pub fn run(input: &[u8]) {
    let path = files::write("recipe.toml", input);
    // A model of the most blocks that there can be takes 24 MiB.
    bounded(input, 32 * MIB, || {
        let resolved = match resolve(Some(&path), &[]) {
            Ok(resolved) => resolved,
            Err(error) => {
                let _ = error.to_string();
                return;
            }
        };
        let _ = resolved.explain();
        let written = files::write("resolved.toml", resolved.to_toml().as_bytes());
        let again = resolve(Some(&written), &[]).expect("what was accepted before");
        assert_eq!(again.recipe, resolved.recipe);
        let recipe = &resolved.recipe;
        for step in [1, 2, recipe.train.steps] {
            assert!(!recipe.lr_at(step).is_nan());
        }
        if let Ok(model) = recipe.model.build(50_304) {
            let plan = TrainingPlan::new(
                &model,
                recipe.train.batch,
                model.context,
                recipe.train.recompute,
                recipe.optimizer.moments,
            );
            assert!(plan.total_bytes() > 0);
        }
    });
}
