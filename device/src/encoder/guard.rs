//! Calls into tract: their panics become errors, and are not printed as well.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use tract_onnx::prelude::TractResult;

use super::EncodeError;

thread_local! {
    /// Whether a panic of this thread becomes an error.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Keeps from the program's panic hook what becomes an error on its thread: that is told once,
/// by whoever tells the error.
fn quieten_what_is_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_CAUGHT.get() {
                loud(panic);
            }
        }));
    });
}

/// Runs a step in tract; its errors and panics become [`EncodeError`]s.
pub(super) fn in_tract<T>(
    step: &'static str,
    work: impl FnOnce() -> TractResult<T>,
) -> Result<T, EncodeError> {
    quieten_what_is_caught();
    let was_caught = IS_CAUGHT.replace(true);
    // Nothing that a panic may have left half-done is used afterwards: every step either
    // hands over its result or drops all it touched.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(was_caught);
    match outcome {
        Ok(outcome) => outcome.map_err(|source| EncodeError::Tract { step, source }),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("an unknown panic")
                .to_owned();
            Err(EncodeError::Panic { step, message })
        }
    }
}
