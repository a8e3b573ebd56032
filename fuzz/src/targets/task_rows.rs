//! Rows of evaluation tasks, plain and compressed.

use tokenformer_tasks::{Task, rows};

use super::MIB;
use crate::files;
use crate::memory::bounded;

/// The first byte chooses between plain and `.gz`; the rest is the file, of which every task makes questions.
pub fn run(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let name = if kind == b'z' {
        "rows.jsonl.gz"
    } else {
        "rows.jsonl"
    };
    let path = files::write(name, rest);
    bounded(input, 16 * MIB, || match rows::read(&path, None) {
        Ok(rows) => {
            for row in &rows {
                for task in Task::ALL {
                    match task.question(row) {
                        Ok(question) => {
                            assert!(question.gold < question.pairs.len());
                            assert_eq!(question.lengths.len(), question.pairs.len());
                        }
                        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
                    }
                }
            }
        }
        Err(error) => assert!(error.to_string().len() < 4000, "{error}"),
    });
}
