//! Plain Transformers in the GPT-NeoX and GPT-2 layouts of Hugging Face `transformers`: out and back to the bit.

mod common;

use common::{
    Lab, Named, TOKENIZER, device, largest_difference, load, message, read, save, save_torch,
    stored,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tokenformer_convert::{WeightType, verify};
use tokenformer_core::config::{
    Family, HeadKind, Init, LayerConfig, LogitScale, ModelSpec, NormKind, Positions, Residual,
};
use tokenformer_core::path::ParamRole;
use tokenformer_core::{Model, ModelConfig, init};
use tokenformer_formats::Dtype;
use tokenformer_store::{DirWriter, TensorSource, write_safetensors};
use tokenformer_train::files::{self, KIND_MODEL};

const WIDTH: usize = 24;
const HEADS: usize = 2;
const CHANNELS: usize = WIDTH / HEADS;

/// Rotary positions, plain norms in the blocks, no biases, a tied head: the presets.
fn gpt() -> ModelSpec {
    ModelSpec {
        family: Family::Gpt,
        vocab: 37,
        width: WIDTH,
        layers: 2,
        heads: HEADS,
        context: 20,
        mlp_hidden: 40,
        positions: Positions::Rotary {
            fraction: 0.5,
            base: 5000.0,
        },
        ..ModelSpec::default()
    }
}

/// What Pythia models are.
fn neox() -> ModelSpec {
    ModelSpec {
        bias: true,
        residual: Residual::Parallel,
        block_norm: NormKind::Affine,
        head: HeadKind::Untied,
        ..gpt()
    }
}

fn gpt2() -> ModelSpec {
    ModelSpec {
        bias: true,
        positions: Positions::Learned,
        block_norm: NormKind::Affine,
        ..gpt()
    }
}

/// A model with noise in every array, so that none can be exchanged for another unseen.
fn model_of(config: &ModelConfig) -> Model {
    Model::build(&device(), config, &mut |path, shape| {
        let noise = init::normal(3, &path.to_string(), shape.iter().product(), 0.3);
        let start = if path.role == ParamRole::Gain {
            1.0
        } else {
            0.0
        };
        Ok(noise.into_iter().map(|x| start + x).collect())
    })
    .unwrap()
}

/// Writes the model of `config` as a model directory.
fn write(lab: &Lab, name: &str, config: &ModelConfig) -> PathBuf {
    let dir = lab.path(name);
    let mut writer = DirWriter::begin(&dir, KIND_MODEL).unwrap();
    files::write_model(&mut writer, &model_of(config), Some(TOKENIZER.as_bytes())).unwrap();
    writer.commit().unwrap();
    dir
}

fn write_spec(lab: &Lab, spec: &ModelSpec) -> PathBuf {
    write(lab, "model", &spec.build().unwrap())
}

fn keys(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
}

/// Changes keys of a folder's configuration; `null` removes one.
fn change(folder: &Path, changes: Value) {
    let mut config = keys(folder);
    for (key, value) in changes.as_object().unwrap() {
        let config = config.as_object_mut().unwrap();
        match value {
            Value::Null => config.remove(key),
            value => config.insert(key.clone(), value.clone()),
        };
    }
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn both_layouts_come_back_byte_for_byte() {
    let bare = ModelSpec {
        head: HeadKind::Untied,
        final_norm: NormKind::Plain,
        init: Init::FanIn,
        bias: false,
        ..gpt2()
    };
    for (spec, kind) in [
        (gpt(), "GPTNeoXForCausalLM"),
        (neox(), "GPTNeoXForCausalLM"),
        (gpt2(), "GPT2LMHeadModel"),
        (bare, "GPT2LMHeadModel"),
    ] {
        let lab = Lab::new();
        let mut config = spec.build().unwrap();
        config.norm_eps = 3e-6;
        let model = write(&lab, "model", &config);
        for to in ["a/model.safetensors", "b/pytorch_model.bin", "c"] {
            std::fs::create_dir_all(lab.path(to).parent().unwrap()).unwrap();
            let exported = lab.export(&model, to, WeightType::F32).unwrap();
            assert_eq!((exported.params, exported.joined), (config.params(), 0));
            lab.convert_with(&lab.path(to), &[], "back").unwrap();
            assert_eq!(files::read_config(&lab.path("back")).unwrap(), config);
            assert!(
                stored(&lab.path("back")) == stored(&model),
                "{to}: {spec:?}"
            );
        }
        assert_eq!(keys(&lab.path("c"))["architectures"][0], kind);
        assert_eq!(keys(&lab.path("a")), keys(&lab.path("c")));
        let tokenizer = std::fs::read_to_string(lab.path("c/tokenizer.json")).unwrap();
        assert_eq!(tokenizer, TOKENIZER);
        for folder in ["back", "c"] {
            let checks = verify(&lab.path(folder), &device()).unwrap();
            assert!(checks.iter().all(|check| check.passed), "{checks:?}");
            assert_eq!(checks.last().unwrap().name, "logits");
        }
        let tokens: Vec<u32> = (0..20).collect();
        let logits = load(&lab.path("back")).infer(&tokens, 1).unwrap();
        assert_eq!(logits, model_of(&config).infer(&tokens, 1).unwrap());
    }
}

/// The names and shapes of the tensors that `transformers` saves for these sizes.
fn expected(layout: &str) -> Vec<(String, Vec<usize>)> {
    let (d, h) = (WIDTH, 40);
    type Tensors = Vec<(&'static str, Vec<usize>)>;
    let (blocks, block, trunk): (&str, Tensors, Tensors) = match layout {
        "neox" => (
            "gpt_neox.layers",
            vec![
                ("input_layernorm.weight", vec![d]),
                ("input_layernorm.bias", vec![d]),
                ("post_attention_layernorm.weight", vec![d]),
                ("post_attention_layernorm.bias", vec![d]),
                ("attention.query_key_value.weight", vec![3 * d, d]),
                ("attention.query_key_value.bias", vec![3 * d]),
                ("attention.dense.weight", vec![d, d]),
                ("attention.dense.bias", vec![d]),
                ("mlp.dense_h_to_4h.weight", vec![h, d]),
                ("mlp.dense_h_to_4h.bias", vec![h]),
                ("mlp.dense_4h_to_h.weight", vec![d, h]),
                ("mlp.dense_4h_to_h.bias", vec![d]),
            ],
            vec![
                ("gpt_neox.embed_in.weight", vec![37, d]),
                ("gpt_neox.final_layer_norm.weight", vec![d]),
                ("gpt_neox.final_layer_norm.bias", vec![d]),
                ("embed_out.weight", vec![37, d]),
            ],
        ),
        _ => (
            "transformer.h",
            vec![
                ("ln_1.weight", vec![d]),
                ("ln_1.bias", vec![d]),
                ("ln_2.weight", vec![d]),
                ("ln_2.bias", vec![d]),
                ("attn.c_attn.weight", vec![d, 3 * d]),
                ("attn.c_attn.bias", vec![3 * d]),
                ("attn.c_proj.weight", vec![d, d]),
                ("attn.c_proj.bias", vec![d]),
                ("mlp.c_fc.weight", vec![d, h]),
                ("mlp.c_fc.bias", vec![h]),
                ("mlp.c_proj.weight", vec![h, d]),
                ("mlp.c_proj.bias", vec![d]),
            ],
            vec![
                ("transformer.wte.weight", vec![37, d]),
                ("transformer.wpe.weight", vec![20, d]),
                ("transformer.ln_f.weight", vec![d]),
                ("transformer.ln_f.bias", vec![d]),
            ],
        ),
    };
    let of_block = |b: usize| {
        let named = block.iter();
        named.map(move |(name, shape)| (format!("{blocks}.{b}.{name}"), shape.clone()))
    };
    let mut all: Vec<_> = (0..2).flat_map(of_block).collect();
    all.extend(trunk.into_iter().map(|(name, shape)| (name.into(), shape)));
    all.sort();
    all
}

/// The numbers of an array of [`model_of`].
fn array(model: &Model, name: &str) -> Vec<f32> {
    let param = model.each_param().find(|p| p.name() == name).unwrap();
    let mut host = vec![0.0; param.len()];
    model.device().read(param.value(), &mut host).unwrap();
    host
}

fn exported(lab: &Lab, spec: &ModelSpec) -> Named {
    let model = write_spec(lab, spec);
    lab.export(&model, "hf", WeightType::F32).unwrap();
    read(&lab.path("hf/model.safetensors"))
}

#[test]
fn names_shapes_and_order_of_gpt_neox() {
    let tensors = exported(&Lab::new(), &neox());
    let shapes = tensors
        .iter()
        .map(|(name, (shape, _))| (name.clone(), shape.clone()));
    assert_eq!(shapes.collect::<Vec<_>>(), expected("neox"));
    let model = model_of(&neox().build().unwrap());
    let fused = &tensors["gpt_neox.layers.1.attention.query_key_value.weight"].1;
    let fused_bias = &tensors["gpt_neox.layers.1.attention.query_key_value.bias"].1;
    for (i, part) in ["query", "key", "value"].into_iter().enumerate() {
        let weight = array(&model, &format!("blocks.1.{part}.weight"));
        let bias = array(&model, &format!("blocks.1.{part}.bias"));
        for (row, bias) in bias.into_iter().enumerate() {
            // Rows are [head, part, channel].
            let at = (row / CHANNELS * 3 + i) * CHANNELS + row % CHANNELS;
            assert_eq!(fused_bias[at], bias);
            let row = row * WIDTH..(row + 1) * WIDTH;
            assert_eq!(fused[at * WIDTH..(at + 1) * WIDTH], weight[row]);
        }
    }
    let up = array(&model, "blocks.0.ffn.up.weight");
    assert_eq!(tensors["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"].1, up);
    assert_eq!(tensors["embed_out.weight"].1, array(&model, "head"));
}

#[test]
fn names_shapes_and_order_of_gpt_2() {
    let tensors = exported(&Lab::new(), &gpt2());
    let shapes = tensors
        .iter()
        .map(|(name, (shape, _))| (name.clone(), shape.clone()));
    assert_eq!(shapes.collect::<Vec<_>>(), expected("gpt2"));
    let model = model_of(&gpt2().build().unwrap());
    let fused = &tensors["transformer.h.1.attn.c_attn.weight"].1;
    for (i, part) in ["query", "key", "value"].into_iter().enumerate() {
        let weight = array(&model, &format!("blocks.1.{part}.weight"));
        for (at, number) in weight.into_iter().enumerate() {
            let (output, input) = (at / WIDTH, at % WIDTH);
            assert_eq!(fused[input * 3 * WIDTH + i * WIDTH + output], number);
        }
    }
    let down = array(&model, "blocks.0.ffn.down.weight");
    let stored = &tensors["transformer.h.0.mlp.c_proj.weight"].1;
    for (at, number) in down.into_iter().enumerate() {
        assert_eq!(stored[at % 40 * WIDTH + at / 40], number);
    }
}

#[test]
fn what_a_model_does_not_have_is_written_as_constants() {
    let tensors = exported(&Lab::new(), &gpt());
    let constants = |end: &str, value: f32| {
        let found = tensors
            .iter()
            .filter(|(name, _)| name.contains(".layers.") && name.ends_with(end));
        let mut count = 0;
        for (name, (_, numbers)) in found {
            assert!(numbers.iter().all(|&x| x == value), "{name}");
            count += 1;
        }
        count
    };
    assert_eq!(constants(".bias", 0.0), 2 * 6);
    assert_eq!(constants("layernorm.weight", 1.0), 2 * 2);
}

#[test]
fn a_foreign_checkpoint_is_taken_as_it_is() {
    let lab = Lab::new();
    exported(&lab, &gpt());
    change(
        &lab.path("hf"),
        json!({"tokenformer": null, "torch_dtype": null}),
    );
    lab.convert_with(&lab.path("hf"), &[], "back").unwrap();
    let config = files::read_config(&lab.path("back")).unwrap();
    let expected = ModelSpec {
        bias: true,
        block_norm: NormKind::Affine,
        ..gpt()
    };
    assert_eq!(config, expected.build().unwrap());
    let tokens: Vec<u32> = (0..20).collect();
    let logits = load(&lab.path("back")).infer(&tokens, 1).unwrap();
    let own = model_of(&gpt().build().unwrap()).infer(&tokens, 1).unwrap();
    assert!(largest_difference(&logits, &own) < 1e-5);
}

#[test]
fn old_files_of_both_layouts_are_read() {
    let lab = Lab::new();
    let mut tensors = exported(&lab, &gpt2());
    let model = lab.path("model");
    // Masks, a head that is the embedding, and a model that was saved without its head.
    let head = tensors["transformer.wte.weight"].clone();
    tensors.insert("lm_head.weight".into(), head);
    let mask = (vec![1, 1, 20, 20], vec![1.0; 400]);
    tensors.insert("transformer.h.0.attn.bias".into(), mask);
    tensors.insert(
        "transformer.h.1.attn.masked_bias".into(),
        (vec![1], vec![-1e4]),
    );
    for (name, tensors) in [
        ("with_head", tensors.clone()),
        (
            "without_prefix",
            (tensors
                .iter()
                .filter(|(name, _)| !name.starts_with("lm_head")))
            .map(|(name, t)| (name.replacen("transformer.", "", 1), t.clone()))
            .collect(),
        ),
    ] {
        let folder = lab.folder(name);
        std::fs::copy(lab.path("hf/config.json"), folder.join("config.json")).unwrap();
        save_torch(&tensors, Dtype::F32, &folder.join("pytorch_model.bin"));
        lab.convert_with(&folder, &[], "back").unwrap();
        assert!(stored(&lab.path("back")) == stored(&model), "{name}");
    }

    let lab = Lab::new();
    let mut tensors = exported(&lab, &neox());
    let head = tensors.remove("embed_out.weight").unwrap();
    tensors.insert("lm_head.weight".into(), head);
    let name = "gpt_neox.layers.0.attention.rotary_emb.inv_freq";
    let Positions::Rotary { fraction, base } = neox().positions else {
        panic!("GPT-NeoX has rotary positions");
    };
    let dims = (neox().width / neox().heads) as f64 * fraction;
    let table = (0..dims as usize / 2).map(|i| base.powf(-2.0 * i as f64 / dims) as f32);
    let table: Vec<f32> = table.collect();
    tensors.insert(name.into(), (vec![table.len()], table));
    let folder = lab.folder("new_names");
    std::fs::copy(lab.path("hf/config.json"), folder.join("config.json")).unwrap();
    // Old configurations have the settings of rotary positions among the others.
    change(
        &folder,
        json!({"rope_parameters": null, "model_type": null}),
    );
    save(&tensors, &folder.join("model.safetensors"));
    lab.convert_with(&folder, &[], "back").unwrap();
    assert!(stored(&lab.path("back")) == stored(&lab.path("model")));
    let config = files::read_config(&lab.path("back")).unwrap();
    assert_eq!(config, neox().build().unwrap());
}

#[test]
fn prefixes_and_wrappers_of_both_layouts_are_left_out() {
    for (spec, list) in [(neox(), "layers"), (gpt2(), "h")] {
        let lab = Lab::new();
        let tensors = exported(&lab, &spec);
        let wrapped = format!("{list}._checkpoint_wrapped_module.1.");
        let renames: [&dyn Fn(&str) -> String; 4] = [
            &|name| format!("model.{name}"),
            &|name| format!("state_dict.module._orig_mod.{name}"),
            &|name| name.replace(&format!("{list}.1."), &wrapped),
            &|name| format!("_forward_module.{}", name.replacen('.', "._orig_mod.", 1)),
        ];
        for (i, rename) in renames.iter().enumerate() {
            let renamed: Named = (tensors.iter())
                .map(|(name, tensor)| (rename(name), tensor.clone()))
                .collect();
            assert_ne!(renamed, tensors);
            let folder = lab.folder(&format!("{i}"));
            std::fs::copy(lab.path("hf/config.json"), folder.join("config.json")).unwrap();
            save(&renamed, &folder.join("model.safetensors"));
            lab.convert_with(&folder, &[], "back").unwrap();
            assert!(
                stored(&lab.path("back")) == stored(&lab.path("model")),
                "{i}"
            );
        }
    }
}

#[test]
fn a_head_beside_the_wrapped_model_is_found() {
    let untied = ModelSpec {
        head: HeadKind::Untied,
        ..gpt2()
    };
    for (spec, prefix, head) in [
        (gpt2(), "transformer.", "lm_head.weight"),
        (untied, "transformer.", "lm_head.weight"),
        (neox(), "gpt_neox.", "embed_out.weight"),
    ] {
        let lab = Lab::new();
        let mut tensors = exported(&lab, &spec);
        let embedding = (tensors.iter())
            .find(|(name, _)| name.ends_with("wte.weight") || name.ends_with("embed_in.weight"))
            .map(|(_, tensor)| tensor.clone());
        let is_tied = !tensors.contains_key(head);
        let own = tensors.remove(head).or(embedding).unwrap();
        for (i, (new, head)) in [
            ("model.".to_string(), head.to_string()),
            (format!("model.{prefix}"), head.to_string()),
            (format!("module.net.{prefix}"), format!("module.{head}")),
        ]
        .iter()
        .enumerate()
        {
            let renamed = tensors.iter();
            let renamed = renamed.map(|(name, t)| (name.replacen(prefix, new, 1), t.clone()));
            let mut renamed: Named = renamed.collect();
            renamed.insert(head.clone(), own.clone());
            let folder = lab.folder(&format!("{i}"));
            std::fs::copy(lab.path("hf/config.json"), folder.join("config.json")).unwrap();
            save(&renamed, &folder.join("model.safetensors"));
            lab.convert_with(&folder, &[], "back").unwrap();
            let same = stored(&lab.path("back")) == stored(&lab.path("model"));
            assert!(same, "{new} {head}");
            // A head of its own is not dropped where the configuration knows of none.
            if is_tied {
                renamed.get_mut(head).unwrap().1[3] = 9.0;
                save(&renamed, &folder.join("model.safetensors"));
                let told = message(lab.convert_with(&folder, &[], "other"));
                assert!(told.contains("tie_word_embeddings"), "{told}");
            }
        }
    }
}

#[test]
fn a_tied_head_is_the_embedding_as_far_as_its_type_goes() {
    use tokenformer_formats::{TensorSpec, write_torch};
    let lab = Lab::new();
    let mut tensors = exported(&lab, &gpt2());
    let (shape, embedding) = tensors["transformer.wte.weight"].clone();
    tensors.insert("lm_head.weight".into(), (shape.clone(), embedding.clone()));
    let path = lab.path("hf/pytorch_model.bin");
    std::fs::remove_file(lab.path("hf/model.safetensors")).unwrap();
    let write = |head: Dtype, tensors: &Named| {
        let specs = tensors.iter().map(|(name, (shape, _))| TensorSpec {
            name: name.clone(),
            dtype: if name == "lm_head.weight" {
                head
            } else {
                Dtype::F32
            },
            shape: shape.clone(),
        });
        let specs: Vec<TensorSpec> = specs.collect();
        let numbers: Vec<&Vec<f32>> = tensors.values().map(|(_, numbers)| numbers).collect();
        write_torch::<tokenformer_formats::Error>(&path, &specs, |index, sink| {
            sink.write(numbers[index])
        })
        .unwrap();
    };
    for head in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        write(head, &tensors);
        lab.convert_with(&lab.path("hf"), &[], "back").unwrap();
        assert!(
            stored(&lab.path("back")) == stored(&lab.path("model")),
            "{head}"
        );
    }
    // Rounded numbers in a type that would have kept all digits are others.
    let rounded: Vec<f32> = embedding
        .iter()
        .map(|&x| half::bf16::from_f32(x).to_f32())
        .collect();
    let first = (0..embedding.len())
        .find(|&i| rounded[i] != embedding[i])
        .unwrap();
    tensors.insert("lm_head.weight".into(), (shape.clone(), rounded.clone()));
    write(Dtype::F32, &tensors);
    let told = message(lab.convert_with(&lab.path("hf"), &[], "other"));
    let index = [first / shape[1], first % shape[1]];
    let place = format!(
        "at index {index:?}\n  expected: {}\n  got:      {}\n",
        embedding[first], rounded[first]
    );
    assert!(told.contains(&place), "{told}");
}

#[test]
fn several_files_and_half_precision() {
    let lab = Lab::new();
    let model = write_spec(&lab, &gpt2());
    let exported = lab
        .export_sharded(&model, "hf", WeightType::F32, 10_000)
        .unwrap();
    assert!(exported.files.len() > 3);
    lab.convert_with(&lab.path("hf"), &[], "back").unwrap();
    assert!(stored(&lab.path("back")) == stored(&model));
    lab.export(&model, "half", WeightType::BF16).unwrap();
    assert_eq!(keys(&lab.path("half"))["torch_dtype"], "bfloat16");
    let checks = verify(&lab.path("half"), &device()).unwrap();
    assert!(checks.iter().all(|check| check.passed), "{checks:?}");
}

#[test]
fn what_no_layout_can_express_is_refused_by_name() {
    let cases = [
        (
            "logit_scale",
            ModelSpec {
                logit_scale: LogitScale::InverseSqrtWidth,
                ..gpt()
            },
        ),
        (
            "positions",
            ModelSpec {
                positions: Positions::None,
                ..gpt()
            },
        ),
        (
            "causal",
            ModelSpec {
                causal: false,
                ..neox()
            },
        ),
        (
            "residual",
            ModelSpec {
                residual: Residual::Parallel,
                ..gpt2()
            },
        ),
    ];
    for (named, spec) in cases {
        let lab = Lab::new();
        let told = message(lab.export(&write_spec(&lab, &spec), "hf", WeightType::F32));
        assert!(told.starts_with(&format!("{named}: ")), "{told}");
        assert!(!lab.path("hf").exists());
    }
    let lab = Lab::new();
    let mut config = gpt().build().unwrap();
    config.blocks[1].ffn = LayerConfig::Mlp {
        hidden: 44,
        bias: false,
        parts: Vec::new(),
    };
    let told = message(lab.export(&write(&lab, "model", &config), "hf", WeightType::F32));
    assert!(
        told.starts_with("blocks.1.ffn: ") && told.contains("44"),
        "{told}"
    );
}

#[test]
fn settings_of_other_functions_are_refused_by_name() {
    let cases = [
        (
            gpt2(),
            json!({"activation_function": "gelu_new"}),
            "gelu_new",
        ),
        (gpt2(), json!({"activation_function": null}), "gelu_new"),
        (
            gpt2(),
            json!({"scale_attn_weights": false}),
            "scale_attn_weights",
        ),
        (
            gpt2(),
            json!({"scale_attn_by_inverse_layer_idx": true}),
            "scale_attn_by_inverse_layer_idx",
        ),
        (
            gpt2(),
            json!({"add_cross_attention": true}),
            "add_cross_attention",
        ),
        (gpt2(), json!({"model_type": "gptj"}), "gptj"),
        (gpt2(), json!({"n_head": 5}), "heads"),
        (gpt2(), json!({"n_embd": "x"}), "config.json"),
        (gpt2(), json!({"n_layer": null}), "n_layer"),
        (neox(), json!({"hidden_act": "gelu_new"}), "hidden_act"),
        (neox(), json!({"attention_bias": false}), "attention_bias"),
        (
            neox(),
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}}),
            "rope_type",
        ),
        (
            neox(),
            json!({"rope_parameters": {"rope_type": "yarn"}}),
            "rope_type",
        ),
        (neox(), json!({"tokenformer": {"biases": true}}), "biases"),
    ];
    for (spec, changes, named) in cases {
        let lab = Lab::new();
        exported(&lab, &spec);
        change(&lab.path("hf"), changes.clone());
        let told = message(lab.convert_with(&lab.path("hf"), &[], "back"));
        assert!(told.contains(named), "{changes}: {told}");
        assert!(!lab.path("back").exists());
    }
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_refused() {
    type Change = fn(&mut Named);
    let bias = "gpt_neox.layers.0.mlp.dense_h_to_4h.bias";
    let cases: [(ModelSpec, Value, Change, &str); 6] = [
        // The configuration says that there are none.
        (
            neox(),
            json!({"tokenformer": {"bias": false}}),
            |_| {},
            "query_key_value.bias",
        ),
        (
            neox(),
            json!({"tokenformer": {"block_norm": "plain"}}),
            |_| {},
            "input_layernorm.weight",
        ),
        (
            neox(),
            json!({"tie_word_embeddings": true}),
            |_| {},
            "the tensor \"embed_out.weight\" differs from \"gpt_neox.embed_in.weight\"",
        ),
        (
            neox(),
            json!({"intermediate_size": 41}),
            |_| {},
            "dense_h_to_4h.weight",
        ),
        (
            neox(),
            json!({}),
            |tensors| drop(tensors.remove("gpt_neox.layers.0.mlp.dense_h_to_4h.bias")),
            bias,
        ),
        (
            gpt2(),
            json!({}),
            |tensors| drop(tensors.insert("transformer.h.0.x".into(), (vec![1], vec![0.0]))),
            "transformer.h.0.x",
        ),
    ];
    for (spec, changes, edit, named) in cases {
        let lab = Lab::new();
        let mut tensors = exported(&lab, &spec);
        edit(&mut tensors);
        save(&tensors, &lab.path("hf/model.safetensors"));
        change(&lab.path("hf"), changes.clone());
        let told = message(lab.convert_with(&lab.path("hf"), &[], "back"));
        assert!(told.contains(named), "{changes}: {told}");
    }
}

