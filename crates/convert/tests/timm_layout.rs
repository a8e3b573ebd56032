//! Vision Transformers of timm, `fixtures/make_timm.py`: what they compute, and the same tensors when they are written
//! again. The models of another folder that it wrote are checked with `TOKENFORMER_TIMM=FOLDER`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenformer_convert::{
    ConvertOptions, ExportOptions, WeightType, convert, expect_timm, export,
};
use tokenformer_core::config::{Pool, Positions};
use tokenformer_core::presets::Preset;
use tokenformer_core::{Device, Model, ModelConfig, ModelSpec};
use tokenformer_cpu::Cpu;
use tokenformer_store::{DirWriter, SafetensorsFile};
use tokenformer_train::files;

fn device() -> Arc<dyn Device> {
    Cpu::new(Some(2))
}

fn fixtures() -> PathBuf {
    match std::env::var_os("TOKENFORMER_TIMM") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/timm"),
    }
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixtures()).unwrap();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn converted(from: &Path, to: &Path) -> ModelConfig {
    let options = ConvertOptions {
        from: from.join("model.safetensors"),
        configs: Vec::new(),
        tokenizer: None,
        to: to.into(),
    };
    expect_timm(&options.from).unwrap();
    convert(&options, &device(), &mut |_, _| {}).unwrap().config
}

fn exported(model: &Path, to: &Path) {
    let options = ExportOptions {
        model: model.into(),
        to: to.into(),
        weights: WeightType::F32,
        shard_bytes: u64::MAX,
    };
    export(&options, &device(), &mut |_, _| {}).unwrap();
}

/// The folder of a new model, in `dir`.
fn written(spec: &ModelSpec, dir: &Path) -> PathBuf {
    let model = Model::fresh(&device(), &spec.build().unwrap(), 1).unwrap();
    let folder = dir.join("model");
    let mut writer = DirWriter::begin(&folder, files::KIND_MODEL).unwrap();
    files::write_model(&mut writer, &model, None).unwrap();
    writer.commit().unwrap();
    folder
}

/// The five largest of a row, largest first.
fn top5(row: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    order.truncate(5);
    order
}

#[test]
fn models_of_timm_compute_what_they_did_and_go_back() {
    for folder in folders() {
        let dir = tempfile::tempdir().unwrap();
        let model_dir = dir.path().join("model");
        let config = converted(&folder, &model_dir);
        let who = folder.display();

        let model = files::load_model(&model_dir, &device()).unwrap();
        assert_eq!(model.config(), config);
        let expected = SafetensorsFile::open(&folder.join("expected.safetensors")).unwrap();
        let (pixels, want) = (
            expected.read_f32("pixels").unwrap(),
            expected.read_f32("logits").unwrap(),
        );
        let batch = expected.shape("pixels").unwrap()[0];
        let got = model.classify(&pixels, batch).unwrap();
        let off = (got.iter().zip(&want)).fold(0.0f32, |m, (g, w)| m.max((g - w).abs()));
        println!("{who}: logits are off by {off:e}");
        assert!(
            off <= 1e-4 && want.iter().any(|w| w.abs() > 0.1),
            "{who}: {off:e}"
        );
        for (got, want) in got.chunks(config.vocab).zip(want.chunks(config.vocab)) {
            assert_eq!(top5(got), top5(want), "{who}");
        }

        let file = dir.path().join("back/model.safetensors");
        std::fs::create_dir(dir.path().join("back")).unwrap();
        exported(&model_dir, &file);
        let [was, is] = [&folder.join("model.safetensors"), &file]
            .map(|path| SafetensorsFile::open(path).unwrap());
        let names = |of: &SafetensorsFile| {
            let mut names: Vec<String> = of.names().map(String::from).collect();
            names.sort();
            names
        };
        assert_eq!(names(&was), names(&is), "{who}");
        for name in names(&was) {
            assert_eq!(
                was.shape(&name).unwrap(),
                is.shape(&name).unwrap(),
                "{who}: {name}"
            );
            assert_eq!(
                was.read_f32(&name).unwrap(),
                is.read_f32(&name).unwrap(),
                "{who}: {name}"
            );
        }
        // A folder is the same model, as its configuration says.
        let as_folder = dir.path().join("folder");
        exported(&model_dir, &as_folder);
        assert_eq!(
            converted(&as_folder, &dir.path().join("again")),
            config,
            "{who}"
        );
    }
}

