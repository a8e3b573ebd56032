//! The ways to grow by name, and how each restricts the other settings.

use super::{Amount, At, Fill, Growth, Moments, NewBlocks, TauRule};
use crate::config::NormSpan;
use crate::error::{Result, config_error};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A way to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Tokens with a separate norm and `τ`: random keys, zero values. Exact.
    Segment,
    /// Tokens under one norm: zero keys, random values, `τ` pinned, annealed or tracked. Exact.
    ZeroKey,
    /// Tokens under one norm with `τ = √n`: random keys whose scores are as large as the old ones, zero values.
    RandomKeyZeroValue,
    /// The released code's way: fresh keys and values, `τ = √n`, all moments reset.
    Random,
    /// Hidden units of the MLPs: random `up`, zero `down`. Exact.
    Ffn,
    /// Blocks that add nothing at first. Exact.
    IdentityBlocks,
    /// Copies of the blocks, in order, after the last.
    Stack,
    /// Copies of blocks, each after the block that it copies.
    Interpose,
    /// Copies of the last block.
    RepeatLast,
    /// Blocks of fresh weights.
    FreshBlocks,
    /// A wider network of copies of the old one, whose weights differ by noise that cancels (HyperCloning). Exact up to
    /// rounding.
    Clone,
    /// A network of twice the width, whose copies share the old weights unevenly (LEMON). Exact up to rounding.
    Lemon,
    /// The old weights shrunk, in the corner of a wider network of noise.
    ShrinkPad,
    /// The old weights in the corner of a wider network of fresh ones.
    Corner,
}

/// The part of a model that a method grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grows {
    Tokens,
    Hidden,
    Blocks(NewBlocks),
    Width,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 14] = [
        Self::Segment,
        Self::ZeroKey,
        Self::RandomKeyZeroValue,
        Self::Random,
        Self::Ffn,
        Self::IdentityBlocks,
        Self::Stack,
        Self::Interpose,
        Self::RepeatLast,
        Self::FreshBlocks,
        Self::Clone,
        Self::Lemon,
        Self::ShrinkPad,
        Self::Corner,
    ];

    /// Its name in recipes and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Segment => "segment",
            Self::ZeroKey => "zero-key",
            Self::RandomKeyZeroValue => "random-key-zero-value",
            Self::Random => "random",
            Self::Ffn => "ffn",
            Self::IdentityBlocks => "identity-blocks",
            Self::Stack => "stack",
            Self::Interpose => "interpose",
            Self::RepeatLast => "repeat-last",
            Self::FreshBlocks => "fresh-blocks",
            Self::Clone => "clone",
            Self::Lemon => "lemon",
            Self::ShrinkPad => "shrink-pad",
            Self::Corner => "corner",
        }
    }

    pub(super) fn grows(self) -> Grows {
        match self {
            Self::Segment | Self::ZeroKey | Self::RandomKeyZeroValue | Self::Random => {
                Grows::Tokens
            }
            Self::Ffn => Grows::Hidden,
            Self::IdentityBlocks => Grows::Blocks(NewBlocks::Zero),
            Self::Stack => Grows::Blocks(NewBlocks::Copy),
            Self::Interpose => Grows::Blocks(NewBlocks::Interpose),
            Self::RepeatLast => Grows::Blocks(NewBlocks::Last),
            Self::FreshBlocks => Grows::Blocks(NewBlocks::Fresh),
            Self::Clone | Self::Lemon | Self::ShrinkPad | Self::Corner => Grows::Width,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|m| m.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            format!("\"{text}\" is none of {}", names.join(", "))
        })
    }
}

/// How tokens are added; missing settings follow from the norm of the site.
pub(super) struct TokenWays {
    pub norm: Option<NormSpan>,
    pub keys: Option<Fill>,
    pub values: Option<Fill>,
    pub tau: TauRule,
}

impl Growth {
    /// How tokens are added.
    pub(super) fn token_ways(&self) -> TokenWays {
        let ways = |norm, keys, values, tau| TokenWays {
            norm: Some(norm),
            keys: Some(keys),
            values: Some(values),
            tau,
        };
        let (joint, segment) = (NormSpan::Joint, NormSpan::Segment);
        match self.method {
            Some(Method::Segment) => ways(segment, Fill::Matched, Fill::Zero, TauRule::Pinned),
            Some(Method::ZeroKey) => ways(joint, Fill::Zero, Fill::Matched, self.tau),
            Some(Method::RandomKeyZeroValue) => {
                ways(joint, Fill::Scores, Fill::Zero, TauRule::SqrtN)
            }
            Some(Method::Random) => ways(joint, Fill::Random, Fill::Random, TauRule::SqrtN),
            _ => TokenWays {
                norm: self.norm,
                keys: self.keys,
                values: self.values,
                tau: self.tau,
            },
        }
    }

