//! Valid model configurations, the errors of contradictory ones, and the presets.

mod common;

use common::{cpu, spec};
use tokenformer_core::config::{
    Anneal, Init, LayerConfig, ModelConfig, ModelSpec, NormSpan, ParamTraining, Positions,
    SegmentConfig, SiteConfig, SiteKind, Slots, Theta, Tracked, TrainingSettings,
};
use tokenformer_core::presets::{PRESETS, Preset};
use tokenformer_core::{Error, Model, init, published};

/// Field, expected and got of the first contradiction.
#[track_caller]
fn contradiction<T: std::fmt::Debug>(found: tokenformer_core::Result<T>) -> [String; 3] {
    match found {
        Err(Error::Config {
            field,
            expected,
            got,
            help,
        }) => {
            assert!(!help.is_empty());
            [field, expected, got]
        }
        other => panic!("not a contradiction: {other:?}"),
    }
}

fn changed(change: impl FnOnce(&mut ModelConfig)) -> tokenformer_core::Result<()> {
    let mut config = spec().build().unwrap();
    change(&mut config);
    config.validate()
}

fn site(config: &mut ModelConfig, block: usize, kind: SiteKind) -> &mut SiteConfig {
    config.blocks[block].site_mut(kind).unwrap()
}

/// Training settings in which the `τ` of a site moves.
fn annealing(from: f64, to: f64) -> TrainingSettings {
    let anneal = Anneal {
        from,
        to,
        start_step: u64::MAX - 1,
        steps: u64::MAX,
    };
    TrainingSettings {
        anneals: [("blocks.0.ffn".to_string(), anneal)].into(),
        ..TrainingSettings::default()
    }
}

/// Training settings in which the `τ` of a site follows the scores.
fn tracking(from: f64) -> TrainingSettings {
    TrainingSettings {
        tracked: [("blocks.0.ffn".to_string(), Tracked::new(from, 1))].into(),
        ..TrainingSettings::default()
    }
}

/// Training settings with a factor of the learning rate.
fn scaled(lr_scale: f32) -> TrainingSettings {
    let how = ParamTraining {
        lr_scale,
        trainable: false,
        warmup: 7,
        ..ParamTraining::default()
    };
    TrainingSettings {
        params: [("blocks.0.proj.segments.0.keys".to_string(), how)].into(),
        ..TrainingSettings::default()
    }
}

#[test]
fn heads_divide_the_width() {
    let found = contradiction(ModelSpec { heads: 3, ..spec() }.build());
    assert_eq!(found, ["heads", "a divisor of the width 16", "3"]);
    let text = ModelSpec { heads: 3, ..spec() }
        .build()
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "heads: not a possible setting\n  expected: a divisor of the width 16\n  got:      3\n  help:     \
         choose a width that is a multiple of the heads"
    );
}

#[test]
fn rotated_channels_are_pairs() {
    let with = |fraction| {
        ModelSpec {
            positions: Positions::Rotary {
                fraction,
                base: 1e4,
            },
            ..spec()
        }
        .build()
    };
    // 8 channels per head.
    for (fraction, dims) in [(0.25, 2), (0.3, 2), (0.5, 4), (1.0, 8)] {
        assert_eq!(with(fraction).unwrap().rotary_dims(), dims);
    }
    for (fraction, dims) in [(0.1, 0), (0.4, 3), (0.9, 7)] {
        let [field, expected, got] = contradiction(with(fraction));
        assert_eq!(field, "positions.fraction");
        assert!(expected.contains("even"), "{expected}");
        assert!(
            got.starts_with(&format!("{dims} (= 8 channels per head x {fraction}")),
            "{got}"
        );
    }
    for fraction in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
        assert_eq!(contradiction(with(fraction))[1], "above 0, at most 1");
    }
    for base in [1.0, 0.0, -5.0, f64::NAN, f64::INFINITY] {
        let positions = Positions::Rotary {
            fraction: 0.5,
            base,
        };
        assert_eq!(
            contradiction(
                ModelSpec {
                    positions,
                    ..spec()
                }
                .build()
            )[0],
            "positions.base"
        );
    }
    let none = ModelSpec {
        positions: Positions::None,
        width: 6,
        ..spec()
    }
    .build()
    .unwrap();
    assert_eq!(none.rotary_dims(), 0);
}

