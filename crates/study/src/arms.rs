//! The arms of the study: ways to get a larger model, as data.

use crate::profile::Profile;
use tokenformer_core::config::Family;
use tokenformer_core::growth::{Amount, At, Growth, Method, Moments, Rate, TauRule};
use tokenformer_train::Result;
use tokenformer_train::recipe::GrowEvent;

/// A way to get a larger model.
#[derive(Clone, Copy, Debug)]
pub struct Arm {
    /// Its name.
    pub name: &'static str,
    /// A description in one line.
    pub about: &'static str,
    /// The claims that need it; the groups are run in order.
    pub group: Group,
    /// How it is trained.
    pub kind: Kind,
}

/// The claims that need an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Claims C0 to C5.
    Main,
    /// Claims C6 and C7: rivals of other families and other recipes.
    Rival,
    /// Single settings of the recipe.
    Ablation,
    /// What a model forgets when it learns another text.
    Shift,
    /// Where growth pays.
    Map,
}

/// How an arm is trained.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// The base alone, decayed.
    Base,
    /// The base trained further without a growth, up to the cost of each size of the grown ladder.
    Stay,
    /// The base of a family, grown stage by stage.
    Grown(Ladder),
    /// A plain Transformer from scratch: index of its size in the profile.
    Scratch(usize),
    /// A TokenFormer of the ladder's last size from scratch.
    Final,
    /// A plain Transformer of one block for most of its tokens, then grown to [`LATE_LAYERS`] at once, at the cost of
    /// the ladder.
    Late(fn(&Rung) -> Growth),
    /// The base of a family, trained on with the second text, after a growth or without one.
    Shift(Family, Option<fn(&Rung) -> Growth>),
    /// A TokenFormer grown once, at every moment, by every factor and for every length of the profile's map; one seed.
    Map,
}

/// Blocks of a model that grows late.
pub const LATE_LAYERS: usize = 12;

/// Growths from a base.
#[derive(Clone, Copy, Debug)]
pub struct Ladder {
    /// Family of the base.
    pub family: Family,
    /// The growth of a stage.
    pub growth: fn(&Rung) -> Growth,
    /// Whether each stage warms up and decays as a separate run, instead of one run at constant rate with decay
    /// branches.
    pub rewarmed: bool,
    /// Largest number of stages.
    pub stages: usize,
}

/// The sizes from which a growth of the ladder is computed.
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

    /// All sites of a TokenFormer, in proportion.
    fn tokens(&self, method: Method) -> Growth {
        let [attention, ffn] = Self::base_slots(self.width).map(|slots| slots * self.after);
        Growth {
            method: Some(method),
            qkv: Amount::To(attention),
            proj: Amount::To(attention),
            ffn: Amount::To(ffn),
            ..Growth::default()
        }
    }

    /// The default of a TokenFormer.
    pub(crate) fn segment(&self) -> Growth {
        self.tokens(Method::Segment)
    }

    /// Parameters that a TokenFormer's growth by [`Rung::tokens`] adds to a block, over `2·width`: tokens.
    fn added_tokens(&self) -> usize {
        let [attention, ffn] = Self::base_slots(self.width);
        (4 * attention + ffn) * (self.after - self.before)
    }

    /// Grows the MLPs of a plain Transformer by as many parameters as the TokenFormer's growth adds.
    fn hidden(&self) -> Growth {
        Growth {
            method: Some(Method::Ffn),
            ffn: Amount::To((6 * self.after - 2) * self.width),
            ..Growth::default()
        }
    }

    /// Multiplies the blocks by the factor of the parameters.
    fn blocks(&self, method: Method) -> Growth {
        Growth {
            method: Some(method),
            layers: self.layers * (self.after - self.before),
            ..Growth::default()
        }
    }

    /// Grows the width so that its square is multiplied by the factor of the parameters.
    fn wider(&self, method: Method) -> Growth {
        Growth {
            method: Some(method),
            width: Amount::To(self.width * self.after.isqrt()),
            ..Growth::default()
        }
    }

    /// The blocks of a model that begins with one.
    fn late(&self, method: Method) -> Growth {
        Growth {
            method: Some(method),
            layers: LATE_LAYERS - 1,
            ..Growth::default()
        }
    }
}

const fn arm(name: &'static str, about: &'static str, group: Group, kind: Kind) -> Arm {
    Arm {
        name,
        about,
        group,
        kind,
    }
}

const fn grown(family: Family, growth: fn(&Rung) -> Growth) -> Kind {
    Kind::Grown(Ladder {
        family,
        growth,
        rewarmed: false,
        stages: usize::MAX,
    })
}

const fn rewarmed(growth: fn(&Rung) -> Growth) -> Kind {
    Kind::Grown(Ladder {
        family: Family::Tokenformer,
        growth,
        rewarmed: true,
        stages: usize::MAX,
    })
}

