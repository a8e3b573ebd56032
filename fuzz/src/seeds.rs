//! Writes the seeds of every target to `corpus/TARGET/`, from the fixtures of the tests and by the library's own writers.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, write::GzEncoder};
use tokenformer_core::Model;
use tokenformer_cpu::Cpu;
use tokenformer_data::Tokenizer;
use tokenformer_store::{DirWriter, FileEntry};
use tokenformer_train::files::{TrainState, write_model};
use tokenformer_train::recipe::{ModelTable, resolve_table};

use crate::{files, forge, targets};

/// Writes all seeds and ends the process.
pub fn write_and_end() {
    write();
    std::process::exit(0);
}

fn write() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let seeds = Seeds {
        corpus: Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"),
        root,
    };
    seeds.torch();
    seeds.deepspeed();
    seeds.megatron();
    seeds.configurations();
    seeds.tokenizers();
    seeds.store();
    seeds.datasets();
    seeds.records();
    seeds.recipes();
    seeds.models();
    seeds.tasks();
    seeds.texts();
    seeds.requests();
    seeds.pictures();
    let _ = fs::remove_dir_all(files::folder());
}

struct Seeds {
    corpus: PathBuf,
    root: PathBuf,
}

impl Seeds {
    fn add(&self, target: &str, name: &str, bytes: impl AsRef<[u8]>) {
        let folder = self.corpus.join(target);
        fs::create_dir_all(&folder).expect("the corpus can be made");
        fs::write(folder.join(name), bytes).expect("the corpus can be written");
    }