#[test]
fn sizes_are_neither_zero_nor_absurd() {
    type Change = fn(&mut ModelSpec, usize);
    let sizes: [(&str, Change); 8] = [
        ("vocab", |s, n| s.vocab = n),
        ("width", |s, n| s.width = n),
        ("heads", |s, n| s.heads = n),
        ("context", |s, n| s.context = n),
        ("layers", |s, n| s.layers = n),
        ("blocks.0.query.segments.0.tokens", |s, n| s.slots.qkv = n),
        ("blocks.0.proj.segments.0.tokens", |s, n| s.slots.proj = n),
        ("blocks.0.ffn.segments.0.tokens", |s, n| s.slots.ffn = n),
    ];
    for (name, change) in sizes {
        for n in [0, (1 << 24) + 1, usize::MAX] {
            let mut spec = spec();
            change(&mut spec, n);
            let found = contradiction(spec.build());
            // A site of 0 tokens has τ = 0, which is found first.
            let tau = name.replace("segments.0.tokens", "tau");
            assert!(
                found[0] == name || (n == 0 && found[0] == tau),
                "{found:?} for {name} = {n}"
            );
        }
    }
}

#[test]
fn products_of_sizes_are_not_absurd() {
    // Each size is possible, together they are not; nothing is allocated to find out.
    let huge = ModelSpec {
        vocab: 1 << 24,
        width: 1 << 24,
        heads: 1,
        layers: 1 << 14,
        slots: Slots {
            qkv: 1 << 24,
            proj: 1 << 24,
            ffn: 1 << 24,
        },
        positions: Positions::None,
        ..spec()
    };
    assert_eq!(contradiction(huge.build())[0], "model");
    // The table of angles is made from the context alone, which no weights vouch for.
    let long = ModelSpec {
        width: 4096,
        heads: 1,
        context: 1 << 24,
        positions: Positions::Rotary {
            fraction: 1.0,
            base: 1e4,
        },
        ..spec()
    };
    assert_eq!(contradiction(long.build())[0], "context");
    let usual = ModelSpec {
        width: 128,
        heads: 1,
        context: 1 << 17,
        ..long.clone()
    };
    usual.build().unwrap();
    ModelSpec {
        positions: Positions::None,
        ..long
    }
    .build()
    .unwrap();
}

#[test]
fn a_fresh_model_too_large_for_memory_is_an_error() {
    // 2^48 numbers.
    let large = ModelSpec {
        vocab: 1 << 24,
        width: 1 << 24,
        positions: Positions::None,
        ..spec()
    };
    let large = large.build().unwrap();
    let error = Model::fresh(&cpu(), &large, 1).unwrap_err();
    assert!(matches!(error, Error::Device(_)), "{error}");
    assert!(error.to_string().contains("out of memory"), "{error}");
}

#[test]
fn small_numbers_have_bounds() {
    // Numbers that single precision, in which they are used, does not have are refused as well.
    for eps in [0.0, -1e-6, 2e-3, f64::NAN, 1e-60] {
        assert_eq!(
            contradiction(changed(|c| site(c, 1, SiteKind::Ffn).eps = eps))[0],
            "blocks.1.ffn.eps"
        );
    }
    for eps in [0.0, -1e-6, 1.5, f64::NAN, 1e-60] {
        assert_eq!(contradiction(changed(|c| c.norm_eps = eps))[0], "norm_eps");
    }
    for tau in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60, 1e39] {
        assert_eq!(
            contradiction(changed(|c| site(c, 1, SiteKind::Ffn).tau = tau))[0],
            "blocks.1.ffn.tau"
        );
        let found = contradiction(changed(|c| site(c, 0, SiteKind::Key).segments[0].tau = tau));
        assert_eq!(found[0], "blocks.0.key.segments.0.tau");
        for (from, to, end) in [(tau, 1.0, "from"), (1.0, tau, "to")] {
            let found = contradiction(annealing(from, to).validate());
            assert_eq!(found[0], format!("blocks.0.ffn: anneal.{end}"));
        }
        let found = contradiction(tracking(tau).validate());
        assert_eq!(found[0], "blocks.0.ffn: tracked");
    }
    for scale in [-1.0, f32::NAN, f32::INFINITY] {
        let found = contradiction(scaled(scale).validate());
        assert_eq!(found[0], "blocks.0.proj.segments.0.keys: lr_scale");
    }
    scaled(0.0).validate().unwrap();
    let found = contradiction(changed(|c| site(c, 0, SiteKind::Value).segments.clear()));
    assert_eq!(found[0], "blocks.0.value.segments");
    let twice = |c: &mut ModelConfig| {
        let segments = &mut site(c, 0, SiteKind::Value).segments;
        segments.push(segments[0].clone());
    };
    assert_eq!(
        contradiction(changed(twice))[0],
        "blocks.0.value.segments.1.id"
    );
    let mlp = |c: &mut ModelConfig| {
        c.blocks[1].ffn = LayerConfig::Mlp {
            hidden: 0,
            bias: false,
            parts: Vec::new(),
        };
    };
    assert_eq!(contradiction(changed(mlp))[0], "blocks.1.ffn.hidden");
}

