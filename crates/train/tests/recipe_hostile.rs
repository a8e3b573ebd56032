//! No recipe, however made, does more than end in a message, in the memory that a recipe may take.

use tokenformer_testing::{Watching, held};
use tokenformer_train::recipe::resolve;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// The message that a recipe ends with.
fn message(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    let (result, most) = held(|| resolve(Some(&path), &[]));
    assert!(
        most < 2 * text.len() + (64 << 20),
        "{most} bytes for a recipe of {}",
        text.len()
    );
    match result {
        Err(error) => error.to_string(),
        Ok(resolved) => panic!("accepted: {:?}", resolved.recipe),
    }
}

#[test]
fn rounded_moments_need_a_second_moment_that_forgets() {
    let told = message("[optimizer]\nmoments = \"bf16\"\nbeta2 = 0.999");
    assert!(
        told.contains("optimizer.beta2") && told.contains("0.99 with moments"),
        "{told}"
    );
}

#[test]
fn depth_is_bounded() {
    const DEPTH: usize = 100_000;
    for text in [
        format!("a = {}1{}", "[".repeat(DEPTH), "]".repeat(DEPTH)),
        format!("a = {}", "[".repeat(DEPTH)),
        format!("a = {}", "{a=".repeat(DEPTH)),
        format!("a{} = 1", ".a".repeat(DEPTH)),
        format!("[a{}]\nb = 1", ".a".repeat(DEPTH)),
        format!("[[a{}]]\nb = 1", ".a".repeat(DEPTH)),
        format!("[a]\nb = {{ c{} = 1 }}", ".a".repeat(DEPTH)),
    ] {
        let told = message(&text);
        assert!(told.contains("help:"), "{told}");
        assert!(told.len() < 2000, "{} bytes of message", told.len());
    }
}

#[test]
fn long_lines_are_not_repeated_in_messages() {
    let long = "x".repeat(100_000);
    let largest = "x".repeat((1 << 20) - 10);
    for text in [
        format!("{largest} = 1"),
        format!("[model]\npreset = \"{}\"", "x".repeat((1 << 20) - 100)),
        long.clone(),
        format!("{long} = 1"),
        format!("[model]\nwidth = \"{long}\""),
        format!("[model]\npreset = \"{long}\""),
        format!("[{long}]"),
        format!("a = \"{long}"),
        format!("seed = {}", "9".repeat(100_000)),
    ] {
        let told = message(&text);
        assert!(told.contains("help:"), "{}", &told[..1000]);
        assert!(
            told.len() < 3000,
            "{} bytes for {}",
            told.len(),
            &text[..20]
        );
    }
}

#[test]
fn what_a_terminal_would_obey_is_not_repeated() {
    for text in ["\"\\u001b[31m\" = 1", "[model]\nwidth = \"\\u001b[31m\""] {
        let told = message(text);
        assert!(!told.contains('\u{1b}'), "{told:?}");
    }
}

#[test]
fn a_recipe_of_many_growths_is_checked_in_order() {
    let growths: String = (0..20_000)
        .map(|step| format!("[[grow]]\nat_step={}\nffn=\"+1\"\n", step % 19_999 + 1))
        .collect();
    let told = message(&growths);
    assert!(told.contains("growing step numbers"), "{told}");
}
