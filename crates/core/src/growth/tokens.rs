//! Appending parameter tokens to Pattention sites.

use super::map::{GrowthMap, Promise};
use super::method::TokenWays;
use super::origin::Origin;
use super::{Amount, Birth, Fill, Growth, TauRule};
use crate::config::{
    Anneal, MAX_SIZE, NormSpan, ParamTraining, SegmentConfig, SiteConfig, SiteKind, Theta, Tracked,
    TrainingSettings,
};
use crate::error::{Result, config_error};
use crate::model::site_name;
use crate::path::{ParamPath, ParamRole, Place};

/// What settings of tokens can have an effect on.
#[derive(Clone, Copy, Default)]
pub(super) struct Gained {
    /// A site that gains tokens.
    tokens: bool,
    /// One that then has a joint norm.
    joint: bool,
}

/// Adds to `map` the new tokens of every site.
pub(super) fn append(map: &mut GrowthMap, growth: &Growth, birth: Birth) -> Result<Gained> {
    let ways = growth.token_ways();
    let mut gained = Gained::default();
    for b in 0..map.target.layers() {
        for kind in SiteKind::ALL {
            let name = site_name(b, kind);
            let Some(site) = map.target.blocks[b].site_mut(kind) else {
                continue;
            };
            let amount = growth.amount(b, kind);
            let Some(added) = added(site.tokens(), amount, kind)? else {
                continue;
            };
            let norm = check(site, &ways, &name)?;
            gained.tokens = true;
            gained.joint |= norm == NormSpan::Joint;
            if !preserves(&ways, site, norm) {
                map.promise = Promise::Nothing;
            }
            let old = site.segments.iter().map(|s| s.id).collect::<Vec<_>>();
            let id = site.next_id();
            let base = site.segments.first().map_or(added, |s| s.tokens);
            set_norm(site, norm, &name, &mut map.training);
            site.segments.push(SegmentConfig {
                id,
                tokens: added,
                tau: (added as f64).sqrt(),
                stage: birth.stage,
                born_step: birth.step,
            });
            set_tau(site, ways.tau, birth, &name, &mut map.training);
            let (keys, values) = fills(&ways, norm);
            for (role, fill) in [(ParamRole::Keys, keys), (ParamRole::Values, values)] {
                let path = |id| {
                    let block = b;
                    ParamPath::new(Place::Segment { block, kind, id }, role)
                };
                let names = old.iter().map(|id| path(*id).to_string());
                let (origin, factor) = match fill {
                    Fill::Zero => (Origin::Zero, growth.rate.of_added(base, added)),
                    Fill::Random => (Origin::Fresh, 1.0),
                    Fill::Matched => (
                        Origin::Matched {
                            of: names.collect(),
                        },
                        1.0,
                    ),
                    Fill::Scores => (Origin::Scores { block: b, kind }, 1.0),
                };
                let how = ParamTraining {
                    trainable: true,
                    lr_scale: factor * map.training.base.factor(&path(id), base),
                    old_lr: 1.0,
                    generation: birth.stage,
                    warmup: growth.warmup(),
                };
                map.add(&path(id), origin, how);
            }
        }
    }
    Ok(gained)
}