/// The logits of `transformers` and ours, for models in both directions. `TOKENFORMER_PYTHON` names a Python that has it.
#[test]
#[ignore = "needs a Python with transformers, named by TOKENFORMER_PYTHON"]
fn transformers_computes_the_same() {
    const BAR: f32 = 1e-4;
    let python = std::env::var_os("TOKENFORMER_PYTHON").expect("TOKENFORMER_PYTHON names a Python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hugging_face.py");
    let run = |verb: &str, folder: &Path| {
        let done = Command::new(&python)
            .arg(script)
            .arg(verb)
            .arg(folder)
            .status();
        assert!(done.unwrap().success(), "{verb}");
        read(&folder.join("logits.safetensors"))["logits"].1.clone()
    };
    let tokens: Vec<u32> = (0..40).map(|i| i * 7 % 37).collect();
    // Ours, read there.
    let bare = ModelSpec {
        head: HeadKind::Untied,
        bias: false,
        ..gpt2()
    };
    for spec in [gpt(), neox(), gpt2(), bare] {
        let lab = Lab::new();
        let model = write_spec(&lab, &spec);
        lab.export(&model, "hf", WeightType::F32).unwrap();
        let numbers: Vec<f32> = tokens.iter().map(|&token| token as f32).collect();
        let tensors = [TensorSource::f32("tokens", &[2, 20], &numbers)];
        let path = lab.path("hf/tokens.safetensors");
        write_safetensors(&path, &Default::default(), tensors).unwrap();
        let theirs = run("logits", &lab.path("hf"));
        let difference = largest_difference(&theirs, &load(&model).infer(&tokens, 2).unwrap());
        println!("{:?}: largest difference {difference:.1e}", spec.positions);
        assert!(difference < BAR, "{difference}: {spec:?}");
    }
    // Theirs, read here.
    for kind in ["neox", "gpt2"] {
        let lab = Lab::new();
        let theirs = run(kind, &lab.folder("theirs"));
        lab.convert_with(&lab.path("theirs"), &[], "back").unwrap();
        let model = load(&lab.path("back"));
        let of_file = &read(&lab.path("theirs/tokens.safetensors"))["tokens"].1;
        let tokens: Vec<u32> = of_file.iter().map(|&token| token as u32).collect();
        let difference = largest_difference(&theirs, &model.infer(&tokens, 2).unwrap());
        println!("{kind} of transformers: largest difference {difference:.1e}");
        assert!(difference < BAR, "{difference}: {kind}");
    }
}
