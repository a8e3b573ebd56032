//! The numbers that arrays of a grown network start from.

use super::arrays::{self, Array};
use super::origin::Origin;
use super::{Birth, Probe};
use crate::config::{ModelConfig, SiteKind};
use crate::error::{Error, Result, config_error};
use crate::gradients::Gradients;
use crate::graph::Graph;
use crate::init;
use crate::model::{Model, site_name};
use crate::path::ParamPath;
use crate::scores::ScoreSums;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Values that are read from the present network before its arrays are removed.
pub(super) struct Numbers<'a> {
    target: &'a ModelConfig,
    birth: Birth,
    arrays: BTreeMap<String, Array>,
    /// Names of all existing arrays.
    names: BTreeSet<String>,
    /// Size of keys that give scores as large as those of a site, by the site's name.
    key_sizes: BTreeMap<String, f64>,
    /// Floating-point operations of measuring them.
    pub flops: u64,
}

impl<'a> Numbers<'a> {
    /// Reads what `origins` of arrays of the grown network `target` need.
    pub fn read(
        origins: &BTreeMap<String, Origin>,
        target: &'a ModelConfig,
        model: &Model,
        birth: Birth,
        probe: Probe<'_>,
    ) -> Result<Self> {
        let sources = origins.values().flat_map(Origin::sources);
        let sources: BTreeSet<&str> = sources.map(String::as_str).collect();
        let mut arrays = BTreeMap::new();
        for param in model.each_param().filter(|p| sources.contains(p.name())) {
            let mut numbers = init::constant_array(param.len(), 0.0)?;
            model.device().read(param.value(), &mut numbers)?;
            let shape = param.shape().to_vec();
            arrays.insert(param.name().to_string(), Array { shape, numbers });
        }
        let is_scores = |origin: &Origin| matches!(origin, Origin::Scores { .. });
        let (key_sizes, flops) = match origins.values().any(is_scores) {
            true => key_sizes(model, probe)?,
            false => Default::default(),
        };
        Ok(Self {
            target,
            birth,
            arrays,
            names: model.each_param().map(|p| p.name().to_string()).collect(),
            key_sizes,
            flops,
        })
    }

    /// The numbers of an array.
    pub fn of(&self, origin: &Origin, path: &ParamPath, shape: &[usize]) -> Result<Vec<f32>> {
        let (len, seed) = (shape.iter().product(), self.birth.seed);
        let name = path.to_string();
        // An array of this name already used the random numbers of that name.
        let stream = format!("{name} of stage {}", self.birth.stage);
        match origin {
            Origin::Zero => init::constant_array(len, 0.0),
            Origin::Fresh | Origin::Kept { .. } => {
                let known = self.names.contains(&name);
                let stream = if known { &stream } else { &name };
                init::fresh_from(self.target, seed, stream, path, shape)
            }
            Origin::Matched { of } => {
                let arrays = of.iter().filter_map(|name| self.arrays.get(name));
                let (energy, count) = arrays.fold((0.0, 0), |(energy, count), array| {
                    (energy + array.energy(), count + array.numbers.len())
                });
                let size = (energy / count.max(1) as f64).sqrt();
                init::normal_array(seed, &stream, len, not_zero(size, &name)?)
            }
            Origin::Scores { block, kind } => {
                let size = self.key_sizes.get(&site_name(*block, *kind)).copied();
                let size = not_zero(size.unwrap_or_default(), &name)?;
                init::normal_array(seed, &stream, len, size)
            }
            Origin::Copy { of } => Ok(self.array(of, shape)?.numbers.clone()),
            Origin::Repeat { of, factor } => {
                arrays::repeated(self.array(of, shape)?, *factor, shape)
            }
            Origin::Split { of, rule } => {
                arrays::split(self.array(of, shape)?, *rule, shape, seed, &stream)
            }
            Origin::Corner { of, shrink, noise } => {
                let mut numbers = match noise {
                    Some(noise) => init::normal_array(seed, &stream, len, *noise)?,
                    None => init::fresh_from(self.target, seed, &stream, path, shape)?,
                };
                let old = self.array(of, shape)?;
                arrays::put_in_corner(old, *shrink, noise.is_some(), &mut numbers, shape);
                Ok(numbers)
            }
        }
    }

    fn array(&self, name: &str, shape: &[usize]) -> Result<&Array> {
        self.arrays.get(name).ok_or_else(|| Error::Tensor {
            name: name.into(),
            reason: "a growth starts from it, and it is not there".into(),
            expected: shape.into(),
        })
    }
}

/// If all numbers are zero, they have no scale to copy.
fn not_zero(size: f64, name: &str) -> Result<f64> {
    if size > 0.0 && size.is_finite() {
        return Ok(size);
    }
    let help = "train before the growth, or choose keys and values = \"random\" without a method";
    let expected = "old numbers of some size, which the new ones take";
    Err(config_error(
        format!("growth of {name}"),
        expected,
        size,
        help,
    ))
}

/// For each site, the size of normal keys whose scores have the root mean square of those that the site has on the probe
/// tokens; and the floating-point operations of measuring it.
fn key_sizes(model: &Model, probe: Probe<'_>) -> Result<(BTreeMap<String, f64>, u64)> {
    let device = Arc::clone(model.device());
    let mut gradients = Gradients::zeros(&device, [])?;
    gradients.scores = ScoreSums::of_all();
    let mut g = Graph::training(&device, &mut gradients);
    probe.features(model, &mut g)?;
    let passed = g.flops();
    drop(g);
    let flops = passed + gradients.flops();
    let mut sizes = BTreeMap::new();
    for (b, block) in model.blocks().iter().enumerate() {
        for kind in SiteKind::ALL {
            let Some(site) = block.site(kind) else {
                continue;
            };
            if let Some(measured) = gradients.scores.of(site, &*device)? {
                // A normal key of size k has the mean squared score k²·‖x‖².
                let scores = measured.segments.iter().sum::<f64>() / site.tokens() as f64;
                sizes.insert(site_name(b, kind), (scores / measured.input).sqrt());
            }
        }
    }
    Ok((sizes, flops))
}
