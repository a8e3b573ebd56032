//! What a checkpoint has more than once has to agree, or it is refused by its name, its place and both numbers.

mod common;

use std::path::{Path, PathBuf};

use common::{Lab, Named, fixture, message, save, save_torch, stored, weights};
use tokenformer_formats::{Dtype, TorchFile};

const STEP: &str = "training/global_step3";

/// A copy of the training folder that a test may damage.
fn training(lab: &Lab) -> PathBuf {
    let step = lab.folder(STEP);
    lab.folder(&format!("{STEP}/configs"));
    for name in [
        "mp_rank_00_model_states.pt",
        "zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "zero_pp_rank_1_mp_rank_00_optim_states.pt",
        "configs/model.yml",
    ] {
        let from = fixture("deepspeed/global_step3").join(name);
        std::fs::copy(from, step.join(name)).unwrap();
    }
    std::fs::write(step.with_file_name("latest"), "global_step3").unwrap();
    step.parent().unwrap().into()
}

/// The bytes of a tensor of the optimizer's weights.
fn master(name: &str) -> Vec<u8> {
    let file = TorchFile::open(&fixture("full.bin")).unwrap();
    let numbers = file.tensors().unwrap().read_f32(name).unwrap();
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Replaces bytes that a file has once, and removes its checksums.
fn replace(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(from.len()).position(|found| found == from);
    let at = at.expect("the bytes");
    bytes[at..at + to.len()].copy_from_slice(to);
    for record in 0..bytes.len() - 20 {
        if bytes[record..].starts_with(b"PK\x01\x02") {
            bytes[record + 16..record + 20].fill(0);
        }
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn the_optimizers_weights_round_to_those_of_the_module() {
    let lab = Lab::new();
    let folder = training(&lab);
    lab.convert_with(&folder, &[], "whole").unwrap();
    lab.convert_with(&fixture("full.bin"), &[fixture("config.yml")], "full")
        .unwrap();
    assert_eq!(stored(&lab.path("whole")), stored(&lab.path("full")));

    // Two tensors of the same shape have each other's place.
    let (query, value) = (
        "sequential.2.attention.query.key_param_tokens",
        "sequential.2.attention.value.key_param_tokens",
    );
    let shard = |rank| {
        folder.join(format!(
            "global_step3/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        ))
    };
    replace(&shard(0), &master(query), &master(value));
    replace(&shard(1), &master(value), &master(query));
    let told = message(lab.convert_with(&folder, &[], "swapped"));
    let first = |name: &str| f32::from_le_bytes(*master(name).first_chunk().unwrap());
    let half = half::f16::from_f32(first(query)).to_f32();
    assert!(
        told.contains(&format!("the tensor \"{query}\" differs from that in ")),
        "{told}"
    );
    assert!(told.contains("at index [0, 0]\n"), "{told}");
    let both = format!("expected: {half}\n  got:      {}\n", first(value));
    assert!(told.contains(&both), "{told}");
    assert!(!lab.path("swapped").exists());
}

#[test]
fn one_number_that_half_precision_tells_apart_is_enough() {
    let lab = Lab::new();
    let folder = training(&lab);
    let name = "sequential.2.mlp.value_param_tokens";
    let shard = folder.join("global_step3/zero_pp_rank_1_mp_rank_00_optim_states.pt");
    let bytes = master(name);
    // Row 1, column 3 of width 8.
    let (before, number) = (&bytes[..11 * 4], &bytes[11 * 4..12 * 4]);
    let old = f32::from_le_bytes(*number.first_chunk().unwrap());
    let replaced = |new: f32| [before, &new.to_le_bytes()].concat();
    replace(&shard, &bytes[..12 * 4], &replaced(old * 1.01));
    let told = message(lab.convert_with(&folder, &[], "other"));
    assert!(
        told.contains(&format!("the tensor \"{name}\" differs from ")),
        "{told}"
    );
    assert!(told.contains("at index [1, 3]\n"), "{told}");
    // A difference that rounding takes away is none.
    replace(
        &shard,
        &replaced(old * 1.01),
        &replaced(half::f16::from_f32(old).to_f32()),
    );
    lab.convert_with(&folder, &[], "rounded").unwrap();
}

#[test]
fn a_file_of_a_training_folder_means_the_whole_checkpoint() {
    let lab = Lab::new();
    let folder = training(&lab);
    lab.convert_with(&folder, &[], "folder").unwrap();
    for name in [
        "mp_rank_00_model_states.pt",
        "zero_pp_rank_1_mp_rank_00_optim_states.pt",
    ] {
        lab.convert_with(&folder.join("global_step3").join(name), &[], name)
            .unwrap();
        assert_eq!(stored(&lab.path(name)), stored(&lab.path("folder")));
    }
}

/// The committed weights with one tensor more.
fn with(name: &str, tensor: (Vec<usize>, Vec<f32>)) -> Named {
    let mut tensors = weights();
    tensors.insert(name.into(), tensor);
    tensors
}

#[test]
fn an_output_head_is_the_embedding_or_refused() {
    let lab = Lab::new();
    let right = stored(&lab.model());
    let embedding = weights()["sequential.0.word_embeddings.weight"].clone();
    let path = lab.path("w.bin");
    for (i, name) in ["lm_head.weight", "sequential.6.final_linear.weight"]
        .iter()
        .enumerate()
    {
        save_torch(&with(name, embedding.clone()), Dtype::F32, &path);
        lab.convert(&path, &i.to_string()).unwrap();
        assert_eq!(stored(&lab.path(&i.to_string())), right);
        let mut other = embedding.clone();
        other.1[2 * 64 + 5] = 7.5;
        save_torch(&with(name, other), Dtype::F32, &path);
        let told = message(lab.convert(&path, "other"));
        assert!(
            told.contains(&format!("the tensor \"{name}\" differs from ")),
            "{told}"
        );
        assert!(told.contains("at index [2, 5]\n"), "{told}");
        let expected = embedding.1[2 * 64 + 5];
        assert!(
            told.contains(&format!("expected: {expected}\n  got:      7.5\n")),
            "{told}"
        );
    }
}

#[test]
fn a_head_beside_the_model_counts_as_its_head() {
    let lab = Lab::new();
    let right = stored(&lab.model());
    let embedding = weights()["sequential.0.word_embeddings.weight"].clone();
    let path = lab.path("w.safetensors");
    for (i, (prefix, head)) in [
        ("model.", "lm_head.weight"),
        ("model.", "final_linear.weight"),
        ("state_dict.net.model.", "state_dict.net.embed_out.weight"),
        ("module.model.", "module._orig_mod.lm_head.weight"),
    ]
    .iter()
    .enumerate()
    {
        let with = |head: &str, tensor| {
            let renamed = weights().into_iter();
            let mut tensors: Named =
                (renamed.map(|(name, t)| (format!("{prefix}{name}"), t))).collect();
            tensors.insert(head.into(), tensor);
            save(&tensors, &path);
        };
        with(head, embedding.clone());
        lab.convert(&path, &i.to_string()).unwrap();
        assert_eq!(stored(&lab.path(&i.to_string())), right, "{head}");
        let mut other = embedding.clone();
        other.1[2 * 64 + 5] = 7.5;
        with(head, other);
        let told = message(lab.convert(&path, "other"));
        assert!(told.contains("at index [2, 5]\n"), "{told}");
        assert!(told.contains("no output head but the embedding"), "{told}");
        // A bias adds to the logits, and the published architecture has none.
        let bias = head.replace(".weight", ".bias");
        with(&bias, (vec![embedding.0[0]], vec![0.5; embedding.0[0]]));
        let told = message(lab.convert(&path, "other"));
        assert!(told.contains("1 unexpected"), "{told}");
    }
}

/// A folder of two files with an index that names `weight_map`, as JSON.
fn sharded(lab: &Lab, first: &Named, second: &Named, weight_map: &str) -> PathBuf {
    let folder = lab.folder("hf");
    save(first, &folder.join("model-00001-of-00002.safetensors"));
    save(second, &folder.join("model-00002-of-00002.safetensors"));
    let index = format!("{{\"weight_map\": {weight_map}}}");
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    folder
}

fn map_of(files: &[(&Named, usize)]) -> String {
    let entries = files.iter().flat_map(|(tensors, file)| {
        let name = format!("model-{file:05}-of-00002.safetensors");
        tensors
            .keys()
            .map(move |key| format!("\"{key}\": \"{name}\""))
    });
    format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
}

#[test]
fn a_tensor_in_two_files_is_the_same_in_both_or_refused() {
    let lab = Lab::new();
    let right = stored(&lab.model());
    let all = weights();
    let (norms, most): (Named, Named) =
        (all.clone().into_iter()).partition(|(name, _)| name.contains(".norm."));
    let folder = sharded(&lab, &all, &norms, &map_of(&[(&most, 1), (&norms, 2)]));
    lab.convert(&folder, "same").unwrap();
    assert_eq!(stored(&lab.path("same")), right);

    let mut others = norms.clone();
    others.get_mut("sequential.5.norm.weight").unwrap().1[40] = -3.0;
    let folder = sharded(&lab, &all, &others, &map_of(&[(&most, 1), (&norms, 2)]));
    let told = message(lab.convert(&folder, "other"));
    let place = "model-00002-of-00002.safetensors: the tensor \"sequential.5.norm.weight\" differs from that in ";
    assert!(told.contains(place), "{told}");
    assert!(
        told.contains("model-00001-of-00002.safetensors at index"),
        "{told}"
    );
    assert!(told.contains("at index [40]\n"), "{told}");
    assert!(told.contains("got:      -3\n"), "{told}");
}

#[test]
fn an_index_that_does_not_fit_its_files_is_refused() {
    let lab = Lab::new();
    let all = weights();
    let (norms, most): (Named, Named) =
        (all.clone().into_iter()).partition(|(name, _)| name.contains(".norm."));
    let folder = sharded(&lab, &most, &norms, &map_of(&[(&most, 1), (&norms, 1)]));
    let told = message(lab.convert(&folder, "model"));
    assert!(
        told.contains("the index and the files do not belong together"),
        "{told}"
    );
    assert!(
        told.contains("\"sequential.5.norm.bias\" in \"model-00001-of-00002.safetensors\""),
        "{told}"
    );
    let twice = map_of(&[(&most, 1), (&norms, 1), (&norms, 2)]);
    let folder = sharded(&lab, &most, &norms, &twice);
    let told = message(lab.convert(&folder, "model"));
    assert!(
        told.contains("\"sequential.5.norm.bias\" appears twice"),
        "{told}"
    );
    let mut more = norms.clone();
    more.insert("gone".into(), (vec![1], vec![0.0]));
    let folder = sharded(&lab, &most, &norms, &map_of(&[(&most, 1), (&more, 2)]));
    let told = message(lab.convert(&folder, "model"));
    assert!(
        told.contains("got:      no such tensor in any of the files"),
        "{told}"
    );
}

#[test]
fn saved_rotary_frequencies_are_those_of_the_configuration() {
    let lab = Lab::new();
    let name = "sequential.2.attention.rotary_emb.inv_freq";
    let path = lab.path("w.safetensors");
    for (table, told_part) in [
        (
            vec![1.0, 0.001],
            "expected: 1e-2 at index [1] of sequential.2",
        ),
        (vec![1.0, 0.1, 0.01, 0.001], "expected: 2 of them"),
        (vec![1.0], "expected: 2 of them"),
    ] {
        save(&with(name, (vec![table.len()], table)), &path);
        let told = message(lab.convert(&path, "model"));
        assert!(told.contains(told_part), "{told}");
    }
    save(&with(name, (vec![2], vec![1.0, 0.010002136])), &path);
    lab.convert(&path, "rounded").unwrap();
    // A model without positions has no frequencies either.
    let config = common::CONFIG.replace("\"rotary\"", "\"none\"");
    std::fs::write(lab.path("none.yml"), config).unwrap();
    let told = message(lab.convert_with(&path, &[lab.path("none.yml")], "none"));
    assert!(told.contains("the configuration other positions"), "{told}");
    assert!(told.contains(name), "{told}");
}
