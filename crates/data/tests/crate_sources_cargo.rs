//! Asking a real cargo for crate sources.

mod common;

use common::write;
use tokenformer_data::Error;
use tokenformer_data::crate_sources::{CrateSourcesOptions, crate_sources};

#[test]
fn a_project_without_dependencies_has_no_sources_to_offer() {
    let dir = tempfile::tempdir().unwrap();
    let manifest =
        "[package]\nname = \"lonely\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    write(dir.path(), "Cargo.toml", manifest);
    let lock = "version = 4\n\n[[package]]\nname = \"lonely\"\nversion = \"0.1.0\"\n";
    write(dir.path(), "Cargo.lock", lock);
    write(
        dir.path(),
        "src/lib.rs",
        "// A file of the project itself does not count.\n".repeat(50),
    );
    let error = crate_sources(&CrateSourcesOptions::new(dir.path().into())).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::CrateSources { .. }), "{message}");
    assert!(
        message.contains("no crate from a registry has suitable files"),
        "{message}"
    );
}

#[test]
fn a_folder_without_a_manifest_says_what_cargo_said() {
    let dir = tempfile::tempdir().unwrap();
    let message = crate_sources(&CrateSourcesOptions::new(dir.path().into()))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`cargo` failed: error: manifest path"),
        "{message}"
    );
    assert!(
        message.contains("use your own text with --data PATH"),
        "{message}"
    );
}
