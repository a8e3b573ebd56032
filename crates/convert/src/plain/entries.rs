//! Which arrays of a model make up which tensor of a layout. One description serves both directions.

use tokenformer_core::config::{HeadKind, LayerConfig, NormKind};
use tokenformer_core::model::site_name;
use tokenformer_core::{ModelConfig, SiteKind};

use super::Layout;
use crate::source::Source;
use crate::source::{Made, Part};

/// Names of an untied output head in files of several versions of the library.
const HEADS: [&str; 2] = ["embed_out.weight", "lm_head.weight"];

/// An array of a model, or the constant that replaces it where the model has none.
#[derive(Clone, Debug)]
enum Ours {
    Array(String),
    Constant(f32),
}

/// One tensor of a layout.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its name.
    pub(super) theirs: String,
    /// Arrays of equal shape whose rows it consists of.
    ours: Vec<Ours>,
    /// Rows of each array; elements of a vector.
    rows: usize,
    /// Elements of a row; `None` for vectors.
    cols: Option<usize>,
    /// Number of groups. Each group has some rows of the first array, then some of the second and so on.
    groups: usize,
    /// Whether the layout stores the transposed matrix.
    transposed: bool,
}

impl Entry {
    pub(super) fn is_head(&self) -> bool {
        HEADS.contains(&&*self.theirs)
    }

    fn own_shape(&self) -> Vec<usize> {
        std::iter::once(self.rows).chain(self.cols).collect()
    }

    /// The tensor's shape.
    pub(super) fn shape(&self) -> Vec<usize> {
        let rows = self.rows * self.ours.len();
        let mut shape: Vec<usize> = std::iter::once(rows).chain(self.cols).collect();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// The constant that fills the tensor if the model has none of its arrays.
    pub(super) fn constant(&self) -> Option<f32> {
        match self.ours.first() {
            Some(&Ours::Constant(value)) => Some(value),
            _ => None,
        }
    }

    /// Names and shapes of the model's arrays.
    pub(super) fn own_arrays(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        self.ours.iter().filter_map(|own| match own {
            Ours::Array(name) => Some((&**name, self.own_shape())),
            Ours::Constant(_) => None,
        })
    }

    /// How to make the layout's tensor from the model's arrays.
    pub(super) fn export(&self) -> Made {
        let rows = self.rows / self.groups;
        let group = |g: usize| {
            self.ours.iter().map(move |own| match own {
                Ours::Array(name) => Part::Rows {
                    of: name.clone(),
                    transposed: false,
                    rows: g * rows..(g + 1) * rows,
                },
                &Ours::Constant(value) => Part::Constant {
                    value,
                    numbers: rows * self.cols.unwrap_or(1),
                },
            })
        };
        Made {
            name: self.theirs.clone(),
            shape: self.shape(),
            parts: (0..self.groups).flat_map(group).collect(),
            transposed: self.transposed,
        }
    }

    /// How to make the model's arrays from the layout's tensor.
    pub(super) fn import(&self) -> impl Iterator<Item = Made> {
        let (rows, arrays) = (self.rows / self.groups, self.ours.len());
        self.ours.iter().enumerate().filter_map(move |(i, own)| {
            let Ours::Array(name) = own else {
                return None;
            };
            let part = |g: usize| Part::Rows {
                of: self.theirs.clone(),
                transposed: self.transposed,
                rows: (g * arrays + i) * rows..(g * arrays + i + 1) * rows,
            };
            Some(Made {
                name: name.clone(),
                shape: self.own_shape(),
                parts: (0..self.groups).map(part).collect(),
                transposed: false,
            })
        })
    }
}

impl Layout {
    /// The prefix of names in a complete model.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Neox => "gpt_neox.",
            Self::Gpt2 => "transformer.",
        }
    }
}

/// The prefix of the names in a file, without the parts that wrappers add: a model that was saved without its head has
/// no prefix.
pub(super) fn prefix_of(layout: Layout, source: &Source) -> &'static str {
    let prefix = layout.prefix();
    let part = prefix.trim_end_matches('.');
    match (source.names()).any(|name| name.split('.').any(|found| found == part)) {
        true => prefix,
        false => "",
    }
}

/// Tensors of the file with the name of an output head.
pub(super) fn heads_of_file(source: &Source) -> Vec<String> {
    let heads = HEADS
        .into_iter()
        .filter(|name| source.shape(name).is_some());
    heads.map(String::from).collect()
}

