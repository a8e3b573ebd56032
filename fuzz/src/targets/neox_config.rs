//! GPT-NeoX configurations.

use tokenformer_formats::neox_config::NeoxConfig;

use super::MIB;
use crate::memory::bounded;

/// Parses the input, alone and merged with itself.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    bounded(input, MIB, || {
        let alone = NeoxConfig::parse(&[("input.yml", text)]);
        if let Err(error) = &alone {
            assert!(error.to_string().len() < 4000, "{error}");
        }
        let twice = NeoxConfig::parse(&[("input.yml", text), ("again.yml", text)]);
        assert_eq!(alone.is_ok(), twice.is_ok());
    });
}