/// Returns an error for settings of tokens where no site gained any, and for a rule of `τ` where no grown site has a joint norm.
pub(super) fn check_effect(growth: &Growth, gained: Gained) -> Result<()> {
    let Gained { tokens, joint } = gained;
    let settings = [
        ("keys", growth.keys.is_some(), tokens),
        ("values", growth.values.is_some(), tokens),
        ("norm", growth.norm.is_some(), tokens),
        ("tau", growth.tau != TauRule::Pinned, joint),
    ];
    for (field, given, has_effect) in settings {
        if given && !has_effect {
            let (expected, help) = match tokens {
                true => (
                    "nothing, where no grown site has a joint norm",
                    "with a norm per segment each segment has its own tau: leave it out",
                ),
                false => (
                    "nothing, where no site gains parameter tokens",
                    "leave it out, or grow Pattention sites (--qkv, --proj, --ffn)",
                ),
            };
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

/// Tokens that a site gains, or hidden units an MLP; `None` for none.
pub(super) fn added(now: usize, amount: Amount, kind: SiteKind) -> Result<Option<usize>> {
    let added = match amount {
        Amount::Add(n) => Some(n),
        Amount::To(n) => n.checked_sub(now),
    };
    let (expected, help) = match added {
        Some(n) if n <= MAX_SIZE => return Ok((n > 0).then_some(n)),
        Some(_) => (
            format!("at most {MAX_SIZE} more tokens"),
            "is this the number you meant?",
        ),
        None => (
            format!("at least the {now} tokens that the site has"),
            "growing cannot take tokens away",
        ),
    };
    let field = format!("growth of {}", kind.name());
    Err(config_error(field, expected, amount, help))
}

/// Start of new keys and values.
fn fills(ways: &TokenWays, norm: NormSpan) -> (Fill, Fill) {
    let (keys, values) = match norm {
        NormSpan::Joint => (Fill::Zero, Fill::Random),
        NormSpan::Segment => (Fill::Random, Fill::Zero),
    };
    (ways.keys.unwrap_or(keys), ways.values.unwrap_or(values))
}

/// Whether the site keeps its function exactly.
fn preserves(ways: &TokenWays, site: &SiteConfig, norm: NormSpan) -> bool {
    let (keys, values) = fills(ways, norm);
    match norm {
        NormSpan::Joint => {
            keys == Fill::Zero && ways.tau != TauRule::SqrtN && site.theta.ignores_zero_scores()
        }
        NormSpan::Segment => values == Fill::Zero,
    }
}

/// The span of the norm that the grown site will have, if the growth is possible there.
fn check(site: &SiteConfig, ways: &TokenWays, name: &str) -> Result<NormSpan> {
    let norm = ways.norm.unwrap_or(site.norm);
    if norm != site.norm && site.segments.len() > 1 {
        let help = "a site of several segments keeps its norm: leave norm out";
        let (expected, got) = (format!("{:?}", site.norm), format!("{norm:?}"));
        let field = format!("growth of {name}: norm");
        return Err(config_error(field, expected, got, help));
    }
    match (fills(ways, norm), norm) {
        ((Fill::Zero, Fill::Zero), _) => Err(config_error(
            "growth: keys and values",
            "at least one of them random",
            "both zero",
            "tokens whose keys and values are all zero receive no gradient and never learn",
        )),
        ((Fill::Zero, _), NormSpan::Segment) => Err(config_error(
            "growth: keys",
            "random keys, with a norm per segment",
            "zero keys",
            "the scores of the new segment would all be zero and have no direction; use random keys \
             with zero values, or norm = joint",
        )),
        ((_, Fill::Scores), _) => Err(config_error(
            "growth: values",
            "zero, random or matched",
            "scores",
            "values have no scores; keys have",
        )),
        _ if norm == NormSpan::Joint && ways.tau == TauRule::Tracked && !follows(site.theta) => {
            let expected = "l2-norm-gelu, with tau = \"tracked\"";
            let help = "under another nonlinearity no tau keeps the weights of old tokens";
            let field = format!("growth of {name}: theta");
            Err(config_error(field, expected, site.theta, help))
        }
        _ => Ok(norm),
    }
}

/// Whether a `τ` can compensate for larger norms.
fn follows(theta: Theta) -> bool {
    theta == Theta::L2NormGelu
}

/// Changes the span of a norm. With one segment both spans are the same layer, if τ goes along.
fn set_norm(site: &mut SiteConfig, norm: NormSpan, name: &str, training: &mut TrainingSettings) {
    if norm == site.norm {
        return;
    }
    match norm {
        NormSpan::Segment => site.segments[0].tau = site.tau,
        NormSpan::Joint => site.tau = site.segments[0].tau,
    }
    site.norm = norm;
    training.anneals.remove(name);
}

/// Moves the τ of a joint norm, at once, over training steps, or with the scores.
fn set_tau(
    site: &mut SiteConfig,
    rule: TauRule,
    birth: Birth,
    name: &str,
    training: &mut TrainingSettings,
) {
    if site.norm != NormSpan::Joint {
        return;
    }
    // A `τ` that an earlier growth moves stops where it is: the tokens of that growth are old now, and its goal was the root
    // of fewer.
    training.tracked.remove(name);
    training.anneals.remove(name);
    let to = (site.tokens() as f64).sqrt();
    match rule {
        TauRule::Pinned => {}
        TauRule::SqrtN => site.tau = to,
        TauRule::Anneal(steps) => {
            let anneal = Anneal {
                from: site.tau,
                to,
                start_step: birth.step,
                steps,
            };
            training.anneals.insert(name.into(), anneal);
        }
        TauRule::Tracked => {
            let tracked = Tracked::new(site.tau, site.segments.len() - 1);
            training.tracked.insert(name.into(), tracked);
        }
    }
}
