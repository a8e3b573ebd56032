//! Weights are found under their keys and prefixes, and other entries beside them do not matter.

mod common;

use std::path::Path;

use common::{Lab, Named, fixture, lm0, message, save, save_torch, stored, weights};
use tokenformer_formats::Dtype;

/// The committed weights under other names.
fn renamed(name: impl Fn(&str) -> String) -> Named {
    let tensors = weights().into_iter();
    tensors.map(|(old, tensor)| (name(&old), tensor)).collect()
}

fn save_both(lab: &Lab, tensors: &Named) -> [std::path::PathBuf; 2] {
    let paths = [lab.path("w.safetensors"), lab.path("w.bin")];
    save(tensors, &paths[0]);
    save_torch(tensors, Dtype::F32, &paths[1]);
    paths
}

#[test]
fn any_prefix_that_all_names_share_is_left_out() {
    let lab = Lab::new();
    let right = stored(&lab.model());
    for prefix in [
        "module.",
        "_orig_mod.",
        "model.",
        "_fsdp_wrapped_module.",
        "module._orig_mod.",
        "model._fsdp_wrapped_module.module.",
        "state_dict.net.",
    ] {
        let tensors = renamed(|name| format!("{prefix}{name}"));
        for (i, path) in save_both(&lab, &tensors).iter().enumerate() {
            let to = format!("{prefix}{i}");
            let converted = lab.convert(path, &to).unwrap();
            assert_eq!(stored(&lab.path(&to)), right, "{prefix}");
            let told = converted.notes.join("\n");
            assert!(told.contains(&format!("begin with {prefix:?}")), "{told}");
        }
    }
}

#[test]
fn wrappers_inside_names_are_left_out() {
    let lab = Lab::new();
    let right = stored(&lab.model());
    for (i, (from, to)) in [
        ("sequential.2.", "sequential.2._orig_mod."),
        ("sequential.", "model.sequential._fsdp_wrapped_module."),
        (".mlp.", "._checkpoint_wrapped_module.mlp.module."),
    ]
    .iter()
    .enumerate()
    {
        let tensors = renamed(|name| name.replace(from, to));
        for (j, path) in save_both(&lab, &tensors).iter().enumerate() {
            lab.convert(path, &format!("{i}{j}")).unwrap();
            assert_eq!(stored(&lab.path(&format!("{i}{j}"))), right, "{to}");
        }
    }
    // The same tensor with and without a wrapper: it is unknown which of them is the model's.
    let mut tensors = weights();
    let copy = tensors["sequential.5.norm.bias"].clone();
    tensors.insert("sequential.5._orig_mod.norm.bias".into(), copy);
    let [path, _] = save_both(&lab, &tensors);
    let told = message(lab.convert(&path, "twice"));
    assert!(told.contains("sequential.5.norm.bias once"), "{told}");
    assert!(
        told.contains("\"sequential.5._orig_mod.norm.bias\""),
        "{told}"
    );
}

#[test]
fn a_training_checkpoint_gives_the_model_in_it() {
    let lab = Lab::new();
    let configs = [fixture("config.yml")];
    lab.convert_with(&fixture("full.bin"), &configs, "full")
        .unwrap();
    let converted = lab
        .convert_with(&fixture("lightning.ckpt"), &configs, "lightning")
        .unwrap();
    assert_eq!(stored(&lab.path("lightning")), stored(&lab.path("full")));
    let told = converted.notes.join("\n");
    assert!(
        told.contains("begin with \"state_dict.model._orig_mod.\""),
        "{told}"
    );
    assert!(
        told.contains(
            "left out: \"sequential.2._extra_state\" (it is an object of \"_io.BytesIO\")"
        ),
        "{told}"
    );
}

#[test]
fn a_second_model_in_the_file_is_named_and_an_optimizer_is_no_model() {
    let lab = Lab::new();
    let mut tensors = renamed(|name| format!("model.{name}"));
    tensors.extend(renamed(|name| format!("optimizer.exp_avg.{name}")));
    tensors.insert("loss.weight".into(), (vec![2], vec![0.5, 0.5]));
    for (i, path) in save_both(&lab, &tensors).iter().enumerate() {
        lab.convert(path, &format!("one{i}")).unwrap();
    }
    tensors.extend(renamed(|name| format!("ema.{name}")));
    for path in save_both(&lab, &tensors) {
        let told = message(lab.convert(&path, "two"));
        assert!(told.contains("2 parts of it hold a whole model"), "{told}");
        assert!(told.contains("got:      \"ema\", \"model\""), "{told}");
        assert!(!lab.path("two").exists());
    }
}

