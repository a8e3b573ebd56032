//! Published checkpoints become model directories that compute the same.

mod common;

use common::{
    CONFIG, Lab, TOKENIZER, device, fixture, largest_difference, lm0, load, logits_difference,
    message, read, save, save_torch, stored, weights,
};
use std::path::Path;
use tokenformer_convert::fingerprint::Fingerprint;
use tokenformer_convert::{ConvertOptions, Error, convert, verify};
use tokenformer_core::Device;
use tokenformer_cpu::Cpu;
use tokenformer_data::TokenizerSpec;
use tokenformer_formats::Dtype;
use tokenformer_store::SafetensorsFile;
use tokenformer_train::files;

#[test]
fn logits_are_those_of_the_original() {
    let lab = Lab::new();
    let converted = lab.convert(&lm0("model.safetensors"), "model").unwrap();
    assert_eq!((converted.tensors, converted.has_tokenizer), (23, false));
    let model = load(&lab.path("model"));
    let difference = logits_difference(&model, &lm0("expected.safetensors"));
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn the_fingerprint_is_what_the_whole_model_computes() {
    let lab = Lab::new();
    for (from, configs) in [
        (lm0("model.safetensors"), vec![lab.path("lm0.yml")]),
        (fixture("full.bin"), vec![]),
    ] {
        let converted = lab.convert_with(&from, &configs, "model").unwrap();
        let path = lab.path("model/fingerprint.safetensors");
        let fingerprint = Fingerprint::read(&path, &converted.config).unwrap();
        let model = load(&lab.path("model"));
        let logits = model.infer(&fingerprint.tokens, 1).unwrap();
        let last = &logits[logits.len() - model.vocab()..];
        let difference = largest_difference(last, &fingerprint.logits);
        assert!(difference < 1e-5, "{difference}");
    }
}

#[test]
fn containers_do_not_matter() {
    let lab = Lab::new();
    let expected = stored(&lab.model());
    save_torch(&weights(), Dtype::F32, &lab.path("pytorch_model.bin"));
    lab.convert(&lab.path("pytorch_model.bin"), "from-torch")
        .unwrap();
    assert!(stored(&lab.path("from-torch")) == expected);

    // The name of a file does not decide: its content does.
    std::fs::copy(lm0("model.safetensors"), lab.path("weights.dat")).unwrap();
    lab.convert(&lab.path("weights.dat"), "from-dat").unwrap();
    assert!(stored(&lab.path("from-dat")) == expected);
}

#[test]
fn half_precision_becomes_the_same_numbers_in_f32() {
    let lab = Lab::new();
    type Round = fn(f32) -> f32;
    let rounded: [(Dtype, Round); 2] = [
        (Dtype::F16, |x| half::f16::from_f32(x).to_f32()),
        (Dtype::BF16, |x| half::bf16::from_f32(x).to_f32()),
    ];
    for (dtype, round) in rounded {
        save_torch(&weights(), dtype, &lab.path("half.bin"));
        lab.convert(&lab.path("half.bin"), "half").unwrap();
        let mut numbers = weights();
        for (_, tensor) in numbers.values_mut() {
            tensor.iter_mut().for_each(|x| *x = round(*x));
        }
        save(&numbers, &lab.path("rounded.safetensors"));
        lab.convert(&lab.path("rounded.safetensors"), "rounded")
            .unwrap();
        assert!(
            stored(&lab.path("half")) == stored(&lab.path("rounded")),
            "{dtype}"
        );
    }
}

#[test]
fn a_hugging_face_folder_is_taken_as_it_stands() {
    let lab = Lab::new();
    let folder = lab.folder("hf");
    save_torch(&weights(), Dtype::F32, &folder.join("pytorch_model.bin"));
    let keys = ", \"architectures\": [\"TokenFormerForCausalLM\"], \"torch_dtype\": \"float16\"}";
    std::fs::write(folder.join("config.json"), CONFIG.replace(",\n}", keys)).unwrap();
    std::fs::write(folder.join("tokenizer.json"), TOKENIZER).unwrap();
    let converted = lab.convert_with(&folder, &[], "model").unwrap();
    assert!(converted.has_tokenizer);
    let note =
        "keys of the configuration that have no effect here: \"architectures\", \"torch_dtype\"";
    assert_eq!(converted.notes, [note]);
    assert!(stored(&lab.path("model")) == stored(&lab.model()));
    let (bytes, _) = files::load_tokenizer(&lab.path("model")).unwrap();
    assert_eq!(bytes, TOKENIZER.as_bytes());
}

#[test]
fn sharded_folders_are_put_together() {
    let lab = Lab::new();
    let expected = stored(&lab.model());
    type Save = fn(&common::Named, &Path);
    let kinds: [(&str, Save); 2] = [
        ("model.safetensors", save),
        ("pytorch_model.bin", |tensors, path| {
            save_torch(tensors, Dtype::F32, path)
        }),
    ];
    for (single, save) in kinds {
        let folder = lab.folder(single);
        let (start, end) = single.split_once('.').unwrap();
        let (mut first, mut second) = (weights(), weights());
        first.retain(|name, _| name.contains(".2."));
        second.retain(|name, _| !name.contains(".2."));
        let mut map = Vec::new();
        for (number, part) in [first, second].iter().enumerate() {
            let name = format!("{start}-0000{}-of-00002.{end}", number + 1);
            save(part, &folder.join(&name));
            map.extend(part.keys().map(|tensor| format!("{tensor:?}: {name:?}")));
        }
        let index = format!(
            "{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}",
            map.join(", ")
        );
        std::fs::write(folder.join(format!("{single}.index.json")), index).unwrap();
        lab.convert(&folder, "sharded").unwrap();
        assert!(stored(&lab.path("sharded")) == expected, "{single}");
    }
}

#[test]
fn a_deepspeed_folder_gives_the_optimizers_weights() {
    let lab = Lab::new();
    // Made by PyTorch, which also says what the weights are; the configuration lies in the folder.
    let converted = lab
        .convert_with(&fixture("deepspeed"), &[], "merged")
        .unwrap();
    assert_eq!(converted.config.layers(), 1);
    lab.convert_with(&fixture("full.bin"), &[fixture("config.yml")], "full")
        .unwrap();
    assert!(stored(&lab.path("merged")) == stored(&lab.path("full")));
}

#[test]
fn a_deepspeed_folder_without_all_slices_gives_the_modules_weights_and_says_so() {
    let lab = Lab::new();
    let step = lab.folder("run/checkpoints/global_step3");
    std::fs::write(lab.path("run/checkpoints/latest"), "global_step3").unwrap();
    let states = "mp_rank_00_model_states.pt";
    std::fs::copy(
        fixture("deepspeed/global_step3").join(states),
        step.join(states),
    )
    .unwrap();
    let converted = lab
        .convert_with(&lab.path("run"), &[fixture("config.yml")], "module")
        .unwrap();
    assert!(
        converted.notes[0].contains("half-precision weights: no files with slices of 32-bit ones"),
        "{:?}",
        converted.notes
    );
    // One of two slices is not enough either.
    let slice = "zero_pp_rank_1_mp_rank_00_optim_states.pt";
    let from = fixture("deepspeed/global_step3").join(slice);
    std::fs::copy(from, step.join(slice)).unwrap();
    let configs = [fixture("config.yml")];
    let converted = lab.convert_with(&lab.path("run"), &configs, "one").unwrap();
    assert!(
        converted.notes[0].contains("half-precision weights: 1 of the 2"),
        "{:?}",
        converted.notes
    );
    std::fs::remove_file(step.join(slice)).unwrap();
    lab.convert_with(&fixture("half.bin"), &[fixture("config.yml")], "half")
        .unwrap();
    assert!(stored(&lab.path("module")) == stored(&lab.path("half")));
    // The path of the file alone is enough.
    lab.convert_with(&step.join(states), &[fixture("config.yml")], "alone")
        .unwrap();
    assert!(stored(&lab.path("alone")) == stored(&lab.path("half")));
}

#[test]
fn files_that_are_replaced_while_they_are_read_do_not_mix() {
    // So many rows that memory is released on the way; the embedding is written first.
    const ROWS: usize = 600_000;
    let lab = Lab::new();
    let other = |factor: f32| {
        let mut tensors = weights();
        let (shape, numbers) = tensors
            .get_mut("sequential.0.word_embeddings.weight")
            .unwrap();
        numbers.resize(ROWS * shape[1], 0.0);
        shape[0] = ROWS;
        for (name, (_, numbers)) in &mut tensors {
            if name.contains(".mlp.") {
                numbers.iter_mut().for_each(|x| *x *= factor);
            }
        }
        tensors
    };
    for kind in ["safetensors", "bin"] {
        let (path, newer) = (
            lab.path(&format!("w.{kind}")),
            lab.path(&format!("new.{kind}")),
        );
        for (path, factor) in [(&path, 1.0), (&newer, 2.0)] {
            match kind {
                "safetensors" => save(&other(factor), path),
                _ => save_torch(&other(factor), Dtype::F32, path),
            }
        }
        let options = ConvertOptions {
            from: path.clone(),
            configs: vec![lab.path("lm0.yml")],
            tokenizer: None,
            to: lab.path("model"),
        };
        convert(&options, &device(), &mut |_, _| {
            if newer.exists() {
                std::fs::rename(&newer, &path).unwrap();
            }
        })
        .unwrap();
        let model = SafetensorsFile::open(&lab.path("model").join(files::WEIGHTS)).unwrap();
        let (_, right) = &weights()["sequential.3.mlp.value_param_tokens"];
        let found = model.read_f32("blocks.1.ffn.segments.0.values").unwrap();
        assert!(found == *right, "{kind}");
        let checks = verify(&lab.path("model"), &device()).unwrap();
        assert!(checks.iter().all(|check| check.passed), "{checks:?}");
        std::fs::remove_dir_all(lab.path("model")).unwrap();
    }
}

#[test]
fn a_tokenizer_may_be_smaller_than_the_embedding_and_not_larger() {
    let lab = Lab::new();
    std::fs::write(lab.path("small.json"), TOKENIZER).unwrap();
    std::fs::write(
        lab.path("large.json"),
        "{\"version\":1,\"type\":\"bytes\"}\n",
    )
    .unwrap();
    let with = |tokenizer: TokenizerSpec| {
        let options = ConvertOptions {
            from: lm0("model.safetensors"),
            configs: vec![lab.path("lm0.yml")],
            tokenizer: Some(tokenizer),
            to: lab.path("model"),
        };
        let device: std::sync::Arc<dyn Device> = Cpu::new(Some(1));
        convert(&options, &device, &mut |_, _| {})
    };
    let file = |name: &str| TokenizerSpec::File(lab.path(name));
    assert!(with(file("small.json")).unwrap().has_tokenizer);
    for (large, tokens) in [
        (file("large.json"), "257"),
        (TokenizerSpec::Bytes, "257"),
        (TokenizerSpec::Gpt2, "50257"),
    ] {
        let told = message(with(large));
        assert!(
            told.contains("at most 256") && told.contains(tokens),
            "{told}"
        );
    }
    let told = message(with(TokenizerSpec::TrainBpe { vocab_size: 300 }));
    assert!(
        told.contains("--tokenizer") && told.contains("bpe:300"),
        "{told}"
    );
}

#[test]
fn progress_ends_with_every_byte() {
    let lab = Lab::new();
    let options = ConvertOptions {
        from: lm0("model.safetensors"),
        configs: vec![lab.path("lm0.yml")],
        tokenizer: None,
        to: lab.path("model"),
    };
    let mut seen = Vec::new();
    convert(&options, &common::device(), &mut |done, total| {
        seen.push((done, total))
    })
    .unwrap();
    let total: usize = weights()
        .values()
        .map(|(_, numbers)| 4 * numbers.len())
        .sum();
    assert_eq!(seen.last(), Some(&(total as u64, total as u64)));
    assert!(seen.is_sorted());
}

/// `TOKENFORMER_GOLDEN` names a folder with `lm0`, `lm1` and `lm2`: the same weights in three containers, their
/// configuration, and what an independent implementation computes.
#[test]
#[ignore = "needs golden checkpoints, named by TOKENFORMER_GOLDEN"]
fn golden_checkpoints_compute_their_golden_logits() {
    let golden = std::env::var_os("TOKENFORMER_GOLDEN").expect("TOKENFORMER_GOLDEN names a folder");
    for name in ["lm0", "lm1", "lm2"] {
        let lab = Lab::new();
        let folder = Path::new(&golden).join(name);
        let configs = [folder.join("config.yml")];
        let mut all = Vec::new();
        for file in [
            "pytorch_model.bin",
            "model.safetensors",
            "pytorch_model_fp16.bin",
        ] {
            lab.convert_with(&folder.join(file), &configs, file)
                .unwrap();
            all.push(stored(&lab.path(file)));
        }
        assert!(all[0] == all[1], "{name}: containers differ");
        for file in ["pytorch_model.bin", "model.safetensors"] {
            let difference =
                logits_difference(&load(&lab.path(file)), &folder.join("expected.safetensors"));
            println!("{name}/{file}: largest difference {difference:e}");
            assert!(difference < 1e-4, "{name}/{file}: {difference}");
        }
        // The half-precision file against the rounded weights.
        let mut rounded = read(&folder.join("model.safetensors"));
        for (_, numbers) in rounded.values_mut() {
            numbers
                .iter_mut()
                .for_each(|x| *x = half::f16::from_f32(*x).to_f32());
        }
        save(&rounded, &lab.path("rounded.safetensors"));
        lab.convert_with(&lab.path("rounded.safetensors"), &configs, "rounded")
            .unwrap();
        assert!(
            stored(&lab.path("rounded")) == all[2],
            "{name}: half precision"
        );
    }
}

#[test]
fn what_lies_elsewhere_is_asked_for() {
    let lab = Lab::new();
    let told = message(lab.convert_with(&lm0("model.safetensors"), &[], "model"));
    assert!(told.contains("--config"), "{told}");
    let told = message(lab.convert(&lab.path("nothing/here.bin"), "model"));
    assert!(told.contains("no such file or folder"), "{told}");
    let told = message(lab.convert(&lab.folder("empty"), "model"));
    assert!(told.contains("none of these"), "{told}");
    let told = message(lab.convert(&lab.model(), "again"));
    assert!(
        told.contains("a model of this program") && told.contains("export"),
        "{told}"
    );
    assert!(matches!(
        lab.convert(&lm0("model.safetensors"), "lm0.yml"),
        Err(Error::Store(
            tokenformer_store::Error::NotReplaceable { .. }
        ))
    ));
}
