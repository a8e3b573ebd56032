//! The recipes of the repository, and what their comments say.

use std::path::{Path, PathBuf};
use tokenformer_train::recipe::{Recipe, resolve};

/// A file of the repository.
fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(name)
}

fn recipe(name: &str) -> Recipe {
    let resolved = resolve(Some(&in_repository(name)), &[]).unwrap();
    resolved.check_effects().unwrap();
    resolved.recipe
}

#[test]
fn every_recipe_can_be_used_as_it_stands() {
    for folder in ["recipes", "recipes/vision"] {
        for entry in std::fs::read_dir(in_repository(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".toml") {
                recipe(&format!("{folder}/{name}"));
            }
        }
    }
}

/// "A decay at the end only, so that each stage learns at the full rate."
#[test]
fn the_recipe_that_grows_decays_at_its_end_only() {
    let recipe = recipe("recipes/grow.toml");
    let growths: Vec<u64> = recipe.grow.iter().map(|growth| growth.at_step).collect();
    assert_eq!((growths, recipe.train.steps), (vec![1000, 2000], 3000));
    for step in recipe.schedule.warmup_steps..=2400 {
        assert_eq!(recipe.lr_at(step), recipe.schedule.lr, "step {step}");
    }
    assert!(recipe.lr_at(2401) < recipe.schedule.lr);
    let last = recipe.lr_at(3000) / recipe.schedule.lr;
    assert!((last - 0.1).abs() < 1e-9, "{last}");
}