#[test]
fn a_refusal_names_a_few_tensors_once() {
    let lab = Lab::new();
    let mut tensors = renamed(|name| format!("model.{name}"));
    tensors.retain(|name, _| !name.contains("attention.key"));
    for i in 0..5000 {
        tensors.insert(
            format!("model.bias_{i:04}{}", "x".repeat(50)),
            (vec![1], vec![0.0]),
        );
    }
    for path in save_both(&lab, &tensors) {
        let told = message(lab.convert(&path, "model"));
        assert!(
            told.contains("4 missing, 0 of another shape, 5000 unexpected"),
            "{told}"
        );
        assert!(told.contains("extra:    and 4994 more\n"), "{told}");
        assert!(told.len() < 2000, "{} bytes", told.len());
        assert_eq!(told.matches("bias_0003").count(), 1, "{told}");
    }
    // None of the model's names exists: the message has the first name of the file and a few expected ones.
    let tensors: Named = (0..30)
        .map(|i| {
            (
                format!("transformer.layers.{i}.weight"),
                (vec![1], vec![0.0]),
            )
        })
        .collect();
    for path in save_both(&lab, &tensors) {
        let told = message(lab.convert(&path, "model"));
        assert!(told.contains("missing:  and 17 more\n"), "{told}");
        assert!(
            told.contains("the first is \"transformer.layers.0.weight\""),
            "{told}"
        );
        assert!(told.lines().count() < 20, "{told}");
    }
}

/// Puts an entry of another type into a safetensors file, at its end, under a name that may be there already.
fn with_entry(path: &Path, name: &str, entry: &str, bytes: usize) {
    let old = std::fs::read(path).unwrap();
    let (length, rest) = old.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(header).unwrap();
    let end = data.len();
    let entry = entry
        .replace("FROM", &end.to_string())
        .replace("TO", &(end + bytes).to_string());
    header.insert(name.into(), serde_json::from_str(&entry).unwrap());
    let header = serde_json::to_vec(&header).unwrap();
    let mut new = (header.len() as u64).to_le_bytes().to_vec();
    new.extend(header);
    new.extend(data);
    new.resize(new.len() + bytes, 0);
    std::fs::write(path, new).unwrap();
}

#[test]
fn types_that_are_not_read_matter_for_wanted_tensors_alone() {
    let lab = Lab::new();
    let right = stored(&lab.model());
    let path = lab.path("w.safetensors");
    for (kind, bytes) in [
        ("F8_E4M3", 4),
        ("F4", 2),
        ("U16", 8),
        ("C64", 32),
        ("I4", 2),
        ("I64", 32),
    ] {
        let entry = format!(r#"{{"dtype": "{kind}", "shape": [4], "data_offsets": [FROM, TO]}}"#);
        save(&weights(), &path);
        with_entry(&path, "sequential.2.attention.scale", &entry, bytes);
        with_entry(&path, "nothing", "null", 0);
        let converted = lab.convert(&path, kind).unwrap();
        assert_eq!(stored(&lab.path(kind)), right, "{kind}");
        assert!(
            converted
                .notes
                .iter()
                .any(|note| note.contains("\"nothing\""))
        );

        let mut tensors = weights();
        tensors.remove("sequential.5.norm.bias");
        save(&tensors, &path);
        with_entry(&path, "sequential.5.norm.bias", &entry, bytes);
        let told = message(lab.convert(&path, "refused"));
        assert!(
            told.contains("the tensor \"sequential.5.norm.bias\" cannot be read as weights"),
            "{told}"
        );
        assert!(told.contains(kind), "{told}");
    }
    let told =
        message(lab.convert_with(&fixture("float8.bin"), &[fixture("config.yml")], "refused"));
    assert!(
        told.contains("the tensor \"sequential.2.mlp.key_param_tokens\""),
        "{told}"
    );
    assert!(told.contains("float8_e4m3fn"), "{told}");
    let told = message(lab.convert_with(&fixture("none.bin"), &[fixture("config.yml")], "refused"));
    assert!(
        told.contains("the tensor \"sequential.4.norm.bias\""),
        "{told}"
    );
    assert!(told.contains("got:      it is None"), "{told}");
}

#[cfg(unix)]
#[test]
fn the_cache_of_hugging_face_is_followed() {
    use std::os::unix::fs::symlink;
    let lab = Lab::new();
    let right = stored(&lab.model());
    let (root, blobs) = (lab.folder("models--a--b"), lab.folder("models--a--b/blobs"));
    std::fs::copy(lm0("model.safetensors"), blobs.join("1f")).unwrap();
    std::fs::copy(lab.path("lm0.yml"), blobs.join("2f")).unwrap();
    let revision = lab.folder("models--a--b/snapshots/abc");
    symlink("../../blobs/1f", revision.join("model.safetensors")).unwrap();
    symlink("../../blobs/2f", revision.join("config.yml")).unwrap();
    let refs = lab.folder("models--a--b/refs");
    for (i, from) in [&root, &revision, &revision.join("model.safetensors")]
        .into_iter()
        .enumerate()
    {
        lab.convert_with(from, &[], &format!("{i}")).unwrap();
        assert_eq!(stored(&lab.path(&format!("{i}"))), right);
    }
    lab.folder("models--a--b/snapshots/def");
    let told = message(lab.convert_with(&root, &[], "none"));
    assert!(told.contains("2 revisions, and no refs/main"), "{told}");
    std::fs::write(refs.join("main"), "abc\n").unwrap();
    lab.convert_with(&root, &[], "newest").unwrap();
    // What a downloaded file says leads nowhere else.
    for bad in ["../../..", "..", "/", "gone"] {
        std::fs::write(refs.join("main"), bad).unwrap();
        let told = message(lab.convert_with(&root, &[], "none"));
        assert!(told.contains("names no revision that is there"), "{told}");
    }
}
