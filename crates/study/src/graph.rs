//! A graph of runs in which a run may continue another one.
//!
//! A [`Node`] is a part of a training: from scratch or from the last checkpoint of its parent, possibly with a growth
//! at its beginning, at a constant learning rate or with a decay to 0. Its key is a hash of everything that determines
//! its bytes, including the parent's key, so that a finished node is never run again, and arms with a common part share
//! that run.

use crate::result::FORMAT;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokenformer_core::ModelConfig;
use tokenformer_core::config::BaseSizes;
use tokenformer_train::recipe::{GrowEvent, ModelTable};
use tokenformer_train::{Error, Result};

use crate::shapes::Shapes;

/// Must be increased when a change of the code changes the results of equal settings by more than rounding; earlier
/// results are then not used. Other last bits of a kernel scatter a result less than another seed does.
const NUMERICS: u32 = 1;

/// What all runs of a study have in common.
#[derive(Clone, Debug, Serialize)]
pub struct Common {
    /// Hash of the training text, the held-out text and the tokenizer.
    pub corpus: String,
    /// Windows per update.
    pub batch: usize,
    /// Positions of a window.
    pub context: usize,
    /// Updates of linear warm-up.
    pub warmup_steps: u64,
    /// Updates between two evaluations, and the held-out tokens of each.
    pub eval: (u64, usize),
}

/// A model to train from scratch.
#[derive(Clone, Debug)]
pub struct Root {
    /// The initial model, with the vocabulary of the tokenizer.
    pub model: ModelTable,
    /// Sizes of the base, at which the schedule's rate was found.
    pub base: BaseSizes,
}

/// The text that a node is trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnText {
    /// The study's.
    #[default]
    First,
    /// One of another kind, that a trained model learns.
    Second,
}

/// The learning rate schedule of a node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Rate {
    /// Constant, after the warm-up of a run from scratch.
    Flat(f64),
    /// Decays from this rate to 0, as 1 minus the square root of the finished share.
    Decay(f64),
    /// Constant, then a decay to 0 over this number of updates at the end.
    Whole(f64, u64),
    /// The schedule of its growth.
    Own,
}

impl Rate {
    /// The highest rate, unless it is that of the growth.
    pub fn peak(self) -> Option<f64> {
        match self {
            Self::Flat(lr) | Self::Decay(lr) | Self::Whole(lr, _) => Some(lr),
            Self::Own => None,
        }
    }

    /// Whether it has decayed at the end.
    pub fn decays(self) -> bool {
        !matches!(self, Self::Flat(_))
    }
}

/// A part of a training.
#[derive(Clone, Debug)]
pub struct Node {
    /// Hash of everything that determines it.
    pub key: String,
    /// A description, which is also used in the name of its folder.
    pub label: String,
    /// Seed of weights and order of the text.
    pub seed: u64,
    /// Number of the node whose last checkpoint it begins with.
    pub parent: Option<usize>,
    /// Updates done when it begins.
    pub from_step: u64,
    /// Updates done at its end.
    pub to_step: u64,
    /// Its learning rate.
    pub rate: Rate,
    /// The model of its first ancestor.
    pub root: Arc<Root>,
    /// All growths up to its end, its own last.
    pub growths: Vec<GrowEvent>,
    /// Whether it begins with the last of them.
    pub grows: bool,
    /// Which text it is trained on.
    pub text: OnText,
    /// The network.
    pub config: Arc<ModelConfig>,
    /// Floating-point operations of an update; what is frozen has no gradients.
    pub flops_per_step: f64,
    /// Floating-point operations since the first update of its first ancestor.
    pub flops: f64,
}

impl Node {
    /// Number of its updates.
    pub fn steps(&self) -> u64 {
        self.to_step - self.from_step
    }

    /// Its highest learning rate.
    pub fn peak_rate(&self) -> f64 {
        let own = || Some(self.growths.last()?.schedule.as_ref()?.lr);
        self.rate.peak().or_else(own).unwrap_or_default()
    }

    /// Name of its folder.
    pub fn folder(&self) -> String {
        let plain = |c: char| match c.is_ascii_alphanumeric() || c == '.' {
            true => c,
            false => '-',
        };
        let label: String = self.label.chars().map(plain).collect();
        format!("{label}-{}", &self.key[..12])
    }
}

/// The specification of a new node.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// A description.
    pub label: String,
    /// Updates done at its end.
    pub to_step: u64,
    /// Its learning rate.
    pub rate: Rate,
    /// A growth at its beginning; its `at_step` is set here.
    pub growth: Option<GrowEvent>,
    /// The text; a node on the second one has no descendants on the first.
    pub text: OnText,
}

/// Unique nodes, parents before children.
#[derive(Debug)]
pub struct Graph {
    common: Common,
    /// Hash of the second text, if there is one.
    second: Option<String>,
    nodes: Vec<Node>,
    by_key: BTreeMap<String, usize>,
}