/// A single setting of the default recipe changed, at the first stage.
const fn ablation(name: &'static str, about: &'static str, growth: fn(&Rung) -> Growth) -> Arm {
    let ladder = Ladder {
        family: Family::Tokenformer,
        growth,
        rewarmed: false,
        stages: 1,
    };
    arm(name, about, Group::Ablation, Kind::Grown(ladder))
}

const T: Family = Family::Tokenformer;
const G: Family = Family::Gpt;

/// All arms, in the order in which they are run.
pub const ARMS: [Arm; 39] = [
    arm(
        "base",
        "TokenFormer of the first size",
        Group::Main,
        Kind::Base,
    ),
    arm(
        "t-seg",
        "tokens with a norm of their own: random keys, zero values; exact",
        Group::Main,
        grown(T, Rung::segment),
    ),
    arm(
        "g-ffn",
        "plain Transformer with wider MLPs at the same width; exact",
        Group::Main,
        grown(G, Rung::hidden),
    ),
    arm(
        "g-scr-1",
        "plain Transformer from scratch, width of the base",
        Group::Main,
        Kind::Scratch(0),
    ),
    arm(
        "g-scr-2",
        "plain Transformer from scratch, twice the width",
        Group::Main,
        Kind::Scratch(1),
    ),
    arm(
        "g-scr-4",
        "plain Transformer from scratch, four times the width",
        Group::Main,
        Kind::Scratch(2),
    ),
    arm(
        "t-stay",
        "the base trained on without a growth",
        Group::Main,
        Kind::Stay,
    ),
    arm(
        "t-zero",
        "tokens under one norm: zero keys, random values, tau pinned; exact",
        Group::Rival,
        grown(T, |r| r.tokens(Method::ZeroKey)),
    ),
    arm(
        "t-zero-track",
        "as t-zero, tau tracks the energy of the scores",
        Group::Rival,
        grown(T, |r| Growth {
            tau: TauRule::Tracked,
            ..r.tokens(Method::ZeroKey)
        }),
    ),
    arm(
        "t-zero-anneal",
        "as t-zero, tau anneals to the root of the tokens",
        Group::Rival,
        grown(T, |r| Growth {
            tau: TauRule::Anneal(ANNEAL_STEPS),
            ..r.tokens(Method::ZeroKey)
        }),
    ),
    arm(
        "t-near",
        "tokens under one norm: random keys, zero values; nearly exact",
        Group::Rival,
        grown(T, |r| r.tokens(Method::RandomKeyZeroValue)),
    ),
    arm(
        "t-rel",
        "the released way: fresh tokens, moments reset, warm-up and cosine per stage",
        Group::Rival,
        rewarmed(|r| r.tokens(Method::Random)),
    ),
    arm(
        "t-seg-rewarmed",
        "t-seg with warm-up and cosine per stage",
        Group::Rival,
        rewarmed(Rung::segment),
    ),
    arm(
        "t-scr",
        "TokenFormer of the last size from scratch",
        Group::Rival,
        Kind::Final,
    ),
    arm(
        "g-stack",
        "plain Transformer, blocks stacked",
        Group::Rival,
        grown(G, |r| r.blocks(Method::Stack)),
    ),
    arm(
        "g-inter",
        "plain Transformer, every block repeated behind itself",
        Group::Rival,
        grown(G, |r| r.blocks(Method::Interpose)),
    ),
    arm(
        "g-id",
        "plain Transformer, new blocks that add nothing at first; exact",
        Group::Rival,
        grown(G, |r| r.blocks(Method::IdentityBlocks)),
    ),
    arm(
        "g-one-copy",
        "one block for most of the tokens, then copies of it",
        Group::Rival,
        Kind::Late(|r| r.late(Method::RepeatLast)),
    ),
    arm(
        "g-one-fresh",
        "one block for most of the tokens, then fresh ones",
        Group::Rival,
        Kind::Late(|r| r.late(Method::FreshBlocks)),
    ),
    arm(
        "g-clone",
        "plain Transformer, wider by copies with noise that cancels",
        Group::Rival,
        grown(G, |r| r.wider(Method::Clone)),
    ),
    arm(
        "g-lemon",
        "plain Transformer, wider by copies with uneven shares",
        Group::Rival,
        grown(G, |r| r.wider(Method::Lemon)),
    ),
    arm(
        "g-szp",
        "plain Transformer, shrunk, padded and perturbed to a larger width",
        Group::Rival,
        grown(G, |r| r.wider(Method::ShrinkPad)),
    ),
    arm(
        "g-corner",
        "plain Transformer, old weights in a corner of fresh ones",
        Group::Rival,
        grown(G, |r| r.wider(Method::Corner)),
    ),
    ablation(
        "a-no-warmup",
        "new tokens learn at the full rate from the first update",
        |r| Growth {
            warmup: Some(0),
            ..r.segment()
        },
    ),
    ablation("a-full-rate", "new values learn at the usual rate", |r| {
        Growth {
            rate: Rate::Full,
            ..r.segment()
        }
    }),
    ablation("a-plain", "neither warm-up nor a lower rate", |r| Growth {
        warmup: Some(0),
        rate: Rate::Full,
        ..r.segment()
    }),
    ablation("a-old-slow", "old arrays learn at 0.3 of the rate", |r| {
        Growth {
            old_lr: 0.3,
            ..r.segment()
        }
    }),
    ablation("a-old-frozen", "old arrays stay as they are", |r| Growth {
        freeze_old: true,
        ..r.segment()
    }),
    ablation("a-reset", "moments start from zero at the growth", |r| {
        Growth {
            moments: Moments::Reset,
            ..r.segment()
        }
    }),
    ablation("a-ffn", "all new tokens in the feed-forward network", |r| {
        Growth {
            method: Some(Method::Segment),
            ffn: Amount::Add(r.added_tokens()),
            ..Growth::default()
        }
    }),
    ablation("a-attention", "all new tokens in attention", |r| Growth {
        method: Some(Method::Segment),
        qkv: Amount::Add(r.added_tokens() / 4),
        proj: Amount::Add(r.added_tokens() / 4),
        ..Growth::default()
    }),
    ablation(
        "a-blocks",
        "half of the parameters as tokens, half as blocks",
        |r| {
            // Twice as many blocks at half the size keep the sum the same.
            let half = r.after.div_ceil(2).max(r.before + 1);
            let [attention, ffn] = Rung::base_slots(r.width).map(|slots| slots * half);
            let more = (r.layers * r.after)
                .saturating_sub(r.layers * half)
                .div_ceil(half);
            Growth {
                method: Some(Method::Segment),
                qkv: Amount::To(attention),
                proj: Amount::To(attention),
                ffn: Amount::To(ffn),
                layers: more,
                at: Some(At::Middle),
                ..Growth::default()
            }
        },
    ),
    arm(
        "n-t-stay",
        "new text: TokenFormer without a growth",
        Group::Shift,
        Kind::Shift(T, None),
    ),
    arm(
        "n-t-seg",
        "new text: grown TokenFormer",
        Group::Shift,
        Kind::Shift(T, Some(Rung::segment)),
    ),
    arm(
        "n-t-frozen",
        "new text: grown TokenFormer, of which only new tokens learn",
        Group::Shift,
        Kind::Shift(
            T,
            Some(|r| Growth {
                freeze_old: true,
                ..r.segment()
            }),
        ),
    ),
    arm(
        "n-g-stay",
        "new text: plain Transformer without a growth",
        Group::Shift,
        Kind::Shift(G, None),
    ),
    arm(
        "n-g-ffn",
        "new text: plain Transformer with wider MLPs",
        Group::Shift,
        Kind::Shift(G, Some(Rung::hidden)),
    ),
    arm(
        "n-g-frozen",
        "new text: plain Transformer with wider MLPs, of which only the new part learns",
        Group::Shift,
        Kind::Shift(
            G,
            Some(|r| Growth {
                freeze_old: true,
                ..r.hidden()
            }),
        ),
    ),
    arm(
        "t-map",
        "TokenFormers grown once, as t-seg: early and late, by little and much, for short and long",
        Group::Map,
        Kind::Map,
    ),
];

