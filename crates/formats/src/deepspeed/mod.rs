//! DeepSpeed training folders (ZeRO stages 0 to 2, no pipeline or model parallelism). Slices of the 32-bit weights, which
//! stages 1 and 2 save, are merged; of stage 0 the module's half-precision weights are read.
//!
//! ```text
//! checkpoints/
//!   latest                                            the newest tag, such as global_step600000
//!   global_step600000/
//!     mp_rank_00_model_states.pt                      "module": the half-precision weights, and much else
//!     zero_pp_rank_{r}_mp_rank_00_optim_states.pt     rank r's slice of the 32-bit weights, for each parameter group
//! ```
//!
//! The 32-bit weights of a group are the concatenated slices of the ranks, cut into tensors in the order of
//! `param_shapes`; the rest at the end is padding. Source: DeepSpeed's `utils/zero_to_fp32.py`.

mod joined;
mod layout;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use joined::Joined;
pub use layout::is_training_folder;
use layout::{checkpoint_folder, shards};

use crate::error::shown;
use crate::pickle::Value;
use crate::torch_file::{Found, Piece, Source, contiguous, elements, listed_bytes, shape_of};
use crate::{Dtype, Error, Result, TensorInfo, Tensors, TorchFile};

/// A parameter's name and shape.
type NamedShape = (String, Vec<usize>);

const STATES: &str = "mp_rank_00_model_states.pt";

/// One checkpoint of a DeepSpeed training folder.
pub struct DeepSpeedFolder {
    folder: PathBuf,
    states: TorchFile,
    ranks: usize,
    shards: BTreeMap<usize, PathBuf>,
}

/// The most precise weights of a checkpoint.
pub struct Weights {
    /// The tensors, by their names in the model.
    pub tensors: Tensors,
    /// Their precision.
    pub precision: Precision,
}

/// The precision of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The optimizer's 32-bit weights, merged.
    Full,
    /// The module's half-precision weights, because some files of the 32-bit weights are missing, or all (as in ZeRO stage
    /// 0, which writes none; the 32-bit weights that its optimizer may keep among the model states are not read).
    Half {
        /// Number of files with slices of the 32-bit weights that exist.
        shards: usize,
        /// Number of files that should exist.
        ranks: usize,
    },
}

impl DeepSpeedFolder {
    /// Opens a training folder at its `latest` checkpoint or its only one, or the folder of one checkpoint.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Unsupported`] (weights split over several files, as by ZeRO stage 3 and in pipeline
    /// and universal checkpoints), [`Error::RefusedGlobal`], [`Error::Io`].
    pub fn open(path: &Path) -> Result<DeepSpeedFolder> {
        let folder = checkpoint_folder(path)?;
        let states = TorchFile::open(&folder.join(STATES))?;
        let unsupported = |what: String| Error::Unsupported {
            location: folder.display().to_string(),
            what,
            help: "merge the checkpoint with the tools of its training code first",
        };
        if folder.join("mp_rank_01_model_states.pt").exists() {
            return Err(unsupported(
                "the weights are split over several files by model parallelism".into(),
            ));
        }
        let count = |key: &str| match states.root().get(key) {
            None => Ok(1),
            Some(value) => value.as_usize().filter(|&count| count > 0).ok_or_else(|| {
                damaged(
                    states.path(),
                    format!("{key} cannot be read"),
                    "an integer from 1",
                    value.describe(),
                )
            }),
        };
        let split = count("mp_world_size")?;
        if split != 1 {
            return Err(unsupported(format!(
                "the weights are split over {split} processes by model parallelism"
            )));
        }
        let ranks = count("dp_world_size")?;
        let shards = shards(&folder)?;
        if let Some((rank, path)) = shards.iter().find(|&(&rank, _)| rank >= ranks) {
            return Err(damaged(
                path,
                format!("the file belongs to rank {rank}, which the checkpoint does not have"),
                &format!("ranks below {ranks}"),
                "files of several checkpoints in one folder".into(),
            ));
        }
        Ok(DeepSpeedFolder {
            folder,
            states,
            ranks,
            shards,
        })
    }

    /// The folder of the checkpoint.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file with everything except the 32-bit weights: `iteration`, `args` and more.
    pub fn states(&self) -> &TorchFile {
        &self.states
    }

    /// The training step, if the checkpoint contains it.
    pub fn iteration(&self) -> Option<u64> {
        ["iteration", "global_steps"]
            .iter()
            .find_map(|key| self.states.root().get(key)?.as_i64())
            .and_then(|step| step.try_into().ok())
    }

    /// The 32-bit weights if all of their files exist, else those of the module.
    ///
    /// # Errors
    /// The errors of [`masters`](Self::masters) and [`module`](Self::module).
    pub fn weights(&self) -> Result<Weights> {
        Ok(match self.masters()? {
            Some(tensors) => Weights {
                tensors,
                precision: Precision::Full,
            },
            None => Weights {
                tensors: self.module()?,
                precision: Precision::Half {
                    shards: self.shards.len(),
                    ranks: self.ranks,
                },
            },
        })
    }

