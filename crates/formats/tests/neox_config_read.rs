//! Configurations: the dialect, defaults, merging and refusals.

use proptest::prelude::*;
use tokenformer_formats::Error;
use tokenformer_formats::neox_config::{NeoxConfig, Norm, NormActivation, Positions};

/// The published 150M configuration's keys, in its style.
const PUBLISHED: &str = r#"{
  # parallelism settings
  "pipe_parallel_size": 1,
  "model_parallel_size": 1,

  # model settings
  "num_layers": 12,
  "hidden_size": 768,
  "num_attention_heads": 12,
  "qkv_slot_num": 768,
  "proj_slot_num": 768,
  "ffn_slot_num": 3072,
  "seq_length": 2048,
  "max_position_embeddings": 2048,
  "pos_emb": "rotary",
  "rotary_pct": 0.25,
  "no_weight_tying": false,
  "norm": "layernorm_nonparam",
  "final_norm": "layernorm",
  "gpt_j_residual": false,
  "output_layer_parallelism": "column",
  "use_bias_in_attn_linear": false,
  "attention_config": [[["tokenformer"], 12]],
  "norm_activation_type": "l2_norm_gelu",
  "scaled_upper_triang_masked_softmax_fusion": false,
  "init_method": "normal",
  "output_layer_init_method": "wang_init",
  "optimizer": {
    "type": "Adam",
    "params": {
      "lr": 0.0006,
      "betas": [0.9, 0.95],
      "eps": 1.0e-8,
    }
  },
  "min_lr": 0.00006,
  "zero_optimization": { "stage": 1, "allgather_partitions": True, },
  "train_micro_batch_size_per_gpu": 32,
  "gradient_accumulation_steps": 4,
  "data_impl": "mmap",
  "gradient_clipping": 1.0,
  "weight_decay": 0.1,
  "hidden_dropout": 0,
  "fp16": { "enabled": true, "loss_scale": 0 },
  "train_iters": 143000,
  "lr_decay_iters": 143000,
  "lr_decay_style": "cosine",
  "warmup": 0.01,
  "tokenizer-type": "HFTokenizer",
  "vocab-file": "./tokenizer.json",
}
"#;

fn parse(text: &str) -> Result<NeoxConfig, Error> {
    NeoxConfig::parse(&[("c.yml", text)])
}

fn message(text: &str) -> String {
    match parse(text) {
        Err(error) => error.to_string(),
        Ok(config) => panic!("read as {config:?}"),
    }
}

