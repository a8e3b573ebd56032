//! Exported models come back as they were, and what the published layout cannot express is refused.

mod common;

use common::{
    Lab, TOKENIZER, device, largest_difference, lm0, load, logits_difference, message, read, save,
    stored, weights,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use tokenformer_convert::{WeightType, verify};
use tokenformer_core::config::NormSpan;
use tokenformer_core::growth::{Amount, Birth, Growth, Probe, TauRule, grow};
use tokenformer_core::{Model, init};
use tokenformer_store::DirWriter;
use tokenformer_train::files::{self, KIND_MODEL};

#[test]
fn weights_come_back_byte_for_byte() {
    let lab = Lab::new();
    let model = lab.model();
    let expected = stored(&model);
    for to in ["a/model.safetensors", "b/pytorch_model.bin", "c"] {
        std::fs::create_dir_all(lab.path(to).parent().unwrap()).unwrap();
        let exported = lab.export(&model, to, WeightType::F32).unwrap();
        assert_eq!(
            (exported.tensors, exported.joined, exported.files.len()),
            (23, 0, 1)
        );
        // The configuration is the one next to the weights.
        lab.convert_with(&lab.path(to), &[], "back").unwrap();
        assert!(stored(&lab.path("back")) == expected, "{to}");
        let configs =
            [model.clone(), lab.path("back")].map(|dir| files::read_config(&dir).unwrap());
        assert_eq!(configs[0], configs[1]);
    }
    // With their published names and shapes, not only such that we read them again.
    assert_eq!(read(&lab.path("a/model.safetensors")), weights());
    assert_eq!(read(&lab.path("c/model.safetensors")), weights());
}

#[test]
fn a_weight_that_is_no_number_is_named_and_nothing_is_left() {
    let lab = Lab::new();
    let model = lab.model();
    let path = model.join(files::WEIGHTS);
    let whole = read(&path);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut tensors = whole.clone();
        tensors.get_mut("embedding").unwrap().1[30 * 64 + 5] = bad;
        save(&tensors, &path);
        for (i, to) in ["a/model.safetensors", "b/model.bin", "c/model.pt", "d"]
            .iter()
            .enumerate()
        {
            let folder = lab.folder(&format!("out{i}"));
            let inside = to.split('/').next_back().unwrap();
            for weights in [WeightType::F32, WeightType::F16, WeightType::BF16] {
                let told = message(lab.export(&model, &format!("out{i}/{inside}"), weights));
                assert!(
                    told.contains("\"embedding\" is not finite at index [30, 5]"),
                    "{told}"
                );
                assert!(told.contains(&format!("got:      {bad}\n")), "{told}");
                assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{to}");
            }
        }
    }
}