    /// The module's weights, in the precision of the forward pass.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn module(&self) -> Result<Tensors> {
        self.states.tensors_at(&["module"])
    }

    /// The copies of frozen parameters that some checkpoints have; `None` if there are none.
    ///
    /// # Errors
    /// [`Error::Damaged`].
    pub fn frozen(&self) -> Result<Option<Tensors>> {
        const KEY: &str = "frozen_param_fragments";
        match self.states.root().get(KEY).and_then(Value::entries) {
            Some(_) => self.states.tensors_at(&[KEY]).map(Some),
            None => Ok(None),
        }
    }

    /// The 32-bit weights, in the order of the module. Tensors without 32-bit weights (buffers, frozen parameters) are
    /// those of the module. `None` when the file of a rank is missing.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the files do not match, [`Error::Unsupported`] for ZeRO stage 3.
    pub fn masters(&self) -> Result<Option<Tensors>> {
        if self.shards.len() < self.ranks {
            return Ok(None);
        }
        let module = self.module()?;
        let mut masters = self.merged(module.held_bytes())?;
        let aliases = self.aliases();
        let mut tensors = Tensors::new(&self.folder);
        for info in module.list() {
            let name = info.name.as_str();
            let master = masters.remove(name).or_else(|| {
                aliases
                    .get(name)
                    .and_then(|&other| tensors.source(other))
                    .map(clone)
            });
            let (found, source) = match master {
                Some(master) => master,
                None => module
                    .source(name)
                    .map(clone)
                    .ok_or_else(|| Error::MissingTensor {
                        path: self.folder.clone(),
                        name: name.into(),
                        near: Vec::new(),
                        count: module.list().len(),
                    })?,
            };
            if found.shape != info.shape {
                return Err(damaged(
                    self.states.path(),
                    format!("param_shapes and the module disagree about {}", shown(name)),
                    &format!("{:?}", info.shape),
                    format!("{:?}", found.shape),
                ));
            }
            tensors.push(
                TensorInfo {
                    name: name.into(),
                    ..found
                },
                source,
            )?;
        }
        for (name, why) in module.unread() {
            // Even if the module has eight bits, the optimizer may have 32.
            match masters.remove(name) {
                Some((info, source)) => tensors.push(info, source)?,
                None => tensors.leave_out(name.into(), why.into()),
            }
        }
        if let Some(name) = masters.keys().next() {
            return Err(damaged(
                self.states.path(),
                format!("param_shapes has {}, which the module has not", shown(name)),
                "the same names in both",
                format!("{} more", masters.len()),
            ));
        }
        Ok(Some(tensors))
    }

    /// Maps names of parameters to the name whose weights they share.
    fn aliases(&self) -> HashMap<&str, &str> {
        let shared = self.states.root().get("shared_params");
        shared
            .and_then(Value::entries)
            .into_iter()
            .flatten()
            .filter_map(|(name, other)| Some((name.as_str()?, other.as_str()?)))
            .collect()
    }

    /// The tensors of `param_shapes`, cut from the joined slices; `held_bytes` of the file's budget are already used.
    fn merged(&self, held_bytes: usize) -> Result<HashMap<String, (TensorInfo, Source)>> {
        let groups = self.param_shapes(held_bytes)?;
        let slices = self.slices(groups.len())?;
        let mut merged = HashMap::new();
        for (index, (group, slices)) in groups.into_iter().zip(slices).enumerate() {
            let storage = format!("fp32 group {index}");
            let mut joined = Joined::new(slices);
            for (name, shape) in group {
                let missing = |joined: &Joined| {
                    damaged(
                        &self.folder,
                        format!(
                            "the 32-bit weights of group {index} end before {}",
                            shown(&name)
                        ),
                        &format!("{shape:?} after {} elements", joined.taken),
                        format!("{} elements", joined.total),
                    )
                };
                let count = elements(&shape).ok_or_else(|| missing(&joined))?;
                let offset = joined.taken;
                let pieces = joined.take(count).ok_or_else(|| missing(&joined))?;
                let info = TensorInfo {
                    name: name.clone(),
                    dtype: Dtype::F32,
                    stride: contiguous(&shape),
                    shape,
                    storage: storage.clone(),
                    offset,
                    negated: false,
                };
                if merged
                    .insert(name.clone(), (info, Source::Joined(pieces)))
                    .is_some()
                {
                    return Err(damaged(
                        self.states.path(),
                        format!("param_shapes has {} twice", shown(&name)),
                        "each name once",
                        "two".into(),
                    ));
                }
            }
            let padded = joined
                .taken
                .checked_next_multiple_of(2 * self.ranks)
                .unwrap_or(usize::MAX);
            if joined.total > padded {
                return Err(damaged(
                    &self.folder,
                    format!("the 32-bit weights of group {index} are longer than its parameters"),
                    &format!("{} elements, at most {padded} with padding", joined.taken),
                    format!("{}", joined.total),
                ));
            }
        }
        Ok(merged)
    }

    /// Names and shapes of each parameter group.
    fn param_shapes(&self, held_bytes: usize) -> Result<Vec<Vec<NamedShape>>> {
        let bad = |got: String| {
            damaged(
                self.states.path(),
                "param_shapes cannot be read".into(),
                "a list with one dict from names to shapes per parameter group",
                got,
            )
        };
        let value = self
            .states
            .root()
            .get("param_shapes")
            .ok_or_else(|| bad("no such key".into()))?;
        let groups: Vec<Value<'_>> = match value.elements() {
            Some(groups) => groups.collect(),
            None => vec![value],
        };
        // Names, shapes and whole groups can be shared in a pickle, but each use is copied here.
        const GROUP_BYTES: usize = 64;
        let mut budget_bytes = self
            .states
            .archive()
            .budget_bytes()
            .saturating_sub(held_bytes);
        let mut charge = |bytes: usize| match budget_bytes.checked_sub(bytes) {
            Some(left) => {
                budget_bytes = left;
                Ok(())
            }
            None => Err(damaged(
                self.states.path(),
                "param_shapes takes more memory than the file justifies".into(),
                "each name once",
                "more, by values that share parts".into(),
            )),
        };
        groups
            .into_iter()
            .map(|group| {
                charge(GROUP_BYTES)?;
                let entries = group.entries().ok_or_else(|| bad(group.describe()))?;
                entries
                    .map(|(name, shape)| {
                        let name = name.as_str().ok_or_else(|| bad(name.describe()))?;
                        let shape = shape_of(shape).ok_or_else(|| bad(shape.describe()))?;
                        // They are stored three times: here, in the table of merged tensors and in the result.
                        charge(3 * listed_bytes(name, &shape))?;
                        Ok((name.into(), shape))
                    })
                    .collect()
            })
            .collect()
    }

    /// For each group, the slices in the order of ranks.
    fn slices(&self, groups: usize) -> Result<Vec<Vec<Piece>>> {
        let mut slices: Vec<Vec<Piece>> = vec![Vec::new(); groups];
        for path in self.shards.values() {
            let shard = TorchFile::open(path)?;
            let state = shard.root().get("optimizer_state_dict").ok_or_else(|| {
                damaged(
                    path,
                    "the key \"optimizer_state_dict\" is missing".into(),
                    "a dict that has it",
                    shard.root().describe(),
                )
            })?;
            if state
                .get("zero_stage")
                .and_then(|stage| stage.as_i64())
                .is_some_and(|stage| stage > 2)
            {
                return Err(Error::Unsupported {
                    location: path.display().to_string(),
                    what: "the weights were split by ZeRO stage 3".into(),
                    help: "merge them first with the zero_to_fp32.py that lies beside the checkpoint",
                });
            }
            const KEY: &str = "single_partition_of_fp32_groups";
            let bad = |got: String| {
                damaged(
                    path,
                    format!("{KEY} cannot be read"),
                    &format!("a list of {groups} flat 32-bit tensors"),
                    got,
                )
            };
            let flat = state.get(KEY).ok_or_else(|| bad("no such key".into()))?;
            let flat = flat.elements().ok_or_else(|| bad(flat.describe()))?;
            if flat.len() != groups {
                return Err(bad(format!("{} tensors", flat.len())));
            }
            for (value, group) in flat.zip(&mut slices) {
                let view = match shard.strided(KEY, value)? {
                    Some(Found::Read(view)) => view,
                    Some(Found::Unread(why)) => {
                        return Err(bad(format!("a tensor that is not read: {why}")));
                    }
                    None => return Err(bad(value.describe())),
                };
                let is_flat = view.shape.len() == 1 && matches!(*view.stride, [1]);
                if view.dtype != Dtype::F32 || !is_flat || view.negated {
                    let sign = if view.negated { "negated " } else { "" };
                    return Err(bad(format!(
                        "{sign}{} of shape {:?}, stride {:?}",
                        view.dtype, view.shape, view.stride
                    )));
                }
                group.push(Piece {
                    archive: Arc::clone(shard.archive()),
                    range: view.range,
                });
            }
        }
        Ok(slices)
    }
}

fn clone((info, source): (&TensorInfo, &Source)) -> (TensorInfo, Source) {
    (info.clone(), source.clone())
}

fn damaged(path: &Path, what: String, expected: &str, got: String) -> Error {
    Error::Damaged {
        location: path.display().to_string(),
        what,
        expected: expected.into(),
        got,
        help: "the checkpoint is incomplete or damaged; copy it again",
    }
}