/// The published configuration with another line in place of one key.
fn with(key: &str, line: &str) -> String {
    let lines = PUBLISHED.lines().map(|old| {
        if old.trim_start().starts_with(&format!("\"{key}\"")) {
            line
        } else {
            old
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_published_style_is_read() {
    let config = parse(PUBLISHED).unwrap();
    assert_eq!(
        (
            config.num_layers,
            config.hidden_size,
            config.num_attention_heads
        ),
        (12, 768, 12)
    );
    assert_eq!(
        (
            config.qkv_slot_num,
            config.proj_slot_num,
            config.ffn_slot_num
        ),
        (768, 768, 3072)
    );
    assert_eq!(
        (config.seq_length, config.max_position_embeddings),
        (2048, 2048)
    );
    assert_eq!(
        config.positions,
        Positions::Rotary {
            fraction: 0.25,
            base: 10000.0
        }
    );
    assert_eq!(
        (config.norm, config.final_norm),
        (Norm::Plain, Norm::Affine)
    );
    assert_eq!(config.norm_activation_type, NormActivation::L2NormGelu);
    assert!(!config.no_weight_tying);
    assert_eq!(config.layernorm_epsilon, 1e-5);
    assert_eq!(config.make_vocab_size_divisible_by, 128);
    assert_eq!(
        (&*config.init_method, &*config.output_layer_init_method),
        ("normal", "wang_init")
    );
    assert_eq!(config.init_method_std, 0.02);
    let training = &config.training;
    assert_eq!(training.optimizer.as_deref(), Some("Adam"));
    assert_eq!(
        (training.lr, training.min_lr, training.eps),
        (Some(6e-4), Some(6e-5), Some(1e-8))
    );
    assert_eq!(training.betas, Some([0.9, 0.95]));
    assert_eq!(
        (training.train_iters, training.warmup),
        (Some(143_000), Some(0.01))
    );
    assert_eq!(
        (
            training.tokenizer_type.as_deref(),
            training.vocab_file.as_deref()
        ),
        (Some("HFTokenizer"), Some("./tokenizer.json"))
    );
    assert_eq!(training.seed, None);
    assert_eq!(
        config.ignored,
        [
            "data_impl",
            "fp16",
            "hidden_dropout",
            "output_layer_parallelism",
            "pipe_parallel_size",
            "scaled_upper_triang_masked_softmax_fusion",
            "zero_optimization"
        ]
    );
}

#[test]
fn plain_yaml_and_json_say_the_same() {
    let yaml = "
num-layers: 2
hidden-size: 64   # width
num-attention-heads: 4
qkv-slot-num: 40
proj-slot-num: 24
ffn-slot-num: 136
seq-length: 48
pos-emb: rotary
rotary-pct: 0.5
no-weight-tying: yes
norm: layernorm_nonparam
final-norm: 'layernorm'
layernorm-epsilon: 1e-06
norm-activation-type: gelu_l2_norm
optimizer:
  type: Adam
  params:
    betas:
    - 0.9
    - 0.95
";
    let json = r#"{"num_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "qkv_slot_num": 40, "proj_slot_num": 24,
        "ffn_slot_num": 136, "seq_length": 48, "max_position_embeddings": null, "pos_emb": "rotary", "rotary_pct": 0.5,
        "no_weight_tying": true, "norm": "layernorm_nonparam", "final_norm": "layernorm", "layernorm_epsilon": 1e-06,
        "norm_activation_type": "gelu_l2_norm", "optimizer": {"type": "Adam", "params": {"betas": [0.9, 0.95]}}}"#;
    let config = parse(yaml).unwrap();
    assert_eq!(config, parse(json).unwrap());
    assert_eq!(config.max_position_embeddings, 48);
    assert_eq!(config.layernorm_epsilon, 1e-6);
    assert!(config.no_weight_tying);
    assert_eq!(config.norm_activation_type, NormActivation::GeluL2Norm);
    assert_eq!(config.training.betas, Some([0.9, 0.95]));
}

#[test]
fn a_model_folder_s_config_is_read() {
    let hugging_face = PUBLISHED.replacen('{', "{\n\"architectures\": [\"TokenFormerForCausalLM\"], \"torch_dtype\": \"float16\", \"use_cache\": true,", 1);
    let config = parse(&hugging_face).unwrap();
    for key in ["architectures", "torch_dtype", "use_cache"] {
        assert!(config.ignored.contains(&key.to_string()));
    }
}

#[test]
fn later_files_win() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.yml"), dir.path().join("b.yml"));
    std::fs::write(&first, PUBLISHED).unwrap();
    std::fs::write(&second, "qkv-slot-num: 1792\nseed: 7\n").unwrap();
    let config = NeoxConfig::load(&[&first, &second]).unwrap();
    assert_eq!(
        (
            config.qkv_slot_num,
            config.proj_slot_num,
            config.training.seed
        ),
        (1792, 768, Some(7))
    );
    let config = NeoxConfig::load(&[&second, &first]).unwrap();
    assert_eq!(config.qkv_slot_num, 768);
    assert!(matches!(
        NeoxConfig::load(&[dir.path().join("absent")]),
        Err(Error::Io { .. })
    ));
    std::fs::write(&second, [0xff, 0xfe]).unwrap();
    assert!(
        NeoxConfig::load(&[&second])
            .unwrap_err()
            .to_string()
            .contains("not text")
    );
    std::fs::write(&second, " ".repeat((128 << 10) + 1)).unwrap();
    assert!(
        NeoxConfig::load(&[&second])
            .unwrap_err()
            .to_string()
            .contains("too large")
    );
}

#[test]
fn what_tokenformer_cannot_be_is_refused() {
    for (key, value, got) in [
        ("gpt_j_residual", "true", "true"),
        ("use_bias_in_attn_linear", "true", "true"),
        ("model_parallel_size", "2", "2"),
        ("attention_config", "[[[\"global\"], 12]]", "a list of 1"),
        (
            "attention_config",
            "[[[\"tokenformer\", \"global\"], 6]]",
            "a list of 1",
        ),
        (
            "attention_config",
            "[[[\"tokenformer\"], 11]]",
            "a list of 1",
        ),
        (
            "attention_config",
            "[[[\"tokenformer\"], 9223372036854775807], [[\"tokenformer\"], 9223372036854775807]]",
            "a list of 2",
        ),
        ("attention_config", "\"tokenformer\"", "\"tokenformer\""),
        ("data_impl", "1, \"moe_num_experts\": 8", ""),
        ("data_impl", "1, \"num_kv_heads\": 4", ""),
        ("data_impl", "1, \"use_mup\": true", ""),
        ("data_impl", "1, \"sparsity_config\": {\"block\": 16}", ""),
        ("data_impl", "1, \"sliding_window_width\": 128", ""),
    ] {
        let text = message(&with(key, &format!("\"{key}\": {value},")));
        assert!(
            text.contains("asks for something that is not supported"),
            "{text}"
        );
        assert!(
            text.contains("help:") && text.starts_with("c.yml:"),
            "{text}"
        );
        assert!(text.contains(&format!("got:      {got}")), "{text}");
    }
    for (key, value) in [
        ("attention_config", "[[[\"tokenformer\"], \"all\"]]"),
        (
            "attention_config",
            "[[[\"tokenformer\",\"tokenformer\"], 6]]",
        ),
        ("data_impl", "1, \"moe_num_experts\": 1"),
    ] {
        assert!(
            parse(&with(key, &format!("\"{key}\": {value},"))).is_ok(),
            "{value}"
        );
    }
}

#[test]
fn unusable_values_are_told() {
    for (key, value, expected) in [
        ("num_layers", "0", "an integer from 1"),
        ("num_layers", "-3", "an integer from 1"),
        ("num_layers", "1.5", "an integer from 1"),
        ("num_layers", "\"12\"", "an integer from 1"),
        ("num_layers", "99999999999", "an integer from 1"),
        ("num_layers", "99999999999999999999999", "an integer from 1"),
        (
            "num_attention_heads",
            "7",
            "a divisor of hidden_size, which is 768",
        ),
        (
            "num_attention_heads",
            "0",
            "a divisor of hidden_size, which is 768",
        ),
        ("rotary_pct", "1.5", "from 0 to 1"),
        ("rotary_pct", "-0.1", "from 0 to 1"),
        ("rotary_pct", ".nan", "from 0 to 1"),
        ("rotary_pct", "0.05", "even number of channels"),
        ("pos_emb", "\"learned\"", "\"rotary\" or \"none\""),
        (
            "norm",
            "\"rmsnorm\"",
            "\"layernorm_nonparam\" or \"layernorm\"",
        ),
        ("norm_activation_type", "\"relu\"", "l2_norm_gelu"),
        (
            "seq_length",
            "4096",
            "1 to max_position_embeddings, which is 2048",
        ),
        ("no_weight_tying", "\"false\"", "true or false"),
        ("min_lr", "1e999", "a number"),
        ("optimizer", "\"Adam\" }, #", ""),
    ] {
        let text = message(&with(key, &format!("\"{key}\": {value},")));
        assert!(
            text.contains(&format!("expected: {expected}")) || text.contains(expected),
            "{text}"
        );
        assert!(text.starts_with("c.yml:"), "{text}");
    }
    let text = message(&with("num_layers", ""));
    assert!(
        text.contains("c.yml: the key \"num_layers\" is missing"),
        "{text}"
    );
    let text = message(&with("ffn_slot_num", "\"ffn_slot_nmu\": 3,"));
    assert!(
        text.contains("\"ffn_slot_num\" is missing")
            && text.contains("the similar key \"ffn_slot_nmu\""),
        "{text}"
    );
    assert!(message(&with("pos_emb", "")).contains("learned positions"));
    assert!(
        message(&with(
            "hidden_size",
            "\"hidden_size\": 768, \"hidden-size\": 768,"
        ))
        .contains("given twice")
    );
    assert!(
        message(&with(
            "hidden_size",
            "\"hidden_size\": 768, \"hidden_size\": 768,"
        ))
        .contains("a key is repeated")
    );
}

#[test]
fn a_key_that_looks_like_an_absent_one_that_matters_is_refused() {
    for (key, line, meant) in [
        ("rotary_pct", "\"rotary_percent\": 0.25,", "rotary_pct"),
        ("rotary_pct", "\"rotary-pcnt\": 0.25,", "rotary_pct"),
        (
            "data_impl",
            "\"layer_norm_eps\": 1e-6,",
            "layernorm_epsilon",
        ),
        (
            "data_impl",
            "\"rotary_embed_base\": 5000,",
            "rotary_emb_base",
        ),
        (
            "gpt_j_residual",
            "\"gpt_j_residal\": true,",
            "gpt_j_residual",
        ),
        (
            "norm_activation_type",
            "\"norm_activation\": \"softmax\",",
            "norm_activation_type",
        ),
    ] {
        let text = message(&with(key, line));
        assert!(text.starts_with("c.yml:"), "{text}");
        assert!(text.contains("is not known"), "{text}");
        assert!(
            text.contains(&format!("help:     did you mean {meant}?")),
            "{text}"
        );
    }
    // Keys of GPT-NeoX that mean something else, and any key beside the one that it looks like.
    for (key, line) in [
        (
            "data_impl",
            "\"layernorm_fusion\": true, \"rms_norm_epsilon\": 1e-8,",
        ),
        ("model_parallel_size", "\"moe_expert_parallel_size\": 1,"),
        ("attention_config", "\"attention_dropout\": 0.0,"),
        ("data_impl", "\"rotary_percent\": 0.5,"),
    ] {
        parse(&with(key, line)).unwrap();
    }
}

#[test]
fn hostile_yaml_is_refused() {
    // Aliases that multiply, tags that would construct, and depth.
    assert!(message("a: &a [1, 2]\nb: [*a, *a]\n").contains("an anchor"));
    assert!(message("b: *a\n").starts_with("c.yml:1:"));
    assert!(message("a: !!python/object/apply:os.system ['id']\n").contains("a tag"));
    assert!(
        message(&format!("a: {}1{}", "[".repeat(100), "]".repeat(100)))
            .contains("nested too deeply")
    );
    assert!(message(&"[".repeat(100_000)).contains("c.yml:1:"));
    let indented: String = (0..1000)
        .map(|i| format!("{}a:\n", " ".repeat(i)))
        .collect();
    assert!(message(&indented).contains("nested too deeply"));
    assert!(message("").contains("no keys"));
    assert!(message("- 1\n").contains("not a mapping"));
    assert!(message("12").contains("not a mapping"));
    assert!(message("? [a]\n: 1\n").contains("a key is a list"));
    assert!(message("a: 1\n---\nb: 2\n").contains("several documents"));
    let text = message("{\"a\": ");
    assert!(text.starts_with("c.yml:2:"), "{text}");
}

#[test]
fn a_file_of_many_keys_is_refused_before_they_are_compared() {
    let keys: String = (0..9_000).map(|i| format!("{i:x}: \n")).collect();
    assert!(message(&keys).contains("too many values"));
    let values = format!("a: [{}]", "1,".repeat(20_000));
    assert!(message(&values).contains("at most 16384 keys and values"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn mutations_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"{}[],:#\"'\n -&*!|>%@`?~0e.\t\\".to_vec())), 1..12),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = PUBLISHED.as_bytes().to_vec();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(length.index(bytes.len() * 2));
        let _ = parse(std::str::from_utf8(&bytes).unwrap());
    }

    #[test]
    fn random_text_never_panics(text in "[-{}\\[\\],:#\"'\n \t&*!|>%a0\\\\é.?~]{0,80}") {
        let _ = parse(&text);
    }
}