#[test]
fn an_anneal_at_the_end_of_time_is_safe() {
    let mut model = Model::fresh(&cpu(), &spec().build().unwrap(), 1).unwrap();
    model.set_training(&annealing(1.0, 2.0));
    assert_eq!(model.training_settings(), annealing(1.0, 2.0));
    for step in [0, 5, u64::MAX] {
        model.set_step(step);
        let tau = site(&mut model.config(), 0, SiteKind::Ffn).tau;
        assert!((1.0..=2.0).contains(&tau));
    }
}

fn read(text: &str) -> ModelConfig {
    let (config, training) = ModelConfig::from_json(text, "x").unwrap();
    assert!(training.is_default());
    config
}

#[test]
fn json_there_and_back() {
    let mut config = spec().build().unwrap();
    assert_eq!(read(&config.to_json()), config);
    // Everything that growth leaves in a configuration.
    config.positions = Positions::None;
    for (i, kind) in SiteKind::ALL.into_iter().enumerate() {
        let site = site(&mut config, 1, kind);
        site.tau = 2f64.sqrt() * (i + 1) as f64 / 3.0;
        site.norm = if i % 2 == 0 {
            NormSpan::Segment
        } else {
            NormSpan::Joint
        };
        site.segments.push(SegmentConfig {
            id: 9,
            tokens: 7,
            tau: 7f64.sqrt(),
            stage: 3,
            born_step: 1 << 60,
        });
    }
    // The layers of a plain Transformer.
    config.blocks[0].key = LayerConfig::Linear { bias: true };
    config.blocks[0].ffn = LayerConfig::Mlp {
        hidden: 5,
        bias: false,
        parts: Vec::new(),
    };
    let text = config.to_json();
    assert_eq!(read(&text), config);
    assert_eq!(read(&text).to_json(), text);
}

#[test]
fn roots_survive_json_to_the_last_bit() {
    let mut config = spec().build().unwrap();
    for n in 1..3000 {
        let ffn = site(&mut config, 0, SiteKind::Ffn);
        ffn.tau = f64::from(n).sqrt();
        ffn.segments[0].tau = f64::from(n).sqrt() / 7.0;
        assert_eq!(read(&config.to_json()).blocks[0].ffn, config.blocks[0].ffn);
    }
}

#[test]
fn a_built_model_describes_itself() {
    let mut config = spec().build().unwrap();
    let ffn = site(&mut config, 0, SiteKind::Ffn);
    ffn.segments.push(SegmentConfig {
        id: 1,
        stage: 2,
        ..ffn.segments[0].clone()
    });
    let model = Model::fresh(&cpu(), &config, 1).unwrap();
    assert_eq!(model.config(), config);
    assert_eq!(model.param_count(), config.params());
}

#[track_caller]
fn unreadable(text: &str, words: &[&str]) {
    let error = ModelConfig::from_json(text, "dir/config.json").unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("dir/config.json: ") && text.contains("\n  help:"),
        "{text}"
    );
    assert!(words.iter().all(|w| text.contains(w)), "{text}");
}

