//! Finished questions of a stopped evaluation.

use tokenformer_tasks::Partial;

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// Opens the input as it is and behind a header that fits, twice: what was kept is known again.
pub fn run(input: &[u8]) {
    const HEADER: &[u8] =
        b"{\"format\":\"tokenformer-eval-partial\",\"version\":2,\"program\":\"p\"}\n";
    for file in [input.to_vec(), [HEADER, input].concat()] {
        let path = files::write("partial.jsonl", &file);
        bounded(&file, MIB, || match Partial::open(&path, "p") {
            Ok(partial) => {
                let count = partial.len();
                // One evaluation at a time has the file.
                drop(partial);
                let again = Partial::open(&path, "p").expect("what was kept");
                assert_eq!(again.len(), count);
            }
            Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
        });
    }
}
