//! Safetensors files, as they come and with a header whose length fits.

use tokenformer_store::SafetensorsFile;

use super::MIB;
use crate::memory::bounded;
use crate::{files, forge};

/// Opens the input as a file, and its text before the first NUL as the header of one.
pub fn run(input: &[u8]) {
    open(input);
    let [header, data] = files::parts(input);
    open(&forge::safetensors(header, data));
}

fn open(bytes: &[u8]) {
    let path = files::write("input.safetensors", bytes);
    bounded(bytes, MIB, || match SafetensorsFile::open(&path) {
        Ok(file) => {
            for name in file.names() {
                assert!(file.bytes(name).expect("a listed tensor").len() <= bytes.len());
                let _ = (
                    file.read_f32(name),
                    file.read_f64(name),
                    file.read_u32(name),
                );
                let _ = (file.dtype(name), file.expect_shape(name, &[1]));
            }
            assert!(file.read_f32("no such name").is_err());
        }
        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
    });
}
