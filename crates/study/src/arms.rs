//! The arms of the study: ways to come to a larger model, as data.

use crate::profile::Profile;
use tokenformer_core::config::Family;
use tokenformer_core::growth::{Amount, Growth};
use tokenformer_train::recipe::GrowEvent;
use tokenformer_train::{Error, Result};

/// A way to come to a larger model.
#[derive(Clone, Copy, Debug)]
pub struct Arm {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// What it is needed for; the first are run first.
    pub group: Group,
    /// How it is trained.
    pub kind: Kind,
}

/// What an arm is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Claims C0 to C5.
    Main,
    /// Claims C6 and C7: rivals of other families and other recipes.
    Rival,
    /// Single settings of the recipe.
    Ablation,
}

/// How an arm is trained.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The base alone, decayed.
    Base,
    /// The base trained on without a growth, until it has cost what each size of the grown ladder has.
    Stay,
    /// The base of a family, grown stage by stage.
    Grown(Family, fn(&Rung) -> Growth),
    /// A plain Transformer from scratch: number of its size in the profile.
    Scratch(usize),
}

/// A growth of the ladder, in the sizes that growths are told in.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// Width of the base.
    pub width: usize,
    /// Blocks of the base.
    pub layers: usize,
    /// Parameters of the blocks over those of the base, before.
    pub before: usize,
    /// The same after.
    pub after: usize,
}

impl Rung {
    /// Parameter tokens of the base: of query, key, value and output projection each, and of the feed-forward network.
    pub fn base_slots(width: usize) -> [usize; 2] {
        [width * 3 / 4, width * 3]
    }

    /// A growth of a TokenFormer's sites to the size of this rung.
    pub(crate) fn tokens(&self) -> Growth {
        let [attention, ffn] = Self::base_slots(self.width).map(|slots| slots * self.after);
        Growth {
            qkv: Amount::To(attention),
            proj: Amount::To(attention),
            ffn: Amount::To(ffn),
            ..Growth::default()
        }
    }
}

/// All arms, in the order in which they are run.
pub const ARMS: [Arm; 6] = [
    Arm {
        name: "base",
        about: "TokenFormer of the first size",
        group: Group::Main,
        kind: Kind::Base,
    },
    Arm {
        name: "t-seg",
        about: "tokens in segments of their own norm: random keys, zero values; exact",
        group: Group::Main,
        kind: Kind::Grown(Family::Tokenformer, Rung::tokens),
    },
    Arm {
        name: "g-scr-1",
        about: "plain Transformer from scratch, width of the base",
        group: Group::Main,
        kind: Kind::Scratch(0),
    },
    Arm {
        name: "g-scr-2",
        about: "plain Transformer from scratch, twice the width",
        group: Group::Main,
        kind: Kind::Scratch(1),
    },
    Arm {
        name: "g-scr-4",
        about: "plain Transformer from scratch, four times the width",
        group: Group::Main,
        kind: Kind::Scratch(2),
    },
    Arm {
        name: "t-stay",
        about: "the base trained on without a growth",
        group: Group::Main,
        kind: Kind::Stay,
    },
];

/// The arms of these names, in the order of [`ARMS`]; all without names.
///
/// # Errors
/// [`Error::Recipe`] for an unknown name.
pub fn named(names: &[String]) -> Result<Vec<Arm>> {
    if let Some(unknown) = names.iter().find(|name| ARMS.iter().all(|arm| arm.name != **name)) {
        let known: Vec<&str> = ARMS.iter().map(|arm| arm.name).collect();
        let near = tokenformer_core::nearest(unknown, known.iter().copied());
        return Err(Error::Recipe {
            place: "--arms".into(),
            problem: "no such arm".into(),
            expected: format!("names among {}", known.join(", ")),
            got: unknown.clone(),
            help: near.map_or("leave it out for all of them".into(), |near| {
                format!("did you mean {near}?")
            }),
        });
    }
    let wanted = |arm: &Arm| names.is_empty() || names.iter().any(|name| name == arm.name);
    Ok(ARMS.into_iter().filter(wanted).collect())
}

/// The growth of an arm at a stage of the profile, as an event of a recipe.
pub(crate) fn event(profile: &Profile, stage: usize, growth: fn(&Rung) -> Growth) -> GrowEvent {
    let rung = Rung {
        width: profile.width,
        layers: profile.layers,
        before: match stage {
            0 => 1,
            stage => profile.stages[stage - 1].factor,
        },
        after: profile.stages[stage].factor,
    };
    GrowEvent {
        growth: growth(&rung),
        ..GrowEvent::default()
    }
}