#[test]
fn ways_to_pool_are_told_by_the_tensors() {
    if std::env::var_os("TOKENFORMER_TIMM").is_some() {
        return;
    }
    let found = folders().into_iter().map(|folder| {
        let dir = tempfile::tempdir().unwrap();
        let config = converted(&folder, &dir.path().join("model"));
        let image = *config.input.image().unwrap();
        assert_eq!(
            (image.grid(), image.patch, config.heads),
            ([3, 4], [4, 2], 4)
        );
        assert_eq!(config.context, 12 + usize::from(image.has_class_token()));
        image.pool
    });
    assert_eq!(
        found.collect::<Vec<_>>(),
        [Pool::Class, Pool::Mean, Pool::MeanBesideClass]
    );
}

fn failure(from: &Path, configs: &[PathBuf]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let options = ConvertOptions {
        from: from.into(),
        configs: configs.to_vec(),
        tokenizer: None,
        to: dir.path().join("model"),
    };
    convert(&options, &device(), &mut |_, _| {})
        .unwrap_err()
        .to_string()
}

#[test]
fn what_shapes_do_not_tell_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("alone.safetensors");
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/timm/class");
    std::fs::copy(small.join("model.safetensors"), &alone).unwrap();
    let error = failure(&alone, &[]);
    assert!(
        error.contains("model_args.num_heads") && error.contains("width 16"),
        "{error}"
    );
    let config = dir.path().join("other.json");
    for (text, parts) in [
        (
            r#"{"model_args": {"num_heads": 4}}"#,
            ["img_size", "13 positions"],
        ),
        (
            r#"{"model_args": {"num_heads": 4, "img_size": [8, 8]}}"#,
            ["context", "13"],
        ),
        (
            r#"{"model_args": {"num_heads": 4, "img_size": [12, 8], "act_layer": "relu"}}"#,
            ["act_layer", "relu"],
        ),
        (
            r#"{"model_args": {"num_heads": 4, "img_size": [12, 8]}, "global_pool": "map"}"#,
            ["global_pool", "map"],
        ),
        (
            r#"{"architecture": "vit_base_patch16_clip_quickgelu_224"}"#,
            ["architecture", "quickgelu"],
        ),
        (r#"{"model_args": 3}"#, ["configuration", "timm"]),
    ] {
        std::fs::write(&config, text).unwrap();
        let error = failure(&alone, std::slice::from_ref(&config));
        assert!(
            parts.iter().all(|part| error.contains(part)),
            "{text}: {error}"
        );
    }
}

#[test]
fn the_ratio_that_is_written_gives_the_hidden_width() {
    // The quotient of these widths times the first is a little less than the second.
    let spec = ModelSpec {
        width: 88,
        heads: 4,
        mlp_hidden: 120,
        ..Preset::named("vit-plain-digits").unwrap().spec()
    };
    let dir = tempfile::tempdir().unwrap();
    let folder = written(&spec, dir.path());
    exported(&folder, &dir.path().join("out"));
    let config = std::fs::read(dir.path().join("out/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let ratio = config["model_args"]["mlp_ratio"].as_f64().unwrap();
    assert_eq!((88.0 * ratio) as usize, 120, "{ratio}");
}

#[test]
fn what_timm_has_no_words_for_is_refused() {
    let base = Preset::named("vit-plain-digits").unwrap().spec();
    for (spec, place) in [
        (
            ModelSpec {
                positions: Positions::SinCos2d,
                ..base.clone()
            },
            "positions",
        ),
        (Preset::named("vit-digits").unwrap().spec(), "input"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let folder = written(&spec, dir.path());
        let options = ExportOptions {
            model: folder,
            to: dir.path().join("out"),
            weights: WeightType::F32,
            shard_bytes: u64::MAX,
        };
        let error = export(&options, &device(), &mut |_, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains(place), "{error}");
    }
}