    fn fixture(&self, path: &str) -> Vec<u8> {
        fs::read(self.root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The bodies of the examples of the server's documentation.
    fn requests(&self) {
        let docs = self.fixture("docs/serve.md");
        let docs = String::from_utf8_lossy(&docs);
        let bodies = docs.lines().filter_map(|line| line.split_once(" -d '"));
        for (i, (_, body)) in bodies.enumerate() {
            self.add("request_body", &i.to_string(), body.trim_end_matches('\''));
        }
    }

    fn torch(&self) {
        for name in ["views.pt", "views_protocol_5.pt", "legacy.pt"] {
            let file = self.fixture(&format!("crates/formats/tests/fixtures/{name}"));
            self.add("torch_file", name, file);
        }
        for protocol in 0..=5 {
            let name = format!("protocol_{protocol}.pkl");
            let file = self.fixture(&format!("crates/formats/tests/fixtures/{name}"));
            self.add("pickle", &name, &file);
            self.add("torch_pickle", &name, &file);
        }
        let weights = dict(&[("w", tensor("0", &[4, 4])), ("b", tensor("1", &[16]))]);
        self.add("pickle", "weights", &weights);
        self.add("torch_pickle", "weights", &weights);
        self.add("torch_file", "weights", forge::torch(&weights));
        let attack = b"cos\nsystem\n(S'true'\ntR.";
        self.add("pickle", "attack", attack);
        self.add("torch_pickle", "attack", attack);
    }

    fn deepspeed(&self) {
        let shapes = dict(&[("w", b"K\x04K\x04\x86".to_vec())]);
        // A dict without the protocol in front and the end behind is a value of another.
        let inner = |pickle: &[u8]| pickle[2..pickle.len() - 1].to_vec();
        let list = |item: Vec<u8>| [b"](".as_slice(), &item, b"e"].concat();
        let states = dict(&[
            ("module", inner(&dict(&[("w", tensor("0", &[4, 4]))]))),
            ("param_shapes", list(inner(&shapes))),
            ("dp_world_size", b"K\x01".to_vec()),
            ("mp_world_size", b"K\x01".to_vec()),
            ("shared_params", b"}".to_vec()),
            ("iteration", b"K\x05".to_vec()),
        ]);
        let partition = list(tensor("0", &[16]));
        let state = dict(&[
            ("zero_stage", b"K\x01".to_vec()),
            ("single_partition_of_fp32_groups", partition),
        ]);
        let shard = dict(&[("optimizer_state_dict", inner(&state))]);
        let both = [states.as_slice(), targets::deepspeed::SEPARATOR, &shard].concat();
        self.add("deepspeed", "whole", both);
        self.add("deepspeed", "half", states);
    }

    fn megatron(&self) {
        // Two sequences of two and one 16-bit tokens, two documents.
        let mut index = vec![6];
        index.extend(b"MMIDIDX\0\0");
        index.extend(1u64.to_le_bytes());
        index.push(8);
        index.extend(2u64.to_le_bytes());
        index.extend(3u64.to_le_bytes());
        index.extend([2i32, 1].map(i32::to_le_bytes).concat());
        index.extend([0i64, 4].map(i64::to_le_bytes).concat());
        index.extend([0i64, 1, 2].map(i64::to_le_bytes).concat());
        self.add("megatron", "two", index);
    }

    fn configurations(&self) {
        let published = self.fixture("crates/convert/tests/fixtures/config.yml");
        self.add("neox_config", "published", &published);
        let lines = "num_layers: 2\nhidden-size: 64\nnum_attention_heads: 4\nqkv_slot_num: 8\nproj_slot_num: 8\n\
            ffn_slot_num: 8\nseq_length: 16\npos_emb: none\nnorm: layernorm_nonparam\noptimizer:\n  type: Adam\n  \
            params: {lr: 0.001, betas: [0.9, 0.95]}\ntrain_iters: 10\n";
        self.add("neox_config", "lines", lines);
        let named = [("sequential.0.word_embeddings.weight", "[1,1]")];
        let header = safetensors_header(&named);
        let index = br#"{"weight_map": {"a": "model.safetensors"}}"#;
        self.add(
            "convert_folder",
            "plain",
            join(&[&published, b"", header.as_bytes()]),
        );
        self.add(
            "convert_folder",
            "sharded",
            join(&[&published, index, header.as_bytes()]),
        );
        self.add(
            "convert_folder",
            "lines",
            join(&[lines.as_bytes(), b"", b"{}"]),
        );
    }

    fn tokenizers(&self) {
        let text = "the quick brown fox and the lazy dog, the end. ".repeat(20);
        let trained = Tokenizer::train_bpe([text], 280, |_, _| {}).expect("a tokenizer");
        let path = files::folder().join("trained.json");
        trained.save(&path).expect("a file");
        self.add("tokenizer", "trained", fs::read(&path).expect("a file"));
        Tokenizer::bytes().save(&path).expect("a file");
        self.add("tokenizer", "bytes", fs::read(&path).expect("a file"));
        let model = r#"{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"ignore_merges":false,
            "vocab":{"<unk>":0,"a":1,"b":2,"ab":3,"▁":4,"</s>":5},"merges":["a b"]}"#;
        let others = [
            r#""normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
                {"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null,
                "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
                {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#,
            r#""normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split",
                "pattern":{"Regex":"\\p{N}{1,3}|\\s+(?!\\S)"},"behavior":"Isolated","invert":false},
                {"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},
                "decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#,
            r#""normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Metaspace","replacement":"▁",
                "prepend_scheme":"always","split":true},"decoder":{"type":"Metaspace","replacement":"▁",
                "prepend_scheme":"always","split":true}"#,
        ];
        for (index, parts) in others.iter().enumerate() {
            let added = r#"[{"id":5,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,
                "normalized":false,"special":true}]"#;
            let json =
                format!(r#"{{"version":"1.0","added_tokens":{added},{parts},"model":{model}}}"#);
            self.add("tokenizer", &format!("other_{index}"), json);
        }
    }

    fn store(&self) {
        let entry = |name: &str, content: &[u8]| FileEntry {
            name: name.into(),
            bytes: content.len() as u64,
            blake3: blake3::hash(content).to_string(),
        };
        let manifest = forge::manifest("model", &[entry("a", b"abc"), entry("b", b"")]);
        self.add("manifest", "two", &manifest);
        self.add(
            "run_resolve",
            "pointers",
            join(&[b"step-00000002\n", b"step-00000001\n", b""]),
        );
        let manifest = forge::manifest("checkpoint", &[entry("a", b"abc")]);
        self.add(
            "run_resolve",
            "manifest",
            join(&[b"step-00000002\n", b"step-00000002\n", &manifest]),
        );
        self.add(
            "run_resolve",
            "damaged",
            join(&[b"", b"step-00000009", b"{}"]),
        );
        let header = safetensors_header(&[("a", "[1,1]")]);
        self.add("safetensors", "one", join(&[header.as_bytes(), &[0; 4]]));
        let many = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
            "b":{"dtype":"I64","shape":[],"data_offsets":[4,12]},"c":{"dtype":"BF16","shape":[0,3],"data_offsets":[12,12]}}"#;
        self.add("safetensors", "many", join(&[many.as_bytes(), &[1; 12]]));
    }

