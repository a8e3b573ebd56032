//! `--device cuda` on a machine without a GPU: what is missing, and plans. With the feature `cuda-emulator`, the whole command
//! line on an emulated GPU.

mod common;

use common::{Lab, fail, json, succeed};

fn has_driver(lab: &Lab) -> bool {
    let doctor = json(&succeed(lab.command(&["doctor", "--json"])));
    let lines = doctor["cuda"].as_array().expect("what was found for CUDA");
    !lines.iter().any(|line| {
        line.as_str()
            .is_some_and(|line| line.starts_with("driver: not found"))
    })
}

#[test]
fn what_is_missing_is_said() {
    let lab = Lab::new();
    let recipe = lab.recipe("tiny.toml", "");
    if has_driver(&lab) {
        return println!("skipped: this machine has a driver");
    }
    let train = |device| lab.train(&recipe, "run", &["--device", device]);
    fail(
        train("cuda"),
        1,
        &["cuda:0: no NVIDIA driver", "libcuda", "help:"],
    );
    fail(train("cuda:1"), 1, &["cuda:1: no NVIDIA driver"]);
    assert!(
        !lab.path("run").exists(),
        "a run that did not start leaves nothing"
    );
    for wrong in ["cuda:x", "cuda:80GB", "cuda:0GiB", "cpu:1", "rocm"] {
        fail(train(wrong), 2, &["--device", wrong, "cpu, cuda"]);
    }
    let doctor = succeed(lab.command(&["doctor"]));
    assert!(doctor.out.contains("driver: not found"), "{}", doctor.out);
}

#[test]
fn runs_are_planned_for_a_gpu_that_is_not_there() {
    let lab = Lab::new();
    let recipe = lab.recipe("tiny.toml", common::GROWTH);
    let plan = |device, more: &[&str]| {
        let mut args = vec!["inspect", "--plan", &recipe, "--device", device, "--json"];
        args.extend(more);
        json(&succeed(lab.command(&args)))
    };
    let found = plan("cuda:80GiB", &[]);
    assert_eq!(found["available_bytes"], 80u64 << 30);
    assert_eq!(found["modes"][0]["base_bytes"], 0);
    // The scratch memory of cuBLASLt.
    assert_eq!(found["modes"][0]["stages"][0]["scratch_bytes"], 32 << 20);
    assert_eq!(
        found["modes"][0]["stages"].as_array().map(Vec::len),
        Some(2)
    );
    let small = found["modes"][0]["peak_bytes"].as_u64().expect("a peak");
    let half = plan(
        "cuda:80GiB",
        &[
            "--set",
            "train.precision=\"bf16\"",
            "--set",
            "train.batch=256",
        ],
    );
    let full = plan("cuda:80GiB", &["--set", "train.batch=256"]);
    let peak = |plan: &serde_json::Value| plan["modes"][0]["peak_bytes"].as_u64().expect("a peak");
    assert!(
        small < peak(&half) && peak(&half) < peak(&full),
        "{small} {half} {full}"
    );
    // What does not fit is said, and what would.
    let large = [
        "inspect",
        "--plan",
        &recipe,
        "--device",
        "cuda:1GiB",
        "--set",
        "train.batch=20000",
    ];
    let said = succeed(lab.command(&large)).out;
    assert!(
        said.contains("does not fit into the memory of cuda"),
        "{said}"
    );
}

/// In bfloat16 the scores that a τ follows are measured as they flow through the network.
#[test]
fn a_tracked_tau_is_planned_in_bf16() {
    let lab = Lab::new();
    let growth = "\n[[grow]]\nat_step = 3\nffn = \"+16\"\ntau = \"tracked\"\n";
    let recipe = lab.recipe("tiny.toml", growth);
    let set = "train.precision=bf16";
    let plan = ["inspect", "--plan", &recipe, "--device", "cuda:80GiB"];
    succeed(lab.command(&[&plan[..], &["--set", set]].concat()));
}

#[cfg(feature = "cuda-emulator")]
mod emulated {
    use super::common::{GROWTH, Lab, Ran, loss_columns, run, succeed};

