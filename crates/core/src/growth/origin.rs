//! What arrays of a grown network start from, and the numbers that this gives.

use super::map::GrowthMap;
use super::{Birth, Probe, width};
use crate::config::{ModelConfig, SiteKind};
use crate::error::{Error, Result, config_error};
use crate::gradients::Gradients;
use crate::graph::Graph;
use crate::init;
use crate::model::{Model, site_name};
use crate::param::ParamPath;
use crate::scores::ScoreSums;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an array starts from. The moments of all but those that stay start from zero, and their updates are counted from
/// their birth. Names are those of the present network.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// An array of the present network, which stays where it is, with its moments, under another name.
    Kept {
        /// Its present name.
        of: String,
    },
    /// Zeros.
    Zero,
    /// Fresh numbers, as in a fresh model of the new configuration.
    Fresh,
    /// Normal numbers with the root mean square of arrays that exist.
    Matched {
        /// Their names.
        of: Vec<String>,
    },
    /// Normal numbers that give scores as large as those of a site.
    Scores {
        /// Number of its block.
        block: usize,
        /// Which layer of it.
        kind: SiteKind,
    },
    /// The numbers of an array of the same shape.
    Copy {
        /// Its name.
        of: String,
    },
    /// Rows that are repeated to the new width, times a factor.
    Repeat {
        /// Name of the array.
        of: String,
        /// The factor.
        factor: f64,
    },
    /// Copies of a matrix side by side, as many in a row and in a column as the new shape has room for. Those in a row
    /// add up to the old matrix, so that equal copies of an input give what the input gave.
    Split {
        /// Name of the matrix.
        of: String,
        /// How they share it.
        rule: Split,
    },
    /// The old array in the top left corner.
    Corner {
        /// Its name.
        of: String,
        /// Factor of its numbers.
        shrink: f64,
        /// Normal noise of this size in the whole array; without it, the rest is fresh.
        noise: Option<f64>,
    },
}

/// How copies of a matrix share its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Split {
    /// Evenly, and each with noise that cancels within a row, of this size relative to the numbers' root mean square.
    Noisy(f64),
    /// Two copies have the shares `a` and `1 − a`, with another `a` from `U(1/4, 3/4)` for each number.
    Uneven,
}

impl Origin {
    /// Names of the arrays whose numbers are needed.
    fn sources(&self) -> &[String] {
        match self {
            Self::Kept { .. } | Self::Zero | Self::Fresh | Self::Scores { .. } => &[],
            Self::Matched { of } => of,
            Self::Copy { of }
            | Self::Repeat { of, .. }
            | Self::Split { of, .. }
            | Self::Corner { of, .. } => std::slice::from_ref(of),
        }
    }
}

/// An array on the host.
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub numbers: Vec<f32>,
}

impl Array {
    /// Sum of the squares.
    fn energy(&self) -> f64 {
        self.numbers.iter().map(|x| f64::from(*x).powi(2)).sum()
    }

    /// Root mean square.
    pub fn rms(&self) -> f64 {
        (self.energy() / self.numbers.len().max(1) as f64).sqrt()
    }
}

/// What is read of the present network before its arrays are taken away.
pub(super) struct Numbers<'a> {
    target: &'a ModelConfig,
    birth: Birth,
    arrays: BTreeMap<String, Array>,
    /// Names of all arrays that there are.
    names: BTreeSet<String>,
    /// Size of keys that give scores as large as those of a site, by the site's name.
    key_sizes: BTreeMap<String, f64>,
    /// Floating-point operations of measuring them.
    pub flops: u64,
}

impl<'a> Numbers<'a> {
    pub fn read(map: &'a GrowthMap, model: &Model, birth: Birth, probe: Probe<'_>) -> Result<Self> {
        let sources = map.origins.values().flat_map(Origin::sources);
        let sources: BTreeSet<&str> = sources.map(String::as_str).collect();
        let mut arrays = BTreeMap::new();
        for param in model.each_param().filter(|p| sources.contains(p.name())) {
            let mut numbers = init::constant_array(param.len(), 0.0)?;
            model.device().read(param.value(), &mut numbers)?;
            let shape = param.shape().to_vec();
            arrays.insert(param.name().to_string(), Array { shape, numbers });
        }
        let is_scores = |origin: &Origin| matches!(origin, Origin::Scores { .. });
        let (key_sizes, flops) = match map.origins.values().any(is_scores) {
            true => key_sizes(model, probe)?,
            false => Default::default(),
        };
        Ok(Self {
            target: &map.target,
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
        // An array of this name has had its numbers from the stream of that name.
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
                width::repeated(self.array(of, shape)?, *factor, shape)
            }
            Origin::Split { of, rule } => {
                width::split(self.array(of, shape)?, *rule, shape, seed, &stream)
            }
            Origin::Corner { of, shrink, noise } => {
                let mut numbers = match noise {
                    Some(noise) => init::normal_array(seed, &stream, len, *noise)?,
                    None => init::fresh_from(self.target, seed, &stream, path, shape)?,
                };
                let old = self.array(of, shape)?;
                width::put_in_corner(old, *shrink, noise.is_some(), &mut numbers, shape);
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

/// Numbers that are all zero give no size to follow.
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
    let flops = g.flops();
    drop(g);
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