    fn datasets(&self) {
        let folder = targets::dataset::folder();
        self.add(
            "dataset",
            "prepared",
            fs::read(folder.join("dataset.json")).expect("a file"),
        );
        self.add(
            "token_file",
            "prepared",
            fs::read(folder.join("train.tokens")).expect("a file"),
        );
    }

    fn pictures(&self) {
        let images = [0u8, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 1, 2, 3, 4];
        let labels = [0u8, 0, 8, 1, 0, 0, 0, 2, 0, 1];
        let colour = [
            0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 9, 8, 7,
        ];
        let one = [0u8, 0, 8, 1, 0, 0, 0, 1, 4];
        let both = |images: &[u8], labels: &[u8]| {
            [&(images.len() as u16).to_le_bytes(), images, labels].concat()
        };
        self.add("idx", "grey", both(&images, &labels));
        self.add("idx", "colour", both(&colour, &one));
        self.add("idx", "gzip", both(&gzip(&images), &gzip(&labels)));
        self.add("cifar", "ten", [&[1u8, 3][..], &[100; 40]].concat());
        self.add("cifar", "hundred", [&[2u8, 3, 77][..], &[100; 40]].concat());
        self.add("cifar", "odd", [0u8, 3, 77]);
        self.add("class_map", "names", "cat\ndog\n\u{fc}\n");
        self.add("class_map", "twice", "\u{feff}cat\r\ncat\n");
        for (number, name) in (0u8..).zip(targets::image_set::FILES) {
            let file = fs::read(targets::image_set::folder().join(name)).expect("a file");
            self.add("image_set", name, [&[number], file.as_slice()].concat());
        }
        let rows = self.fixture("crates/images/tests/fixtures/decode.json");
        let rows: serde_json::Value = serde_json::from_slice(&rows).expect("the fixtures");
        for row in rows.as_array().expect("rows") {
            let text = |key: &str| row[key].as_str().expect("a text");
            let digits = text("file").as_bytes().chunks(2);
            let file = digits.map(|two| {
                let two = std::str::from_utf8(two).expect("digits");
                u8::from_str_radix(two, 16).expect("two digits")
            });
            self.add("image", text("name"), file.collect::<Vec<u8>>());
        }
    }

    fn records(&self) {
        let lines = concat!(
            r#"{"kind":"train","step":1,"tokens":64,"loss":5.5,"bits_per_byte":2.1,"grad_norm":1.0,"lr":0.001,"stage":0,"params":100,"step_ms":1.5,"tokens_per_s":1000.0,"skipped":false}"#,
            "\n",
            r#"{"kind":"eval","step":1,"tokens":64,"stage":0,"params":100,"loss":null,"perplexity":200.0,"eval_tokens":32}"#,
            "\n",
            r#"{"kind":"grow","step":2,"tokens":128,"stage":1,"params_before":100,"params_after":200,"summary":"+8 ffn","max_logit_diff":0.0,"sites":[{"name":"ffn","tokens_before":8,"tokens_after":16,"params_before":10,"params_after":20}],"layers_before":1,"layers_after":2}"#,
            "\n",
            r#"{"kind":"sample","step":3,"tokens":192,"stage":1,"prompt":"a","text":"b<c>"}"#,
            "\n",
            r#"{"kind":"train","step":4,"tokens":256,"loss":4.5,"grad_norm":null,"lr":0.002,"stage":1,"params":200,"step_ms":2.0,"tokens_per_s":900.0,"skipped":true}"#,
            "\n",
            r#"{"kind":"note","step":4,"text":"stopped"}"#,
            "\n",
        );
        self.add("records", "all", lines);
        self.add("report", "all", lines);
    }

    fn recipes(&self) {
        for name in ["tiny", "grow", "reference_growth"] {
            self.add(
                "recipe",
                name,
                self.fixture(&format!("recipes/{name}.toml")),
            );
        }
        let resolved = resolve_table(Default::default(), "defaults", &[]).expect("the defaults");
        self.add("recipe", "resolved", resolved.to_toml());
    }

