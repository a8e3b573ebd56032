//! Which of how many ranks this process is, from the variables of its launcher.

use crate::error::{Error, Result};
use std::ops::RangeInclusive;

/// More ranks than any job has.
const MAX_WORLD: usize = 1 << 24;

/// What started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `mpirun` of MPICH, Intel MPI and others that speak PMI, or `srun --mpi=pmi2`.
    Pmi,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `torchrun`, and Kubeflow's training operator.
    Torch,
    /// An Indexed Job of Kubernetes whose pods also know how many they are.
    Kubernetes,
    /// `srun`.
    Slurm,
}

impl Launcher {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pmi => "mpirun",
            Self::OpenMpi => "mpirun of Open MPI",
            Self::Torch => "torchrun",
            Self::Kubernetes => "a Kubernetes job",
            Self::Slurm => "srun",
        }
    }
}

/// The variables of a launcher.
struct Names {
    launcher: Launcher,
    rank: &'static str,
    /// The first one that is set counts.
    world: &'static [&'static str],
    local_rank: &'static str,
    local_world: &'static str,
}

/// In the order in which they are looked for: inside an allocation of Slurm, `mpirun` and `torchrun` know better than its
/// variables, which stand for the allocation.
const LAUNCHERS: [Names; 5] = [
    Names {
        launcher: Launcher::Pmi,
        rank: "PMI_RANK",
        world: &["PMI_SIZE"],
        local_rank: "MPI_LOCALRANKID",
        local_world: "MPI_LOCALNRANKS",
    },
    Names {
        launcher: Launcher::OpenMpi,
        rank: "OMPI_COMM_WORLD_RANK",
        world: &["OMPI_COMM_WORLD_SIZE"],
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_world: "OMPI_COMM_WORLD_LOCAL_SIZE",
    },
    Names {
        launcher: Launcher::Torch,
        rank: "RANK",
        world: &["WORLD_SIZE"],
        local_rank: "LOCAL_RANK",
        local_world: "LOCAL_WORLD_SIZE",
    },
    Names {
        launcher: Launcher::Kubernetes,
        rank: "JOB_COMPLETION_INDEX",
        world: &["WORLD_SIZE"],
        local_rank: "LOCAL_RANK",
        local_world: "LOCAL_WORLD_SIZE",
    },
    Names {
        launcher: Launcher::Slurm,
        rank: "SLURM_PROCID",
        // A batch script that starts no step sees the tasks of its allocation only, and is one process.
        world: &["SLURM_STEP_NUM_TASKS"],
        local_rank: "SLURM_LOCALID",
        local_world: "SLURM_STEP_TASKS_PER_NODE",
    },
];

/// Which of how many ranks this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment {
    /// What started it.
    pub launcher: Launcher,
    /// Its number, from 0.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Its number on its machine, where that is known.
    pub local_rank: Option<usize>,
    /// Ranks on its machine, where that is known.
    pub local_world: Option<usize>,
}

