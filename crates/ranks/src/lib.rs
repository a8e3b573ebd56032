//! Several processes (ranks) that compute together.
//!
//! [`Environment`] finds out which of how many ranks this process is, from what its launcher set: `mpirun`, `srun`, `torchrun`,
//! Kubernetes. [`Mpi`] connects the ranks by an MPI library that is found when the program runs. [`guard`] says which rank
//! died. What ranks do together is the trait [`tokenformer_device::Collective`].
//!
//! ```
//! use tokenformer_ranks::{Environment, Launcher};
//!
//! let variables = |name: &str| match name {
//!     "SLURM_PROCID" => Some("3".to_string()),
//!     "SLURM_STEP_NUM_TASKS" => Some("8".to_string()),
//!     _ => None,
//! };
//! let found = Environment::find(variables)?.expect("a rank of srun");
//! assert_eq!((found.launcher, found.rank, found.world), (Launcher::Slurm, 3, 8));
//! # Ok::<(), tokenformer_ranks::Error>(())
//! ```

mod environment;
mod error;
#[cfg(unix)]
pub mod guard;
pub mod launch;
pub mod mpi;

pub use environment::{Environment, Launcher};
pub use error::{Error, Result};
pub use mpi::Mpi;

use std::sync::Arc;
use tokenformer_device::{Collective, Single};

/// The collective of this process: [`Single`] where no launcher started several ranks, else MPI.
///
/// # Errors
/// If there are several ranks and they cannot be connected: then each of them must end, because several independent runs
/// would write into one folder.
pub fn connect() -> Result<Arc<dyn Collective>> {
    match Environment::find(|name| std::env::var(name).ok())? {
        Some(found) if found.world > 1 => Ok(Arc::new(Mpi::connect(&found)?)),
        _ => Ok(Arc::new(Single)),
    }
}