    fn models(&self) {
        let mut table = ModelTable::from_preset("tiny").expect("a preset");
        (table.width, table.layers, table.heads, table.context) = (2, 1, 1, 4);
        (table.slots.qkv, table.slots.proj, table.slots.ffn) = (1, 1, 1);
        table.rotary_fraction = 1.0;
        let config = table.build(2).expect("a small model");
        let json = config.to_json();
        self.add("model_config", "small", &json);
        let model = Model::fresh(&(Cpu::new(Some(1)) as _), &config, 1).expect("a model");
        let folder = files::folder().join("small");
        let mut writer = DirWriter::begin(&folder, "model").expect("a folder");
        write_model(&mut writer, &model, None).expect("a model");
        writer.commit().expect("a model");
        let weights = fs::read(folder.join("model.safetensors")).expect("a file");
        let length = u64::from_le_bytes(*weights.first_chunk().expect("a length")) as usize;
        let (header, data) = weights[8..].split_at(length);
        self.add(
            "model_folder",
            "small",
            join(&[json.as_bytes(), header, data]),
        );
        let mut state = TrainState::new(1, table, "hash".into());
        state.updates = BTreeMap::from([("embedding".into(), 3)]);
        self.add(
            "train_state",
            "fresh",
            serde_json::to_vec(&state).expect("plain data"),
        );
    }

    fn tasks(&self) {
        // The first one is as an evaluation wrote it; the hash of the other does not fit.
        let line = concat!(
            r#"{"key":"8aaa74b95e55e85ead10866ed9fefd43","scores":[{"loglik":-930.2824664115906},"#,
            r#"{"loglik":-930.2484259605408}],"hash":"112c065b5f0cb257edf408096ff7ab37"}"#
        );
        let other = line.replace("-930.28", "-1.5");
        self.add("task_partial", "lines", format!("{line}\n{other}\n{line}"));
        let rows = [
            r#"{"text":"the last word is here"}"#,
            r#"{"activity_label":"Walking","ctx_a":"A man walks.","ctx_b":"he","endings":["stops.","runs [title] on"],"label":"1"}"#,
            r#"{"goal":"open a door","sol1":"push","sol2":"pull","label":0}"#,
            r#"{"question":"What?","choices":{"text":["a","b","c"],"label":["A","B","C"]},"answerKey":"B"}"#,
            r#"{"question":{"stem":"What?","choices":[{"text":"a","label":"A"},{"text":"b","label":"B"}]},"answerKey":"B"}"#,
            r#"{"sentence":"The cup was full so _ spilled.","option1":"it","option2":"he","answer":"1"}"#,
            r#"{"ctx":"Question","choices":["x","y"],"gold":1}"#,
            r#"{"ctxs":["a","b"],"cont":"c","gold":0}"#,
        ]
        .join("\n");
        self.add("task_rows", "plain", format!("p{rows}"));
        self.add(
            "task_rows",
            "gzip",
            [b"z".as_slice(), &gzip(rows.as_bytes())].concat(),
        );
    }

    fn texts(&self) {
        let lines = "{\"text\": \"one\"}\n\n{\"text\": \"two\", \"id\": [1, {}]}\n";
        // A frame with one raw block and one of a repeated byte.
        let zstd = b"\x28\xb5\x2f\xfd\x00\x58\x28\x00\x00hello\x23\x00\x00a";
        let seeds: [(u8, &[u8]); 6] = [
            (0, "a text\nof lines".as_bytes()),
            (1, lines.as_bytes()),
            (2, &gzip(b"a text")),
            (3, &gzip(lines.as_bytes())),
            (4, zstd),
            (5, zstd),
        ];
        for (kind, bytes) in seeds {
            self.add("corpus", &format!("kind_{kind}"), [&[kind], bytes].concat());
        }
    }
}

/// Parts with NUL bytes between them.
fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&0)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// The header of a file of 32-bit numbers, one for each name.
fn safetensors_header(named: &[(&str, &str)]) -> String {
    let entries: Vec<String> = named
        .iter()
        .enumerate()
        .map(|(index, (name, shape))| {
            let (start, end) = (4 * index, 4 * index + 4);
            format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    format!("{{{}}}", entries.join(","))
}

/// The pickle of a dict from names to pickled values.
fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (name, value) in entries {
        text(&mut out, name);
        out.extend(value);
    }
    out.extend(b"u.");
    out
}

/// The pickled record of a contiguous tensor.
fn tensor(storage: &str, shape: &[u8]) -> Vec<u8> {
    let mut out = b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    text(&mut out, "storage");
    out.extend(b"ctorch\nFloatStorage\n");
    text(&mut out, storage);
    text(&mut out, "cpu");
    out.extend(b"K\x10tQK\x00(");
    out.extend(shape.iter().flat_map(|&axis| [b'K', axis]));
    out.extend(b"t(");
    for axis in 1..=shape.len() {
        out.extend([b'K', shape[axis..].iter().product()]);
    }
    out.extend(b"t\x89}tR");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}