impl Environment {
    /// Reads what the launcher set; `None` if there is none. `variable` looks up a variable.
    ///
    /// # Errors
    /// If a variable is no number, or no rank of the world.
    pub fn find(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        for names in &LAUNCHERS {
            let world = names
                .world
                .iter()
                .find_map(|&name| Some((name, variable(name)?)));
            let (Some(rank), Some((world_name, world))) = (variable(names.rank), world) else {
                continue;
            };
            let launcher = names.launcher.name();
            let number = |name, text: &str, expected: String, range: RangeInclusive<usize>| {
                let number: Option<usize> = text.parse().ok();
                number
                    .filter(|number| range.contains(number))
                    .ok_or_else(|| Error::Variable {
                        name,
                        expected,
                        got: text.into(),
                        launcher,
                    })
            };
            let expected = "a number of ranks, at least 1".into();
            let world = number(world_name, &world, expected, 1..=MAX_WORLD)?;
            let expected = format!("a rank below {world_name}, which is {world}");
            let rank = number(names.rank, &rank, expected, 0..=world - 1)?;
            // They only matter for messages and placement, so that what cannot be read is not known: `2(x3)` of Slurm.
            let local = |name: &str| variable(name).and_then(|text| text.parse().ok());
            return Ok(Some(Self {
                launcher: names.launcher,
                rank,
                world,
                local_rank: local(names.local_rank),
                local_world: local(names.local_world),
            }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(set: &[(&str, &str)]) -> Result<Option<Environment>> {
        let look = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        };
        Environment::find(look)
    }

    #[test]
    fn every_launcher_is_recognised() {
        use Launcher::{Kubernetes, OpenMpi, Pmi, Slurm, Torch};
        // Variables, launcher, rank, ranks, rank on the machine, ranks on the machine.
        type Case<'a> = (
            &'a [(&'a str, &'a str)],
            Launcher,
            usize,
            usize,
            Option<usize>,
            Option<usize>,
        );
        let cases: &[Case<'_>] = &[
            (
                &[
                    ("PMI_RANK", "1"),
                    ("PMI_SIZE", "4"),
                    ("MPI_LOCALRANKID", "1"),
                    ("MPI_LOCALNRANKS", "2"),
                ],
                Pmi,
                1,
                4,
                Some(1),
                Some(2),
            ),
            (
                &[
                    ("OMPI_COMM_WORLD_RANK", "0"),
                    ("OMPI_COMM_WORLD_SIZE", "2"),
                    ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
                ],
                OpenMpi,
                0,
                2,
                Some(0),
                None,
            ),
            (
                &[
                    ("RANK", "7"),
                    ("WORLD_SIZE", "8"),
                    ("LOCAL_RANK", "3"),
                    ("LOCAL_WORLD_SIZE", "4"),
                    ("MASTER_ADDR", "node0"),
                    ("MASTER_PORT", "29500"),
                ],
                Torch,
                7,
                8,
                Some(3),
                Some(4),
            ),
            (
                &[("JOB_COMPLETION_INDEX", "2"), ("WORLD_SIZE", "3")],
                Kubernetes,
                2,
                3,
                None,
                None,
            ),
            (
                &[
                    ("SLURM_PROCID", "5"),
                    ("SLURM_STEP_NUM_TASKS", "6"),
                    ("SLURM_NTASKS", "12"),
                    ("SLURM_LOCALID", "1"),
                    ("SLURM_STEP_TASKS_PER_NODE", "2(x3)"),
                ],
                Slurm,
                5,
                6,
                Some(1),
                None,
            ),
        ];
        for &(set, launcher, rank, world, local_rank, local_world) in cases {
            let found = find(set).unwrap().expect("ranks");
            let expected = Environment {
                launcher,
                rank,
                world,
                local_rank,
                local_world,
            };
            assert_eq!(found, expected, "{set:?}");
        }
    }

    #[test]
    fn the_launcher_inside_an_allocation_counts() {
        let slurm = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "2")];
        let pmi = [("PMI_RANK", "5"), ("PMI_SIZE", "8")];
        let torch = [("RANK", "3"), ("WORLD_SIZE", "16")];
        let with = |inner: [(&'static str, &'static str); 2]| {
            find(&[slurm, inner].concat()).unwrap().unwrap()
        };
        assert_eq!((with(pmi).rank, with(pmi).world), (5, 8));
        assert_eq!((with(torch).rank, with(torch).world), (3, 16));
    }

    #[test]
    fn without_a_launcher_there_are_no_ranks() {
        for set in [
            &[][..],
            // Half of a launcher, an allocation without a step, and an Indexed Job of independent pods.
            &[("PMI_RANK", "0")],
            &[("WORLD_SIZE", "4")],
            &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")],
            &[("JOB_COMPLETION_INDEX", "1")],
        ] {
            assert_eq!(find(set).unwrap(), None, "{set:?}");
        }
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (set, name) in [
            ([("PMI_RANK", "4"), ("PMI_SIZE", "4")], "PMI_RANK"),
            ([("PMI_RANK", "-1"), ("PMI_SIZE", "4")], "PMI_RANK"),
            (
                [("RANK", "0"), ("WORLD_SIZE", "many\u{1b}[31m")],
                "WORLD_SIZE",
            ),
            ([("RANK", "0"), ("WORLD_SIZE", "0")], "WORLD_SIZE"),
            (
                [("RANK", "0"), ("WORLD_SIZE", "99999999999999999999")],
                "WORLD_SIZE",
            ),
        ] {
            let error = find(&set).unwrap_err();
            let text = error.to_string();
            assert!(
                error.is_usage() && text.starts_with(&format!("{name}:")),
                "{text}"
            );
            for part in ["expected:", "got:", "help:"] {
                assert!(text.contains(part), "no {part} in {text}");
            }
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
}
