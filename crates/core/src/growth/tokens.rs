//! Appending parameter tokens to Pattention sites.

use super::map::{GrowthMap, Origin, Promise};
use super::{Amount, Birth, Fill, Growth, Rate, TauRule};
use crate::config::{
    Anneal, LayerConfig, MAX_SIZE, NormSpan, ParamTraining, SegmentConfig, SiteConfig, SiteKind,
};
use crate::error::{Result, config_error};
use crate::model::site_name;

/// Adds to `map` the new tokens of every site.
pub(super) fn append(map: &mut GrowthMap, growth: &Growth, birth: Birth) -> Result<()> {
    for (b, block) in map.target.blocks.iter_mut().enumerate() {
        for kind in SiteKind::ALL {
            let name = site_name(b, kind);
            let Some(added) = new_tokens(block.layer(kind), growth.amount(kind), kind)? else {
                continue;
            };
            let Some(site) = block.site_mut(kind) else {
                continue;
            };
            let norm = check(site, growth, &name)?;
            if !preserves(growth, site, norm) {
                map.promise = Promise::Nothing;
            }
            let id = site.next_id();
            let base = site.segments.first().map_or(added, |s| s.tokens);
            set_norm(site, norm, &name, &mut map.training.anneals);
            site.segments.push(SegmentConfig {
                id,
                tokens: added,
                tau: (added as f64).sqrt(),
                stage: birth.stage,
                born_step: birth.step,
            });
            set_tau(site, growth, birth, &name, &mut map.training.anneals);
            let (keys, values) = fills(growth, norm);
            for (part, fill) in [("keys", keys), ("values", values)] {
                let array = format!("{name}.segments.{id}.{part}");
                let (origin, lr_scale) = match fill {
                    Fill::Zero => (Origin::Zero, rate(growth.rate, base, added)),
                    Fill::Random => (Origin::Fresh, 1.0),
                };
                let how = ParamTraining {
                    trainable: true,
                    lr_scale,
                    generation: birth.stage,
                    warmup: growth.warmup(),
                };
                map.training.params.insert(array.clone(), how);
                map.origins.insert(array, origin);
            }
        }
    }
    Ok(())
}

/// Factor of the learning rate of `added` rows that start from zero, in a site whose first tokens were `base`.
fn rate(rate: Rate, base: usize, added: usize) -> f32 {
    match rate {
        Rate::Slots => (base as f32 / added as f32).min(1.0),
        Rate::Full => 1.0,
    }
}

/// Tokens that a layer gains; `None` for none.
fn new_tokens(layer: &LayerConfig, amount: Amount, kind: SiteKind) -> Result<Option<usize>> {
    let field = format!("growth of {}", kind.name());
    let Some(site) = layer.site() else {
        if amount == Amount::Add(0) {
            return Ok(None);
        }
        let help = "a plain Transformer has no parameter tokens; it grows by layers";
        return Err(config_error(
            field,
            "a Pattention site",
            "a linear layer",
            help,
        ));
    };
    let now = site.tokens();
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
    Err(config_error(field, expected, amount, help))
}

/// Start of new keys and values.
fn fills(growth: &Growth, norm: NormSpan) -> (Fill, Fill) {
    let (keys, values) = match norm {
        NormSpan::Joint => (Fill::Zero, Fill::Random),
        NormSpan::Segment => (Fill::Random, Fill::Zero),
    };
    (growth.keys.unwrap_or(keys), growth.values.unwrap_or(values))
}

/// Whether the site keeps its function exactly.
fn preserves(growth: &Growth, site: &SiteConfig, norm: NormSpan) -> bool {
    let (keys, values) = fills(growth, norm);
    match norm {
        NormSpan::Joint => {
            keys == Fill::Zero && growth.tau != TauRule::SqrtN && site.theta.ignores_zero_scores()
        }
        NormSpan::Segment => values == Fill::Zero,
    }
}

/// The span of the norm that the grown site will have, if the growth is possible there.
fn check(site: &SiteConfig, growth: &Growth, name: &str) -> Result<NormSpan> {
    let norm = growth.norm.unwrap_or(site.norm);
    if norm != site.norm && site.segments.len() > 1 {
        let help = "a site of several segments keeps its norm: leave norm out";
        let (expected, got) = (format!("{:?}", site.norm), format!("{norm:?}"));
        let field = format!("growth of {name}: norm");
        return Err(config_error(field, expected, got, help));
    }
    match (fills(growth, norm), norm) {
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
        _ => Ok(norm),
    }
}

type Anneals = std::collections::BTreeMap<String, Anneal>;

/// Changes the span of a norm. With one segment both spans are the same layer, if τ goes along.
fn set_norm(site: &mut SiteConfig, norm: NormSpan, name: &str, anneals: &mut Anneals) {
    if norm == site.norm {
        return;
    }
    match norm {
        NormSpan::Segment => site.segments[0].tau = site.tau,
        NormSpan::Joint => site.tau = site.segments[0].tau,
    }
    site.norm = norm;
    anneals.remove(name);
}

/// Moves the τ of a joint norm, at once or over training steps.
fn set_tau(
    site: &mut SiteConfig,
    growth: &Growth,
    birth: Birth,
    name: &str,
    anneals: &mut Anneals,
) {
    if site.norm != NormSpan::Joint {
        return;
    }
    let to = (site.tokens() as f64).sqrt();
    match growth.tau {
        TauRule::Pinned => {}
        TauRule::SqrtN => {
            site.tau = to;
            anneals.remove(name);
        }
        TauRule::Anneal(steps) => {
            let anneal = Anneal {
                from: site.tau,
                to,
                start_step: birth.step,
                steps,
            };
            anneals.insert(name.into(), anneal);
        }
    }
}