/// Updates over which `t-zero-anneal` moves its tau.
const ANNEAL_STEPS: u64 = 200;

/// The arms of these names, in the order of [`ARMS`]; all without names.
///
/// # Errors
/// [`tokenformer_train::Error::Recipe`] for an unknown name.
pub fn named(names: &[String]) -> Result<Vec<Arm>> {
    let mut arms = crate::named::named(&ARMS, |arm| arm.name, names)?;
    arms.sort_by_key(|arm| ARMS.iter().position(|known| known.name == arm.name));
    Ok(arms)
}

/// Whether an arm of this name is a plain Transformer from scratch.
pub(crate) fn is_scratch(name: &str) -> bool {
    ARMS.iter()
        .any(|arm| arm.name == name && matches!(arm.kind, Kind::Scratch(_)))
}

/// The growth of an arm at a stage of the profile, as an event of a recipe.
pub(crate) fn event(profile: &Profile, stage: usize, growth: fn(&Rung) -> Growth) -> GrowEvent {
    let before = match stage {
        0 => 1,
        stage => profile.stages[stage - 1].factor,
    };
    event_between(profile, [before, profile.stages[stage].factor], growth)
}

/// A growth between two factors of the base's parameters, as an event of a recipe.
pub(crate) fn event_between(
    profile: &Profile,
    [before, after]: [usize; 2],
    growth: fn(&Rung) -> Growth,
) -> GrowEvent {
    let rung = Rung {
        width: profile.width,
        layers: profile.layers,
        before,
        after,
    };
    GrowEvent {
        growth: growth(&rung),
        ..GrowEvent::default()
    }
}
