//! Watches one call: its memory by a counting allocator, its time, and that it does not panic.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator, counting for each thread what it holds now and held at most.
pub struct Counting;

thread_local! {
    // Signed: a thread may free what another allocated.
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
    /// Largest peak allowed during a guarded call; 0 outside of one.
    static CAP: Cell<i64> = const { Cell::new(0) };
}

/// Counts a change; false if it goes beyond the cap of a guarded call.
fn count(change: i64) -> bool {
    let held = HELD.get() + change;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
    let cap = CAP.get();
    cap == 0 || held <= cap
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !count(layout.size() as i64) {
            // A null makes the caller abort: louder than any assertion, and nothing is really taken.
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !count(size as i64 - layout.size() as i64) {
            return std::ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The most that reading a file of `length` bytes may hold at once. The reader's own rule is 8 times the
/// file and a mebibyte, for tensors and again for storages; a pickle of one-byte opcodes takes up to two
/// hundred bytes for each, and decompression has fixed buffers.
fn cap(length: usize) -> i64 {
    (256 * length + (4 << 20)) as i64
}

/// Far beyond the milliseconds that a case takes, for the sake of busy machines.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Ends the process if a case hangs, naming it. One per test.
pub struct Watchdog {
    /// The running case's number and one, 0 when the test is over.
    case: &'static AtomicU64,
}

impl Watchdog {
    /// Starts watching the test `name`.
    pub fn start(name: &'static str) -> Self {
        let case: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(1)));
        std::thread::spawn(move || {
            let mut seen = (1, Instant::now());
            loop {
                std::thread::sleep(Duration::from_millis(500));
                match case.load(Ordering::Relaxed) {
                    0 => return,
                    now if now != seen.0 => seen = (now, Instant::now()),
                    now if seen.1.elapsed() > TIME_LIMIT => {
                        eprintln!("{name}: case {} hangs", now - 1);
                        std::process::abort();
                    }
                    _ => {}
                }
            }
        });
        Watchdog { case }
    }

    /// Runs `read` on a file of `length` bytes as case `case`. Panics, naming the case, if it panics;
    /// aborts if it takes more memory than a file of that size can need. Gives the peak in bytes beside
    /// the result.
    pub fn guard<T>(&self, case: u64, length: usize, read: impl FnOnce() -> T) -> (T, i64) {
        self.case.store(case + 1, Ordering::Relaxed);
        let before = HELD.get();
        PEAK.set(before);
        CAP.set(before + cap(length));
        let result = catch_unwind(AssertUnwindSafe(read));
        CAP.set(0);
        match result {
            Ok(result) => (result, PEAK.get() - before),
            Err(_) => panic!("case {case}: the reader panicked"),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.case.store(0, Ordering::Relaxed);
    }
}