#[test]
fn unreadable_json_is_an_error() {
    let good = spec().build().unwrap().to_json();
    unreadable("", &[]);
    unreadable("{", &[]);
    unreadable("[1, 2]", &["version"]);
    unreadable("{}", &["expected: version 1 or 2", "no version"]);
    unreadable(
        &good.replace("\"version\": 2", "\"version\": 3"),
        &["expected: version 1 or 2", "got:      version 3"],
    );
    unreadable(
        &good.replace("\"version\": 2", "\"version\": \"2\""),
        &["no version"],
    );
    unreadable(
        &good.replace("\"vocab\"", "\"vocabulary\""),
        &["vocabulary"],
    );
    unreadable(&good.replace("\"width\": 16,", ""), &["width"]);
    unreadable(&good.replace("\"width\": 16", "\"width\": -16"), &["-16"]);
    unreadable(&good.replace("\"width\": 16", "\"width\": 1e400"), &[]);
    unreadable(&good.replace("l2-norm-gelu", "relu"), &["relu"]);
    unreadable(&good.replace("\"fraction\"", "\"share\""), &["share"]);
    unreadable(&good.replace("\"tokens\"", "\"slots\""), &["slots"]);
    unreadable(&"[".repeat(100_000), &[]);
    unreadable("7", &["no version"]);
    unreadable("{\"version\": {\"version\": 1}}", &[]);
    unreadable(
        &good.replace("\"width\": 16", "\"width\": 16, \"width\": 16"),
        &["duplicate field `width`"],
    );
    let other = good.replace("\"tokenformer\"", "\"llama\"");
    assert_eq!(
        contradiction(ModelConfig::from_json(&other, "x")),
        ["format", "\"tokenformer\"", "llama"]
    );
    let absurd = good.replace("\"width\": 16", "\"width\": 18446744073709551615");
    assert_eq!(
        contradiction(ModelConfig::from_json(&absurd, "x"))[0],
        "width"
    );
}

#[test]
fn presets_have_the_published_totals() {
    for (name, total) in [
        ("150m", 151_881_216),
        ("450m", 454_166_528),
        ("900m", 903_252_480),
        ("1.5b", 1_587_219_456),
        ("124m", 123_569_664),
        ("354m", 354_190_848),
        ("757m", 753_796_608),
        ("1.4b", 1_309_705_728),
        ("gpt-nano", 1_041_696),
        ("gpt-tiny", 2_682_288),
        ("gpt-small", 15_742_320),
        ("gpt-124m", 123_569_664),
        ("gpt-354m", 356_305_664),
        ("gpt-757m", 748_564_608),
        ("gpt-1.4b", 1_283_560_960),
    ] {
        let config = Preset::named(name).unwrap().spec().build().unwrap();
        assert_eq!(config.params(), total, "{name}");
    }
}

#[test]
fn plain_transformers_are_as_large_as_the_stages_of_the_growth_study() {
    for name in ["124m", "354m", "757m", "1.4b"] {
        let [ours, plain] = [name.to_string(), format!("gpt-{name}")].map(|name| {
            let config = Preset::named(&name).unwrap().spec().build().unwrap();
            config.params() as f64
        });
        assert!(
            (plain / ours - 1.0).abs() < 0.02,
            "{name}: {plain} and {ours}"
        );
    }
}

/// The plain ones are timm's totals; the others follow from the sizes in the paper's table of vision models.
#[test]
fn image_presets_have_the_parameters_that_are_said() {
    for (name, params) in [
        ("vit-b16", 114_759_400),
        ("vit-b16-matched", 86_447_848),
        ("vit-l16", 404_670_440),
        ("vit-l16-matched", 304_007_144),
        ("vit-plain-tiny16", 5_717_416),
        ("vit-plain-b16", 86_567_656),
        ("vit-plain-l16", 304_326_632),
    ] {
        let config = Preset::named(name).unwrap().spec().build().unwrap();
        assert_eq!(config.params(), params, "{name}");
        assert_eq!((config.context, config.classes()), (197, 1000), "{name}");
    }
    for name in ["digits", "mnist", "cifar", "emoji"] {
        let [ours, plain] = ["vit", "vit-plain"].map(|family| {
            let preset = Preset::named(&format!("{family}-{name}")).unwrap();
            let config = preset.spec().build().unwrap();
            // What is counted without memory is what a model has.
            let model = Model::fresh(&cpu(), &config, 1).unwrap();
            assert_eq!(model.param_count(), config.params(), "{family}-{name}");
            assert_eq!(model.config(), config, "{family}-{name}");
            config.params() as f64
        });
        let off = (plain / ours - 1.0).abs();
        assert!(off < 0.06, "{name}: {plain} and {ours}");
    }
}

