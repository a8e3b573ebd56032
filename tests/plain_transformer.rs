//! A plain Transformer goes through the same verbs as a TokenFormer.

mod common;

use common::{Lab, fail, json, newest, succeed, text_of};
use std::fs;

#[test]
fn train_grow_evaluate_generate_export_and_convert() {
    let lab = Lab::new();
    let recipe = lab.plain_recipe("recipe.toml", "[[grow]]\nat_step = 13\nlayers = 1\n");
    succeed(lab.train(&recipe, "run", &[]));
    let model = newest(&lab.path("run"));
    let model = text_of(&model);

    let info = json(&succeed(lab.command(&["inspect", model, "--json"])));
    assert!(info.to_string().contains("mlp"), "{info}");
    let shown = succeed(lab.command(&["inspect", model])).out;
    assert!(
        shown.contains(" in blocks)") && !shown.contains("parameter tokens"),
        "{shown}"
    );
    let eval = |model: &str| {
        let args = [
            "eval", "--model", model, "--data", "data", "--tokens", "256", "--json",
        ];
        json(&succeed(lab.command(&args)))["loss"].clone()
    };
    let loss = eval(model);
    assert!(loss.as_f64().is_some());
    let prompt = [
        "generate", "--model", model, "--prompt", "ka", "--tokens", "8",
    ];
    succeed(lab.command(&prompt));

    let grow = |more: &[&str]| {
        let fixed = ["grow", "--from", model, "--to", "grown"];
        lab.command(&[&fixed[..], more].concat())
    };
    fail(
        grow(&["--qkv", "+8"]),
        2,
        &["growth of", "a Pattention site"],
    );
    succeed(grow(&["--ffn", "+8"]));
    assert_eq!(eval("grown"), loss, "new hidden units add nothing");
    fs::remove_dir_all(lab.path("grown")).expect("a folder");
    succeed(grow(&["--layers", "+1"]));
    assert_eq!(eval("grown"), loss, "a new block adds nothing");

    succeed(lab.command(&["export", "--model", model, "--to", "hf"]));
    let keys = fs::read_to_string(lab.path("hf/config.json")).expect("keys");
    assert!(keys.contains("GPT2LMHeadModel"), "{keys}");
    succeed(lab.command(&["convert", "--from", "hf", "--to", "back"]));
    let weights = |dir: &str| fs::read(lab.path(dir).join("model.safetensors")).expect("weights");
    assert!(weights("back") == weights(model), "bit for bit");
    assert_eq!(eval("back"), loss);
}
