//! Each task's contexts, continuations and answers, on invented rows of both shapes.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenformer_tasks::rows::Row;
use tokenformer_tasks::{Question, Task};

fn row(value: &Value) -> Row {
    Row::parse(&value.to_string(), "made-up.jsonl:3".into(), 2).unwrap()
}

fn question(task: Task, value: Value) -> Question {
    task.question(&row(&value)).unwrap()
}

fn pairs(question: &Question) -> Vec<(&str, &str)> {
    let pairs = question.pairs.iter();
    pairs.map(|p| (&*p.context, &*p.continuation)).collect()
}

#[test]
fn lambada_splits_at_the_last_space() {
    let q = question(Task::LambadaOpenai, json!({"text": "one\ntwo  three four"}));
    assert_eq!(pairs(&q), [("one\ntwo  three", " four")]);
    // Only spaces split, and a single word has an empty context.
    let q = question(Task::LambadaOpenai, json!({"text": "one\ntwo"}));
    assert_eq!(pairs(&q), [("", " one\ntwo")]);
    let q = question(Task::LambadaOpenai, json!({"text": "one "}));
    assert_eq!(pairs(&q), [("one", " ")]);
}

#[test]
fn hellaswag_cleans_hub_rows() {
    // What lm-eval 0.4.13 makes of this row.
    let q = question(
        Task::Hellaswag,
        json!({
            "activity_label": "Baking bread",
            "ctx_a": "A cook mixes [step] flour  and   water. ",
            "ctx_b": "the COOK then Kneads [title] the dough [un\nclosed] [a [b] c]",
            "ctx": "not used",
            "endings": [" [header] Rest it.", "waits [title] and  bakes.", "[x]", "  ends "],
            "label": "1",
        }),
    );
    let context = "Baking bread: A cook mixes flour and  water. The cook then kneads. the dough [un\nclosed] c]";
    let want = ["  Rest it.", " waits. and bakes.", " ", " ends"].map(|end| (context, end));
    assert_eq!(pairs(&q), want);
    assert_eq!((q.gold, q.lengths), (1, vec![9, 17, 0, 4]));
}

#[test]
fn hellaswag_rows_without_parts_have_their_whole_context() {
    let endings = json!(["stops.", "runs [title] on"]);
    let whole = json!({"ctx": "A man walks. he", "endings": endings, "label": 1});
    let q = question(Task::Hellaswag, whole);
    let context = "A man walks. he";
    assert_eq!(pairs(&q), [(context, " stops."), (context, " runs. on")]);
    assert_eq!(q.gold, 1);
    // As the authors publish them: the parts exist next to the whole.
    let published = json!({
        "ind": 24, "activity_label": "Walking", "ctx_a": "A man walks.", "ctx_b": "he",
        "ctx": "A man walks. he", "split": "val", "split_type": "indomain", "label": 0,
        "endings": endings, "source_id": "activitynet~v_1",
    });
    let q = question(Task::Hellaswag, published);
    let context = "Walking: A man walks. He";
    assert_eq!(pairs(&q), [(context, " stops."), (context, " runs. on")]);
    assert_eq!(q.gold, 0);
}

#[test]
fn normalised_rows_are_not_cleaned_again() {
    for task in [Task::Hellaswag, Task::ArcEasy, Task::ArcChallenge] {
        let q = question(
            task,
            json!({"ctx": "An [odd]  UPPER", "choices": [" a [title] b", "ü"], "gold": 1}),
        );
        assert_eq!(
            pairs(&q),
            [
                ("An [odd]  UPPER", "  a [title] b"),
                ("An [odd]  UPPER", " ü")
            ]
        );
        assert_eq!((q.gold, q.lengths), (1, vec![12, 1]));
    }
}

#[test]
fn piqa_asks() {
    let hub =
        json!({"goal": "Open a jar ", "sol1": "twist it", "sol2": "warm the lid ", "label": 1});
    let normalised =
        json!({"goal": "Open a jar ", "choices": ["twist it", "warm the lid "], "gold": 1});
    let context = "Question: Open a jar \nAnswer:";
    for value in [hub, normalised] {
        let q = question(Task::Piqa, value);
        assert_eq!(
            pairs(&q),
            [(context, " twist it"), (context, " warm the lid ")]
        );
        assert_eq!((q.gold, q.lengths), (1, vec![8, 13]));
    }
}

#[test]
fn arc_finds_the_answer_among_its_labels() {
    for (labels, answer, gold) in [
        (json!(["A", "B", "C"]), "C", 2),
        (json!(["1", "2", "3"]), "2", 1),
    ] {
        let q = question(
            Task::ArcEasy,
            json!({
                "id": "x", "question": "What is wet?",
                "choices": {"text": ["sand", "rain", "dust"], "label": labels},
                "answerKey": answer,
            }),
        );
        let context = "Question: What is wet?\nAnswer:";
        assert_eq!(
            pairs(&q),
            [(context, " sand"), (context, " rain"), (context, " dust")]
        );
        assert_eq!(q.gold, gold);
    }
    // As the authors publish it.
    let nested = json!({
        "id": "MCAS_2000_4_6",
        "question": {
            "stem": "What is wet?",
            "choices": [
                {"text": "sand", "label": "A"}, {"text": "rain", "label": "B"},
                {"text": "dust", "label": "C"},
            ],
        },
        "answerKey": "B",
    });
    for task in [Task::ArcEasy, Task::ArcChallenge] {
        let q = question(task, nested.clone());
        let context = "Question: What is wet?\nAnswer:";
        assert_eq!(
            pairs(&q),
            [(context, " sand"), (context, " rain"), (context, " dust")]
        );
        assert_eq!((q.gold, q.lengths), (1, vec![4, 4, 4]));
    }
}