#[test]
fn a_folder_is_split_into_files_of_a_size() {
    let lab = Lab::new();
    let model = lab.model();
    std::fs::write(lab.path("tokenizer.json"), TOKENIZER).unwrap();
    let exported = lab
        .export_sharded(&model, "hf", WeightType::F32, 100_000)
        .unwrap();
    assert!(exported.files.len() > 3);
    for file in &exported.files {
        let bytes: usize = read(file)
            .values()
            .map(|(_, numbers)| 4 * numbers.len())
            .sum();
        assert!(bytes <= 100_000, "{}: {bytes}", file.display());
    }
    let index = std::fs::read_to_string(lab.path("hf/model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let total: usize = weights()
        .values()
        .map(|(_, numbers)| 4 * numbers.len())
        .sum();
    assert_eq!(index["metadata"]["total_size"], total);
    for name in weights().keys() {
        let file = index["weight_map"][name].as_str().unwrap();
        assert!(
            read(&lab.path("hf").join(file)).contains_key(name),
            "{name}"
        );
    }
    lab.convert_with(&lab.path("hf"), &[], "back").unwrap();
    assert!(stored(&lab.path("back")) == stored(&model));
    assert!(
        verify(&lab.path("hf"), &device())
            .unwrap()
            .iter()
            .all(|check| check.passed)
    );
}

#[test]
fn a_folder_keeps_the_tokenizer_and_a_fingerprint_of_the_rounded_weights() {
    let lab = Lab::new();
    std::fs::write(lab.path("config.json"), common::CONFIG).unwrap();
    std::fs::write(lab.path("tokenizer.json"), TOKENIZER).unwrap();
    std::fs::copy(lm0("model.safetensors"), lab.path("model.safetensors")).unwrap();
    lab.convert_with(&lab.path("model.safetensors"), &[], "model")
        .unwrap();
    lab.export(&lab.path("model"), "hf", WeightType::BF16)
        .unwrap();
    assert_eq!(
        std::fs::read_to_string(lab.path("hf/tokenizer.json")).unwrap(),
        TOKENIZER
    );
    let checks = verify(&lab.path("hf"), &device()).unwrap();
    assert!(checks.iter().all(|check| check.passed), "{checks:?}");
    assert_eq!(checks.last().unwrap().name, "logits");
    // 256 rows are not 4 tokens padded to a multiple of 128.
    let config = std::fs::read_to_string(lab.path("hf/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["make_vocab_size_divisible_by"], 256);
    assert_eq!(config["torch_dtype"], "bfloat16");
}

#[test]
fn half_precision_is_rounded_to_nearest() {
    let lab = Lab::new();
    let model = lab.model();
    type Round = fn(f32) -> f32;
    let cases: [(WeightType, Round); 2] = [
        (WeightType::F16, |x| half::f16::from_f32(x).to_f32()),
        (WeightType::BF16, |x| half::bf16::from_f32(x).to_f32()),
    ];
    for (kind, round) in cases {
        let folder = lab.folder(&format!("{kind:?}"));
        lab.export(&model, &format!("{kind:?}/a.safetensors"), kind)
            .unwrap();
        lab.export(&model, &format!("{kind:?}/a.pt"), kind).unwrap();
        let exported = read(&folder.join("a.safetensors"));
        for (name, (_, numbers)) in weights() {
            let rounded: Vec<f32> = numbers.into_iter().map(round).collect();
            assert_eq!(exported[&name].1, rounded, "{name}");
        }
        for file in ["a.safetensors", "a.pt"] {
            lab.convert_with(&folder.join(file), &[], file).unwrap();
        }
        assert!(stored(&lab.path("a.safetensors")) == stored(&lab.path("a.pt")));
    }
}

#[test]
fn a_number_too_large_for_half_precision_is_refused() {
    let lab = Lab::new();
    let mut tensors = weights();
    tensors
        .get_mut("sequential.2.mlp.key_param_tokens")
        .unwrap()
        .1[5] = 70_000.0;
    save(&tensors, &lab.path("large.safetensors"));
    lab.convert(&lab.path("large.safetensors"), "model")
        .unwrap();
    for to in ["a.safetensors", "a.bin", "folder"] {
        let told = message(lab.export(&lab.path("model"), to, WeightType::F16));
        assert!(told.contains("7e4") && told.contains("bf16"), "{told}");
        assert!(!lab.path(to).exists());
    }
    lab.export(&lab.path("model"), "folder", WeightType::BF16)
        .unwrap();
}

/// The committed model, grown and saved.
fn grown(lab: &Lab, growth: &Growth) -> (PathBuf, Model) {
    let mut model = load(&lab.model());
    let birth = Birth {
        stage: 1,
        step: 0,
        seed: 7,
    };
    grow(&mut model, growth, birth, Probe::text(&[1, 2, 3])).unwrap();
    // New keys are random, so that new tokens matter.
    for param in model.params_mut() {
        if param.name().ends_with("segments.1.keys") {
            let numbers = init::normal(1, param.name(), param.len(), 0.05);
            device().write(&numbers, param.value_mut()).unwrap();
        }
    }
    let dir = lab.path("grown");
    let mut writer = DirWriter::begin(&dir, KIND_MODEL).unwrap();
    files::write_model(&mut writer, &model, None).unwrap();
    writer.commit().unwrap();
    (dir, model)
}

#[test]
fn segments_are_joined_where_that_is_exact() {
    let lab = Lab::new();
    let growth = Growth {
        qkv: Amount::Add(8),
        ffn: Amount::To(200),
        tau: TauRule::SqrtN,
        ..Growth::default()
    };
    let (dir, model) = grown(&lab, &growth);
    let exported = lab.export(&dir, "hf", WeightType::F32).unwrap();
    // Keys and values of four sites in two blocks.
    assert_eq!(exported.joined, 16);
    assert_eq!(
        read(&exported.files[0])["sequential.3.mlp.key_param_tokens"].0,
        [200, 64]
    );
    lab.convert_with(&lab.path("hf"), &[], "back").unwrap();
    let tokens: Vec<u32> = (0..40).collect();
    let [before, after] =
        [&model, &load(&lab.path("back"))].map(|model| model.infer(&tokens, 1).unwrap());
    let difference = largest_difference(&before, &after);
    assert!(difference < 1e-5, "{difference}");
    // New tokens do matter.
    let old = load(&lab.path("lm0")).infer(&tokens, 1).unwrap();
    assert!(largest_difference(&before, &old) > 1e-2);
}

#[test]
fn sites_that_the_layout_cannot_express_are_named_with_their_tau() {
    let lab = Lab::new();
    let pinned = Growth {
        ffn: Amount::Add(64),
        ..Growth::default()
    };
    let (dir, _) = grown(&lab, &pinned);
    let told = message(lab.export(&dir, "hf", WeightType::F32));
    assert!(
        told.starts_with("blocks.0.ffn: ") && told.contains("200 tokens"),
        "{told}"
    );
    assert!(told.contains("tau = 11.661904"), "{told}");
    assert!(!lab.path("hf").exists());

    let segment = Growth {
        proj: Amount::Add(8),
        norm: Some(NormSpan::Segment),
        ..Growth::default()
    };
    let (dir, _) = grown(&lab, &segment);
    let told = message(lab.export(&dir, "hf", WeightType::F32));
    assert!(
        told.starts_with("blocks.0.proj: ") && told.contains("each of 2 segments"),
        "{told}"
    );
}

#[test]
fn a_models_own_folder_and_foreign_configurations_are_left_alone() {
    let lab = Lab::new();
    let model = lab.model();
    let before = stored(&model);
    for name in ["lm0/model.safetensors", "lm0/pytorch_model.bin"] {
        let told = message(lab.export(&model, name, WeightType::F32));
        assert!(told.contains("belongs to a model"), "{told}");
    }
    let told = message(lab.export(&model, "lm0.yml", WeightType::F32));
    assert!(told.contains("a file of another kind"), "{told}");
    std::fs::write(lab.path("config.json"), "{}").unwrap();
    let told = message(lab.export(&model, "a.safetensors", WeightType::F32));
    assert!(told.contains("another configuration"), "{told}");
    assert!(!lab.path("a.safetensors").exists() && stored(&model) == before);
}

/// `TOKENFORMER_PYTHON` names a Python with PyTorch, which reads the written files; `TOKENFORMER_GOLDEN` names the
/// folder of golden checkpoints, which PyTorch wrote.
#[test]
#[ignore = "needs a Python with PyTorch and golden checkpoints, named by TOKENFORMER_PYTHON and TOKENFORMER_GOLDEN"]
fn pytorch_reads_the_original_weights() {
    let python = std::env::var_os("TOKENFORMER_PYTHON").expect("TOKENFORMER_PYTHON names a Python");
    let golden = std::env::var_os("TOKENFORMER_GOLDEN").expect("TOKENFORMER_GOLDEN names a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/same_weights.py");
    for name in ["lm0", "lm1", "lm2"] {
        let lab = Lab::new();
        let folder = Path::new(&golden).join(name);
        let original = folder.join("pytorch_model.bin");
        lab.convert_with(&original, &[folder.join("config.yml")], "model")
            .unwrap();
        let difference = logits_difference(
            &load(&lab.path("model")),
            &folder.join("expected.safetensors"),
        );
        assert!(difference < 1e-4, "{name}: {difference}");
        let mut compare = Command::new(&python);
        compare.arg(script).arg(&original);
        for (to, kind) in [
            ("32.bin", WeightType::F32),
            ("16.bin", WeightType::F16),
            ("b16.bin", WeightType::BF16),
            ("32.safetensors", WeightType::F32),
            ("16.safetensors", WeightType::F16),
        ] {
            let folder = lab.folder(&to.replace('.', "-"));
            lab.export(
                &lab.path("model"),
                &format!("{}/{to}", to.replace('.', "-")),
                kind,
            )
            .unwrap();
            compare.arg(folder.join(to));
        }
        lab.export_sharded(&lab.path("model"), "hf", WeightType::F32, 200_000)
            .unwrap();
        compare.arg(lab.path("hf"));
        assert!(compare.status().unwrap().success(), "{name}");
    }
}
