//! What is compared.

use super::{GROWTH_COST, VisionProfile};
use tokenformer_core::config::{NormKind, NormSpan, Theta};
use tokenformer_core::growth::{Amount, Growth, Method};
use tokenformer_images::augment::Crop;
use tokenformer_images::{Split, Summary};
use tokenformer_train::recipe::{GrowEvent, ModelTable};
use tokenformer_train::schedule::{Schedule, Shape};
use tokenformer_train::{Recipe, Result};

/// An arm of the study.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arm {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// How it differs from the reference.
    pub change: Change,
}

/// How an arm differs from the paper's TokenFormer from scratch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Not at all.
    None,
    /// A plain ViT of as many parameters.
    Plain,
    /// Another nonlinearity of the parameter tokens.
    Theta(Theta),
    /// Norms of blocks with gain and bias.
    AffineNorms,
    /// Trained for less, at the cost that the grown models have.
    Shorter,
    /// A quarter of the tokens, grown to all of them half-way.
    Grown(Method),
}

/// Name of the arm that all others are compared with.
pub const REFERENCE: &str = "tokenformer";

/// All arms.
pub const ARMS: [Arm; 10] = [
    arm(
        REFERENCE,
        "the paper's: GELU after an L2 norm, block norms without gain and bias",
        Change::None,
    ),
    arm("vit", "a plain ViT of as many parameters", Change::Plain),
    arm(
        "exp-l1",
        "softmax over parameter tokens: exponential, L1 norm",
        Change::Theta(Theta::Softmax),
    ),
    arm(
        "gelu-l1",
        "GELU after an L1 norm",
        Change::Theta(Theta::L1NormGelu),
    ),
    arm(
        "gelu-then-l2",
        "the norm after GELU instead of before it",
        Change::Theta(Theta::GeluL2Norm),
    ),
    arm(
        "gelu-alone",
        "GELU without a norm",
        Change::Theta(Theta::Gelu),
    ),
    arm(
        "affine-norms",
        "block norms with gain and bias",
        Change::AffineNorms,
    ),
    arm("shorter", "from scratch, 60 % of the cost", Change::Shorter),
    arm(
        "grown",
        "grown exactly from a quarter of the tokens, 60 % of the cost in all",
        Change::Grown(Method::Segment),
    ),
    arm(
        "grown-random",
        "grown with fresh keys and values, as the released code does, 60 % of the cost in all",
        Change::Grown(Method::Random),
    ),
];

const fn arm(name: &'static str, about: &'static str, change: Change) -> Arm {
    Arm {
        name,
        about,
        change,
    }
}

/// The arms of these names, in their order; all without names.
///
/// # Errors
/// [`tokenformer_train::Error::Recipe`] for an unknown name.
pub fn named(names: &[String]) -> Result<Vec<Arm>> {
    crate::named::named(&ARMS, |arm| arm.name, names)
}

/// The recipe of a run.
///
/// # Errors
/// If the pictures do not fit the profile.
pub fn recipe(
    arm: &Arm,
    profile: &VisionProfile,
    summary: &Summary,
    rate: f64,
    seed: u64,
) -> Result<Recipe> {
    let model = profile.tokenformer(summary)?;
    let classes = summary.classes.len();
    let flops = |table: &ModelTable| table.build(classes).map(|config| config.forward_flops());
    let mut steps = profile.steps;
    let mut grow = Vec::new();
    let model = match arm.change {
        Change::None => model,
        Change::Plain => profile.plain(summary)?,
        Change::Theta(theta) => ModelTable { theta, ..model },
        Change::AffineNorms => ModelTable {
            block_norm: NormKind::Affine,
            ..model
        },
        Change::Shorter => {
            steps = share(profile.steps, GROWTH_COST);
            model
        }
        Change::Grown(method) => {
            let small = ModelTable {
                slots: profile.small_slots(),
                norm: match method {
                    Method::Segment => NormSpan::Segment,
                    _ => NormSpan::Joint,
                },
                ..model.clone()
            };
            // Half of the updates with the small model; what is left of the budget with the large one.
            let first = share(profile.steps, 0.5);
            let spent = first as f64 * flops(&small)? / flops(&model)?;
            let second = (GROWTH_COST * profile.steps as f64 - spent).max(1.0) as u64;
            steps = first + second;
            let [more, less] = [profile.slots(), profile.small_slots()];
            grow.push(GrowEvent {
                at_step: first,
                growth: Growth {
                    method: Some(method),
                    qkv: Amount::Add(more.qkv - less.qkv),
                    proj: Amount::Add(more.proj - less.proj),
                    ffn: Amount::Add(more.ffn - less.ffn),
                    ..Growth::default()
                },
                ..GrowEvent::default()
            });
            small
        }
    };
    let mut recipe = Recipe {
        seed,
        model,
        grow,
        ..Recipe::default()
    };
    let input = profile.input(summary)?;
    if are_seen_often(profile, summary) {
        recipe.images.augment.crop = Crop::Padded {
            pixels: input.height / 16 + 1,
        };
    }
    recipe.images.augment.smoothing = 0.1;
    recipe.train.steps = steps;
    recipe.train.batch = profile.batch;
    recipe.optimizer.weight_decay = 0.1;
    recipe.ema.decay = if profile.steps >= 1000 { 0.99 } else { 0.95 };
    recipe.schedule = Schedule {
        shape: Shape::Cosine,
        lr: rate,
        warmup_steps: (steps / 20).max(1),
        min_ratio: 0.01,
        ..Schedule::default()
    };
    recipe.eval.every = (profile.steps / 10).max(1);
    recipe.checkpoint.every = (profile.steps / 5).max(1);
    recipe.checkpoint.keep = 1;
    recipe.sample.tokens = 0;
    recipe.log.every = (profile.steps / 100).max(1);
    Ok(recipe)
}

/// Whether the pictures are seen so often that it is worth shifting them: shifts slow learning down, and help against
/// learning by heart.
fn are_seen_often(profile: &VisionProfile, summary: &Summary) -> bool {
    let pictures = summary.split(Split::Train).map_or(0, |split| split.images);
    profile.steps * profile.batch as u64 >= 5 * pictures as u64
}

fn share(steps: u64, share: f64) -> u64 {
    ((steps as f64 * share) as u64).max(1)
}
