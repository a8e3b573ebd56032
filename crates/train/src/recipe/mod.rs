//! Recipes: everything that decides what a run computes, as one commented TOML file.
//!
//! A value comes from the defaults, the preset, the file, or `--set a.b=v`, each over the one before;
//! [`Resolved`] remembers which. Unknown keys are errors that name the nearest key, and so are values that have no effect
//! ([`Resolved::check_effects`]).

mod check;
mod effect;
mod model;
mod resolve;
mod schema;
mod tables;

pub use model::{ModelTable, PositionKind};
pub use resolve::{Resolved, resolve, resolve_table};
pub use schema::keys;
pub use tables::{
    CheckpointTable, DataTable, EmaTable, EvalTable, GrowEvent, ImagesTable, LogTable,
    MAX_NEW_LAYERS, MomentsOn, PlannerTable, RanksTable, Recipe, Reduce, SampleTable, TokensOn,
    TrainTable,
};
