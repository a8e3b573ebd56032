//! Repositories of the Hugging Face Hub.

use std::path::PathBuf;

use hf_hub::api::sync::{ApiBuilder, ApiError};

use crate::{Error, Result};

/// Downloads the files that a conversion needs into the shared cache and returns the folder. Files that are in the
/// cache are not downloaded again, and an interrupted download is resumed.
pub(crate) fn download(repository: &str) -> Result<PathBuf> {
    let failed = |what: &str, error: ApiError| Error::Hub {
        repository: repository.into(),
        what: what.into(),
        got: error.to_string(),
        help: "check the name and the connection (HF_ENDPOINT and HTTPS_PROXY are obeyed); \
               without internet, give a local file or folder",
    };
    let api = ApiBuilder::from_env()
        .with_progress(true)
        .build()
        .map_err(|error| failed("an answer", error))?;
    let model = api.model(repository.into());
    let files = model
        .info()
        .map_err(|error| failed("the list of files", error))?
        .siblings;
    let named = |name: &str| files.iter().any(|file| file.rfilename == name);
    let fetch = |name: &str| model.get(name).map_err(|error| failed(name, error));

    let config = fetch("config.json")?;
    let folder = config.parent().map(PathBuf::from).unwrap_or_default();
    if named("tokenizer.json") {
        fetch("tokenizer.json")?;
    }
    for (index, single) in [
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ] {
        if named(index) {
            fetch(index)?;
            let (start, end) = single.split_once('.').unwrap_or((single, ""));
            for file in files.iter().map(|file| file.rfilename.as_str()) {
                if file.starts_with(start) && file.ends_with(end) && file != single {
                    fetch(file)?;
                }
            }
            return Ok(folder);
        }
        if named(single) {
            fetch(single)?;
            return Ok(folder);
        }
    }
    Err(Error::NoCheckpoint {
        path: repository.into(),
        got: format!("a repository of {} files without weights", files.len()),
        help: "look at its page for the files that it has".into(),
    })
}