    /// The device, or `None` and a printed reason if the program was built without a C++ compiler.
    fn device(lab: &Lab) -> Option<&'static str> {
        let doctor = run(lab.command(&["doctor", "--device", "cuda-emulated"]));
        if doctor.code == Some(0) {
            return Some("cuda-emulated");
        }
        assert!(doctor.err.contains("no C++ compiler"), "{doctor:?}");
        println!("skipped: {}", doctor.err);
        None
    }

    fn on(lab: &Lab, device: &str, args: &[&str]) -> Ran {
        let mut all = args.to_vec();
        all.extend(["--device", device]);
        succeed(lab.command(&all))
    }

    /// What is free is asked of the GPU, not of the host.
    #[test]
    fn memory_is_that_of_the_gpu() {
        let lab = Lab::new();
        let Some(cuda) = device(&lab) else { return };
        let recipe = lab.recipe("tiny.toml", GROWTH);
        let plan = ["inspect", "--plan", &recipe, "--json"];
        let found = super::common::json(&on(&lab, cuda, &plan));
        assert_eq!(found["available_bytes"], 8u64 << 30);
        assert_eq!(found["modes"][0]["base_bytes"], 0);
        let large = ["--device", cuda, "--set", "train.batch=2000000"];
        let parts = ["this run: not enough memory", "8 GiB on cuda", "help:"];
        super::common::fail(lab.train(&recipe, "run", &large), 1, &parts);
        assert!(!lab.path("run").exists());
    }

    /// Losses of the records of a run.
    fn losses(lab: &Lab, run: &str) -> Vec<f64> {
        let lines = loss_columns(&lab.path(run));
        let loss = |line: &String| {
            let record: serde_json::Value = serde_json::from_str(line).ok()?;
            record["loss"].as_f64()
        };
        lines.iter().filter_map(loss).collect()
    }

    /// Training, growth, resuming on the other device, evaluation and sampling; checkpoints move both ways.
    #[test]
    fn a_run_goes_from_the_gpu_to_the_cpu_and_back() {
        let lab = Lab::new();
        let Some(cuda) = device(&lab) else { return };
        let growth = GROWTH.replace("at_step = 13", "at_step = 3");
        let recipe = lab.recipe("tiny.toml", &growth);
        let settings = [
            "--set",
            "checkpoint.every=1",
            "--set",
            "log.every=1",
            "--set",
            "sample.every=5",
        ];
        let steps = |n: &'static str| ["--set", n];
        let train = |out: &str, device: &str, steps: [&str; 2]| {
            let mut args = vec!["train", "--config", &recipe, "--out", out];
            args.extend(settings);
            args.extend(steps);
            on(&lab, device, &args)
        };
        // Five steps with a growth after the third, on both devices.
        train("gpu", cuda, steps("train.steps=5"));
        train("cpu", "cpu", steps("train.steps=5"));
        let (gpu, cpu) = (losses(&lab, "gpu"), losses(&lab, "cpu"));
        assert!(gpu.len() >= 5 && gpu.len() == cpu.len(), "{gpu:?} {cpu:?}");
        for (gpu, cpu) in gpu.iter().zip(&cpu) {
            assert!(
                (gpu - cpu).abs() < 2e-3,
                "{gpu} on the GPU, {cpu} on the CPU"
            );
        }
        let metrics = std::fs::read_to_string(lab.path("gpu/metrics.jsonl")).expect("records");
        assert!(
            metrics.contains(r#""max_logit_diff":0.0"#),
            "the growth is exact: {metrics}"
        );
        // What one device trained is trained on and used by the other.
        train("gpu", "cpu", steps("train.steps=7"));
        train("cpu", cuda, steps("train.steps=7"));
        let model = ["--model", "gpu"];
        for device in ["cpu", cuda] {
            let text = on(
                &lab,
                device,
                &[
                    "generate", model[0], model[1], "--prompt", "ka", "--tokens", "8",
                ],
            );
            assert!(text.out.contains("ka"), "{text:?}");
            on(&lab, device, &["verify", "gpu"]);
        }
    }
}
