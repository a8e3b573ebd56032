//! No line of text, however made, takes more memory than it justifies.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;

use common::write;
use tokenformer_data::{Corpus, CorpusOptions, Dataset, Error};

/// Remembers how much memory a thread holds at most.
struct Watching;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn watch(change: isize) {
    // Memory may be freed while a thread ends, when there is nothing left to remember it.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call goes unchanged to the system allocator; the bookkeeping allocates nothing.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        watch(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Runs something and returns with it the most memory that it held on this thread.
fn held<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let result = run();
    (result, (MOST.get() - before) as usize)
}

fn texts(path: PathBuf) -> Result<Vec<String>, Error> {
    let mut texts = Vec::new();
    Corpus::open(CorpusOptions::new(vec![path]))?.visit(|document| {
        texts.push(document.text);
        Ok(())
    })?;
    Ok(texts)
}

#[test]
fn what_is_no_text_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let numbers = format!("[{}0]", "0,".repeat(1 << 20));
    let keys: String = (0..200_000).map(|i| format!("\"{i}\":1,")).collect();
    let lines = [
        (format!("{{\"text\":\"a\",\"rest\":{numbers}}}"), Ok("a")),
        (format!("{{{keys}\"text\":\"b\"}}"), Ok("b")),
        (
            format!("{{\"text\":{numbers}}}"),
            Err(
                "is not a string\n  expected: an object with the string key \"text\"\n  got:      an array",
            ),
        ),
        (
            format!("{{\"text\":{{{keys}\"z\":1}}}}"),
            Err("got:      an object"),
        ),
        (
            format!("{{{keys}\"t\":1}}"),
            Err("got:      keys \"0\", \"1\", \"10\","),
        ),
        (numbers, Err("got:      an array")),
    ];
    for (line, expected) in lines {
        let path = write(dir.path(), "a.jsonl", &line);
        let (found, most) = held(|| texts(path));
        match (found, expected) {
            (Ok(texts), Ok(text)) => assert_eq!(texts, [text]),
            (Err(error), Err(part)) => {
                let told = error.to_string();
                assert!(told.contains(part), "{told}");
            }
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
        // The line is read into a vector that doubles as it grows.
        let allowed = 4 * line.len() + (64 << 10);
        assert!(most < allowed, "{most} bytes for a line of {}", line.len());
    }
}

#[test]
fn a_window_that_the_file_does_not_justify_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // The magic, a descriptor, the window of 2^(10 + exponent) bytes, and a last raw block of one byte.
    let frame =
        |exponent: u8| [b"\x28\xb5\x2f\xfd\x00", &[exponent << 3][..], b"\x09\0\0a"].concat();
    let usual = write(dir.path(), "usual.txt.zst", frame(13));
    assert_eq!(texts(usual).unwrap(), ["a"]);
    // One segment whose content is said to have 64 MiB.
    let single = b"\x28\xb5\x2f\xfd\xa0\0\0\0\x04\x09\0\0a".to_vec();
    for bytes in [frame(14), frame(16), frame(31), single] {
        let path = write(dir.path(), "window.txt.zst", &bytes);
        let (found, most) = held(|| texts(path));
        let told = found.unwrap_err().to_string();
        assert!(told.contains("window"), "{told}");
        assert!(most < 1 << 20, "{most} bytes for a file of {}", bytes.len());
    }
    // The same window where the file is half as large.
    let mut large = frame(14);
    large.truncate(6);
    for _ in 0..65 {
        // A raw block of 128 KiB.
        large.extend([0, 0, 0x10]);
        large.resize(large.len() + (128 << 10), b'a');
    }
    large.extend([1, 0, 0]);
    let path = write(dir.path(), "large.txt.zst", large);
    assert_eq!(texts(path).unwrap()[0].len(), 65 * (128 << 10));
}

#[test]
fn of_a_repeated_key_the_last_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(
        dir.path(),
        "a.jsonl",
        r#"{"text":7,"text":"b","other":{"text":"c"}}"#,
    );
    assert_eq!(texts(path).unwrap(), ["b"]);
}

#[test]
fn a_description_of_a_dataset_has_a_largest_size() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "dataset.json", "[".repeat((16 << 20) + 1));
    let told = Dataset::open(dir.path()).unwrap_err().to_string();
    assert!(told.contains("expected: at most 16777216 bytes"), "{told}");
}
