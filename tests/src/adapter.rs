//! The GPU of the tests. Software drivers do not bear devices being made at the same time, and compile the kernels of a
//! device on one thread: a test binary makes two devices, one after the other, and its tests share them out.

use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

use gpu::{GpuDevice, Options};

/// One device is made at a time.
static MAKING: Mutex<()> = Mutex::new(());
/// How many threads use each of the shared devices.
static USERS: Mutex<[usize; 2]> = Mutex::new([0; 2]);

/// Opens the adapter that `SLD_TEST_ADAPTER` names, or the first. `None`, said past the capture of the test harness,
/// where this machine has none; under `CI` that is a failure.
pub fn open(options: Options) -> Option<GpuDevice> {
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    match GpuDevice::open(std::env::var("SLD_TEST_ADAPTER").ok().as_deref(), options) {
        Ok(device) => Some(device),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "continuous integration must have an adapter: {error}");
            let _ = writeln!(std::io::stderr(), "\n*** SKIPPED ON THE GPU: {error} ***\n");
            None
        }
    }
}

/// A device that the tests of a binary share.
pub struct Shared {
    pub device: GpuDevice,
    /// Held by who runs something on it.
    pub turn: Mutex<()>,
}

/// The device of this thread, and so of this test, opened as the program opens it.
pub fn shared() -> Option<&'static Shared> {
    /// A thread's device, by number, until the thread ends.
    struct Seat(usize);
    impl Seat {
        fn take() -> Seat {
            let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
            let number = usize::from(users[1] < users[0]);
            users[number] += 1;
            Seat(number)
        }
    }
    impl Drop for Seat {
        fn drop(&mut self) {
            USERS.lock().unwrap_or_else(PoisonError::into_inner)[self.0] -= 1;
        }
    }
    thread_local! {
        static SEAT: Seat = Seat::take();
    }
    static DEVICES: OnceLock<Option<[Shared; 2]>> = OnceLock::new();
    let made = || {
        let one = || Some(Shared { device: open(Options::default())?, turn: Mutex::default() });
        Some([one()?, one()?])
    };
    DEVICES.get_or_init(made).as_ref().map(|devices| SEAT.with(|seat| &devices[seat.0]))
}