impl Graph {
    /// An empty graph.
    pub fn new(common: Common, second: Option<String>) -> Self {
        Self {
            common,
            second,
            nodes: Vec::new(),
            by_key: BTreeMap::new(),
        }
    }

    /// What all runs have in common.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// All nodes, parents before children.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// A node and its ancestors, itself first.
    pub fn path(&self, index: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(index), |&at| self.nodes[at].parent)
    }

    /// Adds a run from scratch; if it exists, returns it.
    ///
    /// # Errors
    /// If the model is impossible.
    pub fn root(
        &mut self,
        shapes: &mut Shapes,
        root: &Arc<Root>,
        seed: u64,
        stretch: Stretch,
    ) -> Result<usize> {
        self.add(shapes, Arc::clone(root), seed, None, stretch)
    }

    /// Adds a run that begins with the last checkpoint of `parent`; if it exists, returns it.
    ///
    /// # Errors
    /// If the growth is impossible.
    pub fn child(&mut self, shapes: &mut Shapes, parent: usize, stretch: Stretch) -> Result<usize> {
        let Node { root, seed, .. } = &self.nodes[parent];
        let (root, seed) = (Arc::clone(root), *seed);
        self.add(shapes, root, seed, Some(parent), stretch)
    }

    fn add(
        &mut self,
        shapes: &mut Shapes,
        root: Arc<Root>,
        seed: u64,
        parent: Option<usize>,
        stretch: Stretch,
    ) -> Result<usize> {
        let before = parent.map(|parent| &self.nodes[parent]);
        let from_step = before.map_or(0, |node| node.to_step);
        if stretch.to_step <= from_step {
            return Err(Error::Recipe {
                place: stretch.label,
                problem: "a run without updates".into(),
                expected: format!("an end after update {from_step}"),
                got: stretch.to_step.to_string(),
                help: "the profile's numbers do not fit together".into(),
            });
        }
        let mut growths = before.map_or_else(Vec::new, |node| node.growths.clone());
        let grows = stretch.growth.is_some();
        growths.extend(stretch.growth.map(|event| GrowEvent {
            at_step: from_step,
            ..event
        }));
        let key = key(&Material {
            format: FORMAT,
            numerics: NUMERICS,
            common: &self.common,
            parent: before.map(|node| &*node.key),
            model: changed(&root.model, &ModelTable::from_preset("nano")?),
            base: changed(&root.base, &BaseSizes::default()),
            seed,
            steps: (from_step, stretch.to_step),
            rate: stretch.rate,
            second: match stretch.text {
                OnText::First => None,
                OnText::Second => Some(self.second.as_deref().unwrap_or_default()),
            },
            growth: grows.then(|| {
                changed(
                    growths.last().unwrap_or(&GrowEvent::default()),
                    &GrowEvent::default(),
                )
            }),
        });
        if let Some(&index) = self.by_key.get(&key) {
            return Ok(index);
        }
        let shape = shapes.of(&root.model, &growths)?;
        let tokens = (self.common.batch * self.common.context) as f64;
        let flops_per_step = tokens * shape.train_flops_per_token(self.common.context);
        let own = flops_per_step * (stretch.to_step - from_step) as f64;
        let node = Node {
            flops: before.map_or(0.0, |node| node.flops) + own,
            key: key.clone(),
            label: stretch.label,
            seed,
            parent,
            from_step,
            to_step: stretch.to_step,
            rate: stretch.rate,
            root,
            growths,
            grows,
            text: stretch.text,
            config: Arc::clone(&shape.config),
            flops_per_step,
        };
        self.nodes.push(node);
        let index = self.nodes.len() - 1;
        self.by_key.insert(key, index);
        Ok(index)
    }
}

/// Everything that determines the bytes of a run and its measurements.
#[derive(Serialize)]
struct Material<'a> {
    format: u32,
    numerics: u32,
    common: &'a Common,
    parent: Option<&'a str>,
    model: Value,
    base: Value,
    seed: u64,
    steps: (u64, u64),
    rate: Rate,
    growth: Option<Value>,
    /// Not part of the key of a run on the first text.
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<&'a str>,
}

fn key(material: &Material<'_>) -> String {
    // This is plain data with string keys.
    let text = serde_json::to_vec(material).expect("a run is plain data with string keys");
    blake3::hash(&text).to_hex()[..40].to_string()
}

/// The entries of a table that are not its defaults, so that a setting that is added later, and left at its default,
/// changes no key.
fn changed<T: Serialize>(value: &T, default: &T) -> Value {
    // Settings are plain data with string keys.
    let table = |value: &T| serde_json::to_value(value).expect("plain data with string keys");
    let (Value::Object(value), Value::Object(default)) = (table(value), table(default)) else {
        return table(value);
    };
    let differs = |(key, value): &(String, Value)| default.get(key) != Some(value);
    Value::Object(value.into_iter().filter(differs).collect())
}