/// The tensors of a model in a layout, in its order: embedding first.
pub(super) fn entries(layout: Layout, config: &ModelConfig, prefix: &str) -> Vec<Entry> {
    let mut list = List {
        layout,
        config,
        prefix: prefix.into(),
        entries: Vec::new(),
    };
    let table = config.vocab;
    match layout {
        Layout::Neox => list.table("embed_in.weight", "embedding", table),
        Layout::Gpt2 => {
            list.table("wte.weight", "embedding", table);
            list.table("wpe.weight", "positions", config.context);
        }
    }
    for b in 0..config.layers() {
        list.block(b);
    }
    let last = match layout {
        Layout::Neox => "final_layer_norm",
        Layout::Gpt2 => "ln_f",
    };
    list.norm(last, "final_norm", config.final_norm);
    if config.head == HeadKind::Untied {
        list.prefix.clear();
        let name = match layout {
            // Old and new versions of the library read this name.
            Layout::Neox => HEADS[0],
            Layout::Gpt2 => HEADS[1],
        };
        list.table(name, "head", table);
    }
    list.entries
}

struct List<'a> {
    layout: Layout,
    config: &'a ModelConfig,
    prefix: String,
    entries: Vec<Entry>,
}

impl List<'_> {
    fn push(&mut self, theirs: &str, ours: Vec<Ours>, rows: usize, cols: Option<usize>) {
        self.entries.push(Entry {
            theirs: format!("{}{theirs}", self.prefix),
            ours,
            rows,
            cols,
            groups: 1,
            transposed: false,
        });
    }

    fn table(&mut self, theirs: &str, ours: &str, rows: usize) {
        let width = self.config.width;
        self.push(theirs, vec![Ours::Array(ours.into())], rows, Some(width));
    }

    fn norm(&mut self, theirs: &str, ours: &str, kind: NormKind) {
        for (their_part, part, nothing) in [("weight", "gain", 1.0), ("bias", "bias", 0.0)] {
            let own = match kind {
                NormKind::Affine => Ours::Array(format!("{ours}.{part}")),
                NormKind::Plain => Ours::Constant(nothing),
            };
            let width = self.config.width;
            self.push(&format!("{theirs}.{their_part}"), vec![own], width, None);
        }
    }

    /// Linear layers `ours`, each with a flag for its bias, as one linear layer of the layout, in `groups`.
    fn linear(
        &mut self,
        theirs: &str,
        ours: &[(String, bool)],
        [outputs, inputs]: [usize; 2],
        groups: usize,
    ) {
        let weights = ours
            .iter()
            .map(|(name, _)| Ours::Array(format!("{name}.weight")));
        let biases = ours.iter().map(|(name, bias)| match bias {
            true => Ours::Array(format!("{name}.bias")),
            false => Ours::Constant(0.0),
        });
        let (weights, biases) = (weights.collect(), biases.collect());
        self.push(&format!("{theirs}.weight"), weights, outputs, Some(inputs));
        self.push(&format!("{theirs}.bias"), biases, outputs, None);
        for entry in self.entries.iter_mut().rev().take(2) {
            entry.groups = groups;
            entry.transposed = self.layout == Layout::Gpt2 && entry.cols.is_some();
        }
    }

    fn block(&mut self, b: usize) {
        let d = self.config.width;
        let own = |kind: SiteKind| site_name(b, kind);
        let has_bias = |kind: SiteKind| match self.config.blocks[b].layer(kind) {
            LayerConfig::Linear { bias } | LayerConfig::Mlp { bias, .. } => *bias,
            LayerConfig::Pattention(_) => false,
        };
        let of = |kind| (own(kind), has_bias(kind));
        let qkv = [SiteKind::Query, SiteKind::Key, SiteKind::Value].map(of);
        let proj = [of(SiteKind::Proj)];
        let bias = has_bias(SiteKind::Ffn);
        let [up, down] =
            ["up", "down"].map(|part| [(format!("{}.{part}", own(SiteKind::Ffn)), bias)]);
        let hidden = self.config.blocks[b].layer(SiteKind::Ffn).hidden();
        let names = match self.layout {
            Layout::Neox => [
                "layers",
                "input_layernorm",
                "attention.query_key_value",
                "attention.dense",
                "post_attention_layernorm",
                "mlp.dense_h_to_4h",
                "mlp.dense_4h_to_h",
            ],
            Layout::Gpt2 => [
                "h",
                "ln_1",
                "attn.c_attn",
                "attn.c_proj",
                "ln_2",
                "mlp.c_fc",
                "mlp.c_proj",
            ],
        };
        let named = |i: usize| format!("{}.{b}.{}", names[0], names[i]);
        // GPT-NeoX groups the rows by head, GPT-2 by queries, keys and values.
        let groups = match self.layout {
            Layout::Neox => self.config.heads,
            Layout::Gpt2 => 1,
        };
        let kind = self.config.block_norm;
        self.norm(&named(1), &format!("blocks.{b}.attention_norm"), kind);
        self.linear(&named(2), &qkv, [d, d], groups);
        self.linear(&named(3), &proj, [d, d], 1);
        self.norm(&named(4), &format!("blocks.{b}.ffn_norm"), kind);
        self.linear(&named(5), &up, [hidden, d], 1);
        self.linear(&named(6), &down, [d, hidden], 1);
    }
}