#[test]
fn presets_are_what_the_papers_say() {
    for preset in PRESETS {
        let config = preset.spec().build().unwrap();
        config.validate().unwrap();
        let growth =
            ["124m", "354m", "757m", "1.4b"].contains(&preset.name.trim_start_matches("gpt-"));
        assert_eq!(
            config.positions == Positions::None,
            growth,
            "{}",
            preset.name
        );
        assert_eq!(
            config.logit_factor(),
            if growth {
                1.0 / (config.width as f32).sqrt()
            } else {
                1.0
            },
            "{}",
            preset.name
        );
        if preset.name.starts_with("gpt-") || preset.name.starts_with("vit-plain-") {
            let hidden = 4 * config.width;
            let bias = !config.input.is_tokens();
            assert_eq!(
                config.blocks[0].ffn,
                LayerConfig::Mlp {
                    hidden,
                    bias,
                    parts: Vec::new()
                }
            );
            assert_eq!(config.blocks[0].query, LayerConfig::Linear { bias });
            continue;
        }
        let site = config.blocks[0].site(SiteKind::Ffn).unwrap();
        assert_eq!(site.theta, Theta::L2NormGelu);
        if preset.name.ends_with(['m', 'b']) {
            let slots = preset.spec().slots;
            assert_eq!(
                (slots.proj, slots.ffn),
                (slots.qkv, 4 * slots.qkv),
                "{}",
                preset.name
            );
        }
    }
    let rotary = |name| {
        Preset::named(name)
            .unwrap()
            .spec()
            .build()
            .unwrap()
            .rotary_dims()
    };
    assert_eq!(
        ["150m", "450m", "900m", "1.5b", "124m"].map(rotary),
        [16, 16, 20, 24, 0]
    );
}

#[test]
fn an_unknown_preset_names_the_nearest() {
    let error = Preset::named("150M").unwrap_err().to_string();
    assert!(
        error.contains("did you mean \"150m\"?") && error.contains("nano, tiny, small"),
        "{error}"
    );
    assert!(
        Preset::named("enormous")
            .unwrap_err()
            .to_string()
            .contains("tokenformer config presets")
    );
}

#[test]
fn floating_point_operations_of_a_token() {
    // 150M at its context: 2·113,246,208 + 4·12·768·2048 + 2·50304·768.
    let config = Preset::named("150m").unwrap().spec().build().unwrap();
    assert_eq!(config.body_params(), 113_246_208);
    let want = 2.0 * 113_246_208.0 + 4.0 * 12.0 * 768.0 * 2048.0 + 2.0 * 50_304.0 * 768.0;
    assert_eq!(config.forward_flops_per_token(2048), want);
}

/// Standard deviation of an array, which must have enough numbers to tell.
fn spread(model: &Model, name: &str) -> f64 {
    let param = model
        .params()
        .into_iter()
        .find(|p| p.name() == name)
        .unwrap();
    let mut host = vec![0.0; param.len()];
    model.device().read(param.value(), &mut host).unwrap();
    assert!(host.len() > 10_000);
    let mean = common::mean(&host);
    assert!(mean.abs() < 0.05 * host.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max));
    (host
        .iter()
        .map(|x| (f64::from(*x) - mean).powi(2))
        .sum::<f64>()
        / host.len() as f64)
        .sqrt()
}

