//! Catches panics of decoders, which hostile bytes can cause, without a message on standard error; they are returned as
//! errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static IS_DECODING: Cell<bool> = const { Cell::new(false) };
}

/// The result of `decode`; `None` if it panics. Panics elsewhere are reported as before.
pub(super) fn caught<T>(decode: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_DECODING.get() {
                report(panic);
            }
        }));
    });
    IS_DECODING.set(true);
    // The decoders are safe code on separate memory, so the state after a panic is simply dropped.
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    IS_DECODING.set(false);
    decoded.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_the_next_decoding_works() {
        assert_eq!(caught(|| -> u8 { panic!("a decoder") }), None);
        assert!(!IS_DECODING.get());
        assert_eq!(caught(|| 1), Some(1));
    }
}