#[test]
fn winogrande_scores_the_rest_after_each_option() {
    let hub = json!({
        "sentence": "The cup fits the bag as the _  is small. ",
        "option1": "cup", "option2": "bag", "answer": "1",
    });
    // Normalised rows may keep the sentence's white space; it is stripped all the same.
    let normalised = json!({
        "ctxs": ["The cup fits the bag as the cup", "The cup fits the bag as the bag"],
        "cont": "  is small.", "gold": 0,
    });
    for value in [hub, normalised] {
        let q = question(Task::Winogrande, value);
        assert_eq!(
            pairs(&q),
            [
                ("The cup fits the bag as the cup", " is small."),
                ("The cup fits the bag as the bag", " is small."),
            ]
        );
        assert_eq!(q.gold, 0);
    }
}

#[test]
fn wrong_rows_are_explained() {
    let cases = [
        (
            Task::LambadaOpenai,
            json!({"txt": 1}),
            "\"text\" is missing",
        ),
        (
            Task::LambadaOpenai,
            json!({"text": 1}),
            "\"text\" has a wrong value",
        ),
        (
            Task::Piqa,
            json!({"goal": "g", "sol1": "a", "sol2": "b", "label": -1}),
            "from 0 to 1",
        ),
        (
            Task::Piqa,
            json!({"goal": "g", "sol1": "a", "sol2": "b", "label": ""}),
            "from 0 to 1",
        ),
        (
            Task::Piqa,
            json!({"goal": "g", "choices": [], "gold": 0}),
            "a list of strings",
        ),
        (
            Task::Hellaswag,
            json!({"ctx": "c", "choices": ["a"], "gold": 1}),
            "from 0 to 0",
        ),
        (
            Task::Hellaswag,
            json!({"ctx": "c", "choices": ["a"], "gold": 1e30}),
            "from 0 to 0",
        ),
        (
            Task::ArcEasy,
            json!({"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}),
            "this among them",
        ),
        (
            Task::ArcEasy,
            json!({"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"}),
            "one label per choice",
        ),
        (
            Task::ArcEasy,
            json!({"question": "q", "choices": ["a"], "answerKey": "B"}),
            "choices.text",
        ),
        (
            Task::ArcEasy,
            json!({"question": {"choices": []}, "answerKey": "A"}),
            "\"question.stem\" has a wrong value",
        ),
        (
            Task::ArcEasy,
            json!({"question": {"stem": "q", "choices": [{"text": "a"}]}, "answerKey": "A"}),
            "a list of objects with the string \"label\"",
        ),
        (
            Task::ArcEasy,
            json!({"question": {"stem": "q", "choices": [{"text": "a", "label": "A"}]}, "answerKey": "B"}),
            "this among them",
        ),
        (
            Task::Winogrande,
            json!({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}),
            "with a \"_\"",
        ),
        (
            Task::Winogrande,
            json!({"sentence": "a _", "option1": "a", "option2": "b", "answer": "0"}),
            "from 1 to 2",
        ),
    ];
    for (task, value, want) in cases {
        let message = task.question(&row(&value)).unwrap_err().to_string();
        assert!(message.starts_with("made-up.jsonl:3: "), "{message}");
        for part in [want, "\n  expected: ", "\n  got:      ", "\n  help:     "] {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}

#[test]
fn names_are_read() {
    assert_eq!(
        Task::parse_list("winogrande,piqa,piqa").unwrap(),
        [Task::Winogrande, Task::Piqa]
    );
    let message = Task::parse_list("piqa,hellswag").unwrap_err().to_string();
    assert!(message.contains("did you mean hellaswag?"), "{message}");
    for task in Task::ALL {
        assert_eq!(task.name().parse::<Task>().unwrap(), task);
        assert_eq!(serde_json::to_value(task).unwrap(), task.name());
    }
}

/// Values of any kind, mostly of those that rows have.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i64>().prop_map(|n| json!(n)),
        (0..3i64).prop_map(|n| json!(n)),
        "[ \\[\\]_a-cA-CΣ\n]{0,12}".prop_map(|s| json!(s)),
        Just(json!("1")),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            (inner.clone(), inner).prop_map(|(a, b)| json!({"text": a, "label": b})),
        ]
    })
}

proptest! {
    #[test]
    fn no_row_panics(values in prop::collection::vec(value(), 16), used in any::<u16>()) {
        const KEYS: [&str; 16] = [
            "text", "ctx", "choices", "gold", "goal", "sol1", "sol2", "label", "question", "answerKey",
            "sentence", "option1", "option2", "answer", "endings", "ctx_a",
        ];
        let fields = KEYS.iter().zip(values).enumerate().filter(|(i, _)| used & (1 << i) != 0);
        let fields = fields.map(|(_, (key, value))| ((*key).to_owned(), value));
        let row = row(&Value::Object(fields.collect()));
        for task in Task::ALL {
            if let Ok(question) = task.question(&row) {
                prop_assert!(question.gold < question.pairs.len());
                prop_assert_eq!(question.pairs.len(), question.lengths.len());
            }
        }
    }
}
