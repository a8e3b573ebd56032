//! The command line under launchers: no independent runs by mistake, errors that help, and MPI where there is one.

mod common;

use common::{Lab, Remains, fail, run, succeed};
use std::path::Path;
use std::process::Command;

/// What each launcher sets for rank 1 of 2.
const LAUNCHERS: [(&str, &[(&str, &str)]); 5] = [
    ("mpirun", &[("PMI_RANK", "1"), ("PMI_SIZE", "2")]),
    (
        "mpirun of Open MPI",
        &[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")],
    ),
    (
        "torchrun",
        &[
            ("RANK", "1"),
            ("WORLD_SIZE", "2"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", "29500"),
        ],
    ),
    (
        "a Kubernetes job",
        &[("JOB_COMPLETION_INDEX", "1"), ("WORLD_SIZE", "2")],
    ),
    (
        "srun",
        &[
            ("SLURM_PROCID", "1"),
            ("SLURM_STEP_NUM_TASKS", "2"),
            ("SLURM_LOCALID", "1"),
        ],
    ),
];

fn train(lab: &Lab, out: &str, more: &[&str]) -> Command {
    let recipe = lab.recipe("recipe.toml", "");
    lab.train(&recipe, out, &[&["--set", "train.steps=4"], more].concat())
}

#[test]
fn several_ranks_without_mpi_are_an_error_and_write_nothing() {
    let lab = Lab::new();
    for (launcher, variables) in LAUNCHERS {
        let mut command = train(&lab, "run", &[]);
        command.env("TOKENFORMER_MPI", "/there/is/no/libmpi_abi.so.1");
        command.envs(variables.iter().copied());
        let parts = [
            &format!("2 ranks were started by {launcher}, and no MPI library connects them"),
            "TOKENFORMER_MPI is /there/is/no/libmpi_abi.so.1",
            "pip install mpich",
            "--ranks off",
        ];
        fail(command, 1, &parts);
        assert!(!lab.path("run").exists(), "{launcher}");
    }
}

#[test]
fn ranks_can_be_left_out() {
    let lab = Lab::new();
    let (_, variables) = LAUNCHERS[0];
    let mut alone = train(&lab, "alone", &["--ranks", "off"]);
    alone.envs(variables.iter().copied());
    succeed(alone);
    // One rank is alone anyway, whatever the launcher.
    let mut one = train(&lab, "one", &[]);
    one.env("PMI_RANK", "0")
        .env("PMI_SIZE", "1")
        .env("TOKENFORMER_MPI", "/none");
    succeed(one);
    let [alone, one] = ["alone", "one"].map(|name| Remains::of(&lab.path(name)));
    alone.assert_equal(&one, "a launcher of one rank");
    assert!(!lab.path("one").join("ranks.csv").exists());
}

/// What can be done instead is something that the verb has.
#[test]
fn each_verb_says_what_to_do_without_mpi() {
    let lab = Lab::new();
    let ranks = |args: &[&str]| {
        let mut command = lab.command(args);
        command.env("RANK", "0").env("WORLD_SIZE", "2");
        command.env("TOKENFORMER_MPI", "/there/is/no/libmpi_abi.so.1");
        command
    };
    succeed(train(&lab, "run", &[]));
    let eval = ["eval", "--model", "run", "--data", "data"];
    fail(ranks(&eval), 1, &["no MPI library", "--ranks off"]);
    succeed(ranks(&[&eval[..], &["--ranks", "off"]].concat()));
    let sums = ["bench", "sums"];
    fail(
        ranks(&sums),
        1,
        &["no MPI library", "launch -n 2 -- bench sums"],
    );
    let said = run(ranks(&sums)).err;
    assert!(!said.contains("--ranks off"), "{said}");
    let mut wrong = ranks(&sums);
    wrong.env("RANK", "2");
    let said = run(wrong).err;
    assert!(said.contains("RANK: not a possible value"), "{said}");
    assert!(!said.contains("--ranks off"), "{said}");
}

#[test]
fn impossible_variables_are_named() {
    let lab = Lab::new();
    let mut command = train(&lab, "run", &[]);
    command.env("RANK", "2").env("WORLD_SIZE", "2");
    fail(
        command,
        2,
        &[
            "RANK: not a possible value",
            "a rank below WORLD_SIZE, which is 2",
            "got:      \"2\"",
        ],
    );
    let mut command = train(&lab, "run", &[]);
    command.env("PMI_RANK", "0").env("PMI_SIZE", "two");
    fail(command, 2, &["PMI_SIZE: not a possible value"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_library_that_is_no_mpi_is_refused() {
    let lab = Lab::new();
    let mut command = train(&lab, "run", &[]);
    command
        .envs(LAUNCHERS[0].1.iter().copied())
        .env("TOKENFORMER_MPI", "libc.so.6");
    fail(command, 1, &["another ABI than the standard's"]);
}

#[test]
fn launch_without_mpiexec_says_what_to_install() {
    let lab = Lab::new();
    let mut command = lab.command(&["launch", "-n", "2", "--", "train"]);
    command
        .env("PATH", "")
        .env_remove("VIRTUAL_ENV")
        .env_remove("TOKENFORMER_MPI");
    fail(
        command,
        1,
        &["no mpiexec to start 2 ranks with", "pip install mpich"],
    );
    fail(
        lab.command(&["launch", "-n", "0", "--", "train"]),
        2,
        &["-n", "between 1 and 4096"],
    );
}

/// The `mpiexec` of an MPI with the standard ABI; says why there is none.
fn mpiexec() -> Option<std::path::PathBuf> {
    let found = tokenformer_ranks::launch::find(2, |name| std::env::var(name).ok());
    let library = found
        .as_ref()
        .ok()
        .and_then(|mpiexec| mpiexec.parent()?.parent().map(|p| p.join("lib")));
    match found {
        Ok(mpiexec) if library.as_deref().is_some_and(has_library) => Some(mpiexec),
        Ok(mpiexec) => {
            eprintln!("not run: no libmpi_abi next to {}", mpiexec.display());
            None
        }
        Err(error) => {
            eprintln!("not run: {error}");
            None
        }
    }
}

fn has_library(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with("libmpi_abi")
    })
}

#[test]
fn ranks_of_mpi_leave_the_bytes_of_one_process() {
    let lab = Lab::new();
    let recipe = lab.recipe("recipe.toml", common::GROWTH);
    let sets = ["--set", "train.steps=18", "--set", "train.accumulate=4"];
    succeed(lab.train(&recipe, "one", &sets));
    let Some(mpiexec) = mpiexec() else { return };
    for (ranks, moments) in [("2", "every"), ("3", "owner")] {
        let out = format!("ranks-{ranks}");
        let moments = format!("ranks.moments={moments}");
        let alone = lab.train(&recipe, &out, &[&sets[..], &["--set", &moments]].concat());
        let mut command = Command::new(&mpiexec);
        command
            .args(["-n", ranks, common::BIN])
            .args(alone.get_args());
        command.current_dir(lab.path("."));
        let ran = run(command);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert!(
            ran.err
                .contains(&format!("{ranks} ranks of mpirun, connected by")),
            "{}",
            ran.err
        );
        let [got, one] = [&*out, "one"].map(|name| Remains::of(&lab.path(name)));
        got.assert_equal(&one, &out);
    }
}

#[test]
fn a_cluster_is_planned_on_paper() {
    let lab = Lab::empty();
    let ran = succeed(lab.command(&["plan", "cluster", "--preset", "150m", "--link", "10g"]));
    for part in ["assumed:", "breaks first", "published: 633 ms", "10000"] {
        assert!(ran.out.contains(part), "no {part:?} in {}", ran.out);
    }
    let json = [
        "plan", "cluster", "--preset", "1.5b", "--ranks", "8,16", "--json",
    ];
    let found = common::json(&succeed(lab.command(&json)));
    assert_eq!(found[1]["ranks"], 16);
    fail(
        lab.command(&["plan", "cluster", "--node", "cpu"]),
        2,
        &["--flop-rate", "bench train"],
    );
    fail(
        lab.command(&["plan", "cluster", "--ranks", "0"]),
        2,
        &["--ranks"],
    );
    fail(
        lab.command(&["plan", "cluster", "--preset", "vit-b16"]),
        2,
        &["a model of text"],
    );
}
