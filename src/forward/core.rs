//! Which core this thread is: its place among the pools of idle connections.

use std::cell::Cell;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Says that this thread is the core with this number, from 0.
pub fn enter(number: usize) {
    NUMBER.set(number);
}

/// This thread's number.
pub(in crate::forward) fn number() -> usize {
    NUMBER.get()
}
