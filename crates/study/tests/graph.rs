//! A run's key changes with everything that determines its bytes, and with nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use tokenformer_core::Device;
use tokenformer_core::growth::{Amount, Growth};
use tokenformer_cpu::Cpu;
use tokenformer_study::graph::{Common, Graph, OnText, Rate, Root, Stretch};
use tokenformer_study::shapes::Shapes;
use tokenformer_train::recipe::{GrowEvent, ModelTable};

/// What determines a run from scratch and one that goes on with it.
struct Runs {
    common: Common,
    second: Option<String>,
    root: Root,
    seed: u64,
    to_step: u64,
    rate: Rate,
    label: &'static str,
    growth: Growth,
    text: OnText,
}

impl Runs {
    fn new() -> Self {
        let mut model = ModelTable::from_preset("nano").unwrap();
        model.vocab = 256;
        Self {
            common: Common {
                corpus: "a text".into(),
                batch: 8,
                context: 32,
                warmup_steps: 10,
                eval: (50, 1000),
            },
            second: None,
            root: Root {
                model,
                base: Default::default(),
            },
            seed: 1,
            to_step: 100,
            rate: Rate::Flat(1e-3),
            label: "run",
            growth: Growth {
                ffn: Amount::Add(16),
                ..Growth::default()
            },
            text: OnText::First,
        }
    }

    /// The keys of the run from scratch and of the one after it.
    fn keys(&self) -> [String; 2] {
        let device: Arc<dyn Device> = Cpu::new(Some(1));
        let mut shapes = Shapes::new(&device);
        let mut graph = Graph::new(self.common.clone(), self.second.clone());
        let stretch = |to_step, growth, text| Stretch {
            label: self.label.into(),
            to_step,
            rate: self.rate,
            growth,
            text,
        };
        let event = GrowEvent {
            growth: self.growth.clone(),
            ..GrowEvent::default()
        };
        let root = Arc::new(self.root.clone());
        let first = stretch(self.to_step, None, OnText::First);
        let first = graph.root(&mut shapes, &root, self.seed, first).unwrap();
        let then = stretch(200, Some(event), self.text);
        let then = graph.child(&mut shapes, first, then).unwrap();
        [first, then].map(|at| graph.node(at).key.clone())
    }
}

/// A change of what determines a run.
type Change = fn(&mut Runs);

#[test]
fn everything_that_determines_a_run_is_in_its_key() {
    let changes: [(&str, Change); 11] = [
        ("corpus", |runs| runs.common.corpus = "another".into()),
        ("batch", |runs| runs.common.batch = 9),
        ("context", |runs| runs.common.context = 33),
        ("warm-up", |runs| runs.common.warmup_steps = 11),
        ("evaluations", |runs| runs.common.eval = (50, 1001)),
        ("model", |runs| runs.root.model.vocab = 257),
        ("sizes of the rate", |runs| runs.root.base.ffn = 48),
        ("seed", |runs| runs.seed = 2),
        ("length", |runs| runs.to_step = 101),
        ("rate", |runs| runs.rate = Rate::Flat(2e-3)),
        ("schedule", |runs| runs.rate = Rate::Decay(1e-3)),
    ];
    let mut seen = BTreeMap::new();
    for key in Runs::new().keys() {
        assert_eq!(seen.insert(key, "nothing"), None);
    }
    for (what, change) in changes {
        let mut runs = Runs::new();
        change(&mut runs);
        for key in runs.keys() {
            assert_eq!(seen.insert(key, what), None, "{what}");
        }
    }
}

#[test]
fn a_growth_and_a_second_text_are_in_the_keys_of_what_follows_alone() {
    let [first, then] = Runs::new().keys();
    let changes: [(&str, Change); 3] = [
        ("amount", |runs| runs.growth.ffn = Amount::Add(32)),
        ("moments", |runs| {
            runs.growth.moments = tokenformer_core::growth::Moments::Reset
        }),
        ("text", |runs| {
            (runs.text, runs.second) = (OnText::Second, Some("a text".into()))
        }),
    ];
    for (what, change) in changes {
        let mut runs = Runs::new();
        change(&mut runs);
        let keys = runs.keys();
        assert_eq!(keys[0], first, "{what}");
        assert_ne!(keys[1], then, "{what}");
    }
    let on = |second: &str| {
        let mut runs = Runs::new();
        (runs.text, runs.second) = (OnText::Second, Some(second.into()));
        runs.keys()[1].clone()
    };
    assert_ne!(on("one"), on("two"));
}

/// A name for people changes nothing, nor does a second text that the run does not read: runs that are done stay done.
#[test]
fn names_and_what_is_not_read_are_in_no_key() {
    let keys = Runs::new().keys();
    let mut runs = Runs::new();
    (runs.label, runs.second) = ("another name", Some("unread".into()));
    assert_eq!(runs.keys(), keys);
}