    /// What new blocks start from.
    pub(super) fn block_start(&self) -> NewBlocks {
        match self.method.map(Method::grows) {
            Some(Grows::Blocks(start)) => start,
            _ => self.blocks,
        }
    }

    /// Where new blocks stand.
    pub(super) fn place(&self) -> At {
        let usual = match (self.method, self.block_start()) {
            (_, NewBlocks::Interpose) => At::Even,
            (Some(Method::IdentityBlocks | Method::FreshBlocks), _) => At::Even,
            _ => At::End,
        };
        self.at.unwrap_or(usual)
    }

    /// Whether all moments start from zero again.
    pub fn resets_moments(&self) -> bool {
        self.moments == Moments::Reset || self.method == Some(Method::Random)
    }

    /// Returns an error for settings that the method does not have or that it fixes.
    pub(super) fn check_settings(&self) -> Result<()> {
        self.check_numbers()?;
        let grows = self.method.map(Method::grows);
        let is_blocks = matches!(grows, Some(Grows::Blocks(_)));
        let says_tokens = grows.is_some();
        let has_shrink = self.method == Some(Method::ShrinkPad);
        let has_noise = has_shrink || self.method == Some(Method::Clone);
        let of_width = grows == Some(Grows::Width);
        let has_amounts = !of_width && !is_blocks;
        let old_is_kept = !of_width;
        let settings = [
            ("keys", self.keys.is_some(), !says_tokens),
            ("values", self.values.is_some(), !says_tokens),
            ("norm", self.norm.is_some(), !says_tokens),
            (
                "tau",
                self.tau != TauRule::Pinned,
                !says_tokens || self.method == Some(Method::ZeroKey),
            ),
            (
                "qkv, query, key, value, proj, ffn, sites",
                self.has_amounts(),
                has_amounts,
            ),
            ("layers", self.layers > 0, !of_width),
            (
                "blocks",
                self.blocks != NewBlocks::default(),
                !of_width && !is_blocks,
            ),
            ("at", self.at.is_some(), self.takes_place()),
            ("width", self.width != Amount::default(), of_width),
            ("noise", self.noise.is_some(), has_noise),
            ("shrink", self.shrink.is_some(), has_shrink),
            ("freeze_old", self.freeze_old, old_is_kept),
            ("old_lr", self.old_lr != 1.0, old_is_kept),
        ];
        for (field, given, fits) in settings {
            if given && !fits {
                let method = match self.method {
                    Some(method) => format!("the method {method}"),
                    None => "a growth without a method".into(),
                };
                let expected = format!("nothing, with {method}");
                let help = "leave it out; docs/growth.md lists what each method reads";
                return Err(config_error(
                    format!("growth: {field}"),
                    expected,
                    "a value",
                    help,
                ));
            }
        }
        Ok(())
    }

    /// Whether `at` may choose where the new blocks are inserted.
    fn takes_place(&self) -> bool {
        let of_width = self.method.map(Method::grows) == Some(Grows::Width);
        !of_width && matches!(self.block_start(), NewBlocks::Zero | NewBlocks::Fresh)
    }

    fn has_amounts(&self) -> bool {
        let each = [self.query, self.key, self.value];
        let short = [self.qkv, self.proj, self.ffn];
        let any = short.iter().any(|amount| *amount != Amount::default());
        any || each.iter().any(Option::is_some) || !self.sites.is_empty()
    }

    fn check_numbers(&self) -> Result<()> {
        let numbers = [
            ("old_lr", Some(f64::from(self.old_lr)), 100.0),
            ("noise", self.noise, 100.0),
            ("shrink", self.shrink, 100.0),
        ];
        for (field, number, most) in numbers {
            if number.is_some_and(|x| !(0.0..=most).contains(&x)) {
                return Err(config_error(
                    format!("growth: {field}"),
                    format!("a number from 0 to {most}"),
                    number.unwrap_or_default(),
                    "is this the number you meant?",
                ));
            }
        }
        if self.method == Some(Method::Clone) && self.noise == Some(0.0) {
            return Err(config_error(
                "growth: noise",
                "a number above 0, with the method clone",
                0,
                "equal copies receive equal gradients and stay equal for ever; 0.316 is the usual noise",
            ));
        }
        Ok(())
    }
}