#[test]
fn fresh_weights_have_the_spread_of_their_scheme() {
    let base = ModelSpec {
        vocab: 300,
        width: 64,
        layers: 3,
        slots: Slots {
            qkv: 200,
            proj: 240,
            ffn: 400,
        },
        ..spec()
    };
    let released = 2.0 / (3.0 * 8.0);
    for (scheme, want) in [
        (
            Init::Released,
            [0.02, 0.02, 0.02, released, released, released],
        ),
        (
            Init::FanIn,
            [
                1.0,
                0.125,
                0.125,
                1.0 / 200f64.sqrt(),
                1.0 / 240f64.sqrt(),
                0.05,
            ],
        ),
    ] {
        let config = ModelSpec {
            init: scheme,
            ..base.clone()
        }
        .build()
        .unwrap();
        let model = Model::fresh(&cpu(), &config, 1).unwrap();
        let names = [
            "embedding",
            "blocks.0.query.segments.0.keys",
            "blocks.2.ffn.segments.0.keys",
            "blocks.1.value.segments.0.values",
            "blocks.1.proj.segments.0.values",
            "blocks.2.ffn.segments.0.values",
        ];
        for (name, want) in names.into_iter().zip(want) {
            let got = spread(&model, name);
            assert!(
                (got / want - 1.0).abs() < 0.03,
                "{name}: {got} is not {want} ({scheme:?})"
            );
        }
        for param in model
            .params()
            .into_iter()
            .filter(|p| p.name().starts_with("final_norm"))
        {
            let mut host = vec![0.5; param.len()];
            model.device().read(param.value(), &mut host).unwrap();
            let want = if param.name().ends_with("gain") {
                1.0
            } else {
                0.0
            };
            assert!(host.iter().all(|x| *x == want), "{}", param.name());
        }
    }
}

#[test]
fn fresh_weights_depend_on_seed_and_name_alone() {
    let draw = |seed, name| init::normal(seed, name, 50, 1.0);
    assert_eq!(draw(1, "a"), draw(1, "a"));
    assert_ne!(draw(1, "a"), draw(2, "a"));
    assert_ne!(draw(1, "a"), draw(1, "b"));
    // More blocks leave the first ones as they are.
    let [two, three] = [2, 3].map(|layers| {
        let config = ModelSpec {
            layers,
            init: Init::FanIn,
            ..spec()
        }
        .build()
        .unwrap();
        common::weights(&Model::fresh(&cpu(), &config, 1).unwrap())
    });
    assert!(two.iter().all(|array| three.contains(array)));
}

#[test]
fn every_array_has_a_published_name() {
    let config = spec().build().unwrap();
    let model = Model::fresh(&cpu(), &config, 1).unwrap();
    let names = published::names(&config);
    let ours: Vec<&str> = names.iter().map(|(ours, _)| ours.as_str()).collect();
    assert_eq!(
        ours,
        model.params().iter().map(|p| p.name()).collect::<Vec<_>>()
    );
    let theirs = |ours: &str| names.iter().find(|(n, _)| n == ours).unwrap().1.as_str();
    assert_eq!(theirs("embedding"), "sequential.0.word_embeddings.weight");
    assert_eq!(
        theirs("blocks.1.key.segments.0.values"),
        "sequential.3.attention.key.value_param_tokens"
    );
    assert_eq!(
        theirs("blocks.0.ffn.segments.0.keys"),
        "sequential.2.mlp.key_param_tokens"
    );
    assert_eq!(theirs("final_norm.bias"), "sequential.5.norm.bias");
}

#[test]
fn weights_of_another_size_are_refused() {
    let config = spec().build().unwrap();
    let error = Model::build(&cpu(), &config, &mut |_, _| Ok(vec![0.0; 3])).unwrap_err();
    assert!(
        matches!(&error, Error::Tensor { name, .. } if name == "embedding"),
        "{error}"
    );
    assert!(
        error.to_string().contains("expected: shape [29, 16]"),
        "{error}"
    );
}

#[test]
fn a_fresh_site_has_the_root_of_its_tokens() {
    let site = SiteConfig::fresh(50, Theta::Softmax, NormSpan::Segment, 2, 30);
    assert_eq!(
        (site.tau, site.segments[0].tau, site.tokens()),
        (50f64.sqrt(), 50f64.sqrt(), 50)
    );
    assert_eq!(
        (site.segments[0].stage, site.segments[0].born_step),
        (2, 30)
    );
}
