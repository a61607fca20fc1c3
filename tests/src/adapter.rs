//! The GPU of the tests. Software drivers do not bear several devices being made at the same time, so a
//! test binary opens one after the other, and its tests take turns on it.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use gpu::{GpuDevice, Options};

/// Only one test at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other test uses the GPU.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the adapter that `SLD_TEST_ADAPTER` names, or the first; take a [`turn`] before. `None`, said
/// past the capture of the test harness, where this machine has none; under `CI` that is a failure.
pub fn open(options: Options) -> Option<GpuDevice> {
    match GpuDevice::open(std::env::var("SLD_TEST_ADAPTER").ok().as_deref(), options) {
        Ok(device) => Some(device),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "continuous integration must have an adapter: {error}");
            let _ = writeln!(std::io::stderr(), "\n*** SKIPPED ON THE GPU: {error} ***\n");
            None
        }
    }
}

/// The device that the tests of a binary share, opened as the program opens it.
pub fn shared() -> Option<&'static GpuDevice> {
    static DEVICE: OnceLock<Option<GpuDevice>> = OnceLock::new();
    let made = || {
        let _turn = turn();
        open(Options::default())
    };
    DEVICE.get_or_init(made).as_ref()
}
