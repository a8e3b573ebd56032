//! Which arrays of a model make which tensor of a layout. One description serves both directions.

use tokenformer_core::config::{HeadKind, LayerConfig, NormKind, Pool, Positions};
use tokenformer_core::model::site_name;
use tokenformer_core::{ModelConfig, SiteKind};

use super::Layout;
use super::mapped::{Made, Part};
use crate::source::Source;

/// Names of an output head of its own, in files of several versions of the library.
const HEADS: [&str; 2] = ["embed_out.weight", "lm_head.weight"];

/// An array of a model, or what stands for it where the model has none.
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
    /// Arrays of equal shape whose rows it has.
    ours: Vec<Ours>,
    /// Rows of each array; numbers of a vector.
    rows: usize,
    /// Numbers of a row; `None` for vectors.
    cols: Option<usize>,
    /// The rows are in so many groups, each with those of the first array, then of the second and so on.
    groups: usize,
    /// Whether the layout stores the transposed matrix.
    transposed: bool,
    /// Axes that the layout's tensor has, if they are others than rows and columns.
    axes: Option<Vec<usize>>,
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
        if let Some(axes) = &self.axes {
            return axes.clone();
        }
        let rows = self.rows * self.ours.len();
        let mut shape: Vec<usize> = std::iter::once(rows).chain(self.cols).collect();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// The number that the tensor consists of, if the model has none of its arrays.
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

    /// The layout's tensor, made of the model's arrays.
    pub(super) fn export(&self) -> Made {
        let rows = self.rows / self.groups;
        let group = |g: usize| {
            self.ours.iter().map(move |own| match own {
                Ours::Array(name) => Part::Rows {
                    of: name.clone(),
                    transposed: false,
                    cols: self.cols.unwrap_or(1),
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

    /// The model's arrays, made of the layout's tensor.
    pub(super) fn import(&self) -> impl Iterator<Item = Made> {
        let (rows, arrays) = (self.rows / self.groups, self.ours.len());
        self.ours.iter().enumerate().filter_map(move |(i, own)| {
            let Ours::Array(name) = own else {
                return None;
            };
            let part = |g: usize| Part::Rows {
                of: self.theirs.clone(),
                transposed: self.transposed,
                cols: self.cols.unwrap_or(1),
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
    /// What the names of a whole model begin with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Neox => "gpt_neox.",
            Self::Gpt2 => "transformer.",
        }
    }
}

/// What the names of a file begin with, whatever wrappers put before: a model that was saved without its head has no
/// prefix.
pub(super) fn prefix_of(layout: Layout, source: &Source) -> &'static str {
    let prefix = layout.prefix();
    let part = prefix.trim_end_matches('.');
    match (source.names()).any(|name| name.split('.').any(|found| found == part)) {
        true => prefix,
        false => "",
    }
}

/// Tensors of the file that are named as output heads are.
pub(super) fn heads_of_file(source: &Source) -> Vec<String> {
    let heads = HEADS
        .into_iter()
        .filter(|name| source.shape(name).is_some());
    heads.map(String::from).collect()
}

/// The tensors of a model in a layout, in its order: embedding first.
pub(super) fn entries(layout: Layout, config: &ModelConfig, prefix: &str) -> Vec<Entry> {
    let mut list = List::new(config, prefix, layout.names());
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
            // Read by old and new versions of the library.
            Layout::Neox => HEADS[0],
            Layout::Gpt2 => HEADS[1],
        };
        list.table(name, "head", table);
    }
    list.entries
}

/// The tensors of an image model in timm's layout, in its order.
pub(super) fn entries_of_images(config: &ModelConfig) -> Vec<Entry> {
    let mut list = List::new(config, "", TIMM);
    let Some(image) = config.input.image() else {
        return Vec::new();
    };
    let (d, [ph, pw]) = (config.width, image.patch);
    let array = |name: &str| vec![Ours::Array(name.into())];
    if image.has_class_token() {
        list.push("cls_token", array("class_token.weight"), 1, Some(d));
        list.set_axes(vec![1, 1, d]);
    }
    if config.positions == Positions::Learned {
        let t = config.context;
        list.push("pos_embed", array("positions.weight"), t, Some(d));
        list.set_axes(vec![1, t, d]);
    }
    let inputs = Some(image.patch_len());
    list.push(
        "patch_embed.proj.weight",
        array("patches.weight"),
        d,
        inputs,
    );
    list.set_axes(vec![d, image.channels, ph, pw]);
    list.push("patch_embed.proj.bias", array("patches.bias"), d, None);
    for b in 0..config.layers() {
        list.block(b);
    }
    let last = match image.pool {
        Pool::Class => "norm",
        Pool::Mean | Pool::MeanBesideClass => "fc_norm",
    };
    list.norm(last, "final_norm", config.final_norm);
    let head = ("head".to_string(), config.head_bias);
    list.linear("head", &[head], [config.vocab, d], 1);
    list.entries
}

/// Names and habits of a layout's blocks.
struct Names {
    /// Of the list of blocks.
    blocks: &'static str,
    attention_norm: &'static str,
    qkv: &'static str,
    proj: &'static str,
    ffn_norm: &'static str,
    up: &'static str,
    down: &'static str,
    /// Whether the rows of a head are together, and not those of queries, keys and values.
    by_head: bool,
    /// Whether matrices are stored transposed.
    transposed: bool,
}

const TIMM: Names = Names {
    blocks: "blocks",
    attention_norm: "norm1",
    qkv: "attn.qkv",
    proj: "attn.proj",
    ffn_norm: "norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
    by_head: false,
    transposed: false,
};

impl Layout {
    fn names(self) -> Names {
        match self {
            Self::Neox => Names {
                blocks: "layers",
                attention_norm: "input_layernorm",
                qkv: "attention.query_key_value",
                proj: "attention.dense",
                ffn_norm: "post_attention_layernorm",
                up: "mlp.dense_h_to_4h",
                down: "mlp.dense_4h_to_h",
                by_head: true,
                transposed: false,
            },
            Self::Gpt2 => Names {
                blocks: "h",
                attention_norm: "ln_1",
                qkv: "attn.c_attn",
                proj: "attn.c_proj",
                ffn_norm: "ln_2",
                up: "mlp.c_fc",
                down: "mlp.c_proj",
                by_head: false,
                transposed: true,
            },
        }
    }
}

struct List<'a> {
    names: Names,
    config: &'a ModelConfig,
    prefix: String,
    entries: Vec<Entry>,
}

impl<'a> List<'a> {
    fn new(config: &'a ModelConfig, prefix: &str, names: Names) -> Self {
        Self {
            names,
            config,
            prefix: prefix.into(),
            entries: Vec::new(),
        }
    }

    /// Gives the last tensor other axes than rows and columns.
    fn set_axes(&mut self, axes: Vec<usize>) {
        if let Some(entry) = self.entries.last_mut() {
            entry.axes = Some(axes);
        }
    }

    fn push(&mut self, theirs: &str, ours: Vec<Ours>, rows: usize, cols: Option<usize>) {
        self.entries.push(Entry {
            theirs: format!("{}{theirs}", self.prefix),
            ours,
            rows,
            cols,
            groups: 1,
            transposed: false,
            axes: None,
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

    /// Linear layers `ours`, each with whether it has a bias, as one of the layout, in `groups`.
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
            entry.transposed = self.names.transposed && entry.cols.is_some();
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
        let names = &self.names;
        let groups = if names.by_head { self.config.heads } else { 1 };
        let [
            attention_norm,
            qkv_name,
            proj_name,
            ffn_norm,
            up_name,
            down_name,
        ] = [
            names.attention_norm,
            names.qkv,
            names.proj,
            names.ffn_norm,
            names.up,
            names.down,
        ]
        .map(|name| format!("{}.{b}.{name}", names.blocks));
        let kind = self.config.block_norm;
        self.norm(&attention_norm, &format!("blocks.{b}.attention_norm"), kind);
        self.linear(&qkv_name, &qkv, [d, d], groups);
        self.linear(&proj_name, &proj, [d, d], 1);
        self.norm(&ffn_norm, &format!("blocks.{b}.ffn_norm"), kind);
        self.linear(&up_name, &up, [hidden, d], 1);
        self.linear(&down_name, &down, [d, hidden], 1);
    }
}
