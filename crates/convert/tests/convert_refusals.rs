//! Files that do not fit or are hostile give an error that names the problem, and leave nothing behind.

mod common;

use common::{CONFIG, Lab, lm0, message, save, save_torch, weights};
use tokenformer_formats::Dtype;

/// Converts changed weights, which must fail and leave no directory; returns the message.
fn refused(change: impl FnOnce(&mut common::Named)) -> String {
    let lab = Lab::new();
    let mut tensors = weights();
    change(&mut tensors);
    save_torch(&tensors, Dtype::F32, &lab.path("weights.bin"));
    let told = message(lab.convert(&lab.path("weights.bin"), "model"));
    assert!(!lab.path("model").exists());
    told
}

#[test]
fn all_missing_tensors_are_named_in_one_message() {
    let gone = [
        "sequential.0.word_embeddings.weight",
        "sequential.2.attention.key.value_param_tokens",
        "sequential.3.mlp.key_param_tokens",
        "sequential.5.norm.bias",
    ];
    let told = refused(|tensors| tensors.retain(|name, _| !gone.contains(&name.as_str())));
    for name in gone {
        assert!(told.contains(&format!("missing:  {name}\n")), "{told}");
    }
    assert!(
        told.contains("4 missing, 0 of another shape, 0 unexpected"),
        "{told}"
    );
}

#[test]
fn unexpected_tensors_are_named() {
    let told = refused(|tensors| {
        for name in [
            "sequential.2.input_layernorm.weight",
            "sequential.6.final_linear.weight",
        ] {
            tensors.insert(name.into(), (vec![1], vec![1.0]));
        }
    });
    assert!(
        told.contains("extra:    \"sequential.6.final_linear.weight\""),
        "{told}"
    );
    assert!(
        told.contains("0 missing, 0 of another shape, 2 unexpected"),
        "{told}"
    );
}

#[test]
fn saved_rotary_frequencies_are_no_weights() {
    let lab = Lab::new();
    let mut tensors = weights();
    let name = "sequential.2.attention.rotary_emb.inv_freq";
    tensors.insert(name.into(), (vec![2], vec![1.0, 0.01]));
    save(&tensors, &lab.path("weights.safetensors"));
    lab.convert(&lab.path("weights.safetensors"), "model")
        .unwrap();
}

#[test]
fn shapes_are_checked() {
    let told = refused(|tensors| {
        let (shape, numbers) = tensors
            .get_mut("sequential.3.attention.proj.key_param_tokens")
            .unwrap();
        shape[0] = 23;
        numbers.truncate(23 * 64);
    });
    assert!(
        told.contains("proj.key_param_tokens: [24, 64] expected, [23, 64] found"),
        "{told}"
    );
    let told = refused(|tensors| {
        let (shape, _) = tensors
            .get_mut("sequential.0.word_embeddings.weight")
            .unwrap();
        *shape = vec![64, 256];
    });
    assert!(
        told.contains("[64, 64] expected, [64, 256] found"),
        "{told}"
    );
}

#[test]
fn a_configuration_of_another_depth_is_named_as_such() {
    let lab = Lab::new();
    let deeper = CONFIG
        .replace("\"num_layers\": 2", "\"num_layers\": 3")
        .replace("], 2]", "], 3]");
    std::fs::write(lab.path("deeper.yml"), deeper).unwrap();
    let told = message(lab.convert_with(
        &lm0("model.safetensors"),
        &[lab.path("deeper.yml")],
        "model",
    ));
    assert!(
        told.contains("the file has 2 blocks and the configuration 3"),
        "{told}"
    );
}

#[test]
fn settings_of_other_models_are_refused() {
    let lab = Lab::new();
    for (key, other, named) in [
        (
            "\"norm\": \"layernorm_nonparam\"",
            "\"norm\": \"layernorm\"",
            "neither gain nor bias",
        ),
        (
            "\"pos_emb\"",
            "\"no_weight_tying\": true, \"pos_emb\"",
            "no_weight_tying",
        ),
        (
            "\"pos_emb\": \"rotary\"",
            "\"pos_emb\": \"alibi\"",
            "pos_emb",
        ),
        (
            "\"pos_emb\"",
            "\"gpt_j_residual\": true, \"pos_emb\"",
            "gpt_j_residual",
        ),
        (
            "\"num_layers\": 2",
            "\"num_layers\": 2147483647",
            "attention_config",
        ),
        (
            "\"hidden_size\": 64",
            "\"hidden_size\": 1073741824",
            "other.yml: width",
        ),
        (
            "\"hidden_size\": 64",
            "\"hidden_size\": 1048576",
            "[256, 1048576] expected, [256, 64] found",
        ),
    ] {
        let config = CONFIG.replace(key, other);
        assert_ne!(config, CONFIG);
        std::fs::write(lab.path("other.yml"), config).unwrap();
        let told =
            message(lab.convert_with(&lm0("model.safetensors"), &[lab.path("other.yml")], "model"));
        assert!(told.contains(named), "{told}");
        assert!(!lab.path("model").exists());
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let told = refused(|tensors| {
            let (_, numbers) = tensors
                .get_mut("sequential.3.mlp.value_param_tokens")
                .unwrap();
            numbers[7] = bad;
        });
        let place = "\"sequential.3.mlp.value_param_tokens\" is not finite at index [0, 7]";
        assert!(told.contains(place), "{told}");
        assert!(told.contains(&format!("got:      {bad}\n")), "{told}");
    }
}

#[test]
fn a_damaged_index_is_refused() {
    let lab = Lab::new();
    let folder = lab.folder("hf");
    for (index, named) in [
        ("[]", "cannot be read"),
        ("{\"weight_map\": {}}", "names no file"),
        (
            "{\"weight_map\": {\"a\": \"../lm0.yml\"}}",
            "leads elsewhere",
        ),
        (
            "{\"weight_map\": {\"a\": \"a.bin\", \"b\": \"b.safetensors\"}}",
            "several kinds",
        ),
        (
            "{\"weight_map\": {\"a\": \"gone.safetensors\"}}",
            "gone.safetensors",
        ),
    ] {
        std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
        let told = message(lab.convert(&folder, "model"));
        assert!(told.contains(named), "{told}");
    }
}

#[test]
fn folders_in_parts_are_called_what_they_are() {
    let lab = Lab::new();
    let folder = lab.folder("parts");
    for name in [".metadata", "__0_0.distcp"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    let told = message(lab.convert(&folder, "model"));
    assert!(
        told.contains("a folder of torch.distributed.checkpoint"),
        "{told}"
    );
    assert!(told.contains("dcp_to_torch"), "{told}");
    // A pipeline's checkpoint is found by the folder, by its step and by one of its files.
    let step = lab.folder("pipeline/global_step5");
    std::fs::write(step.join("layer_00-model_00-model_states.pt"), "").unwrap();
    for from in [
        "pipeline",
        "pipeline/global_step5",
        "pipeline/global_step5/layer_00-model_00-model_states.pt",
    ] {
        let told = message(lab.convert(&lab.path(from), "model"));
        assert!(
            told.contains("global_step5: a pipeline checkpoint"),
            "{told}"
        );
    }
}
