//! Ctrl-C, and the signals that schedulers and closing terminals send.
//!
//! A command that can save its work asks with [`stop_politely`] to be told; the second signal ends it at
//! once, as the first ends every other command. The exit code is the shells': 128 and the signal's number.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Raised by the first signal where someone looks at it.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether someone looks at it.
static POLITE: AtomicBool = AtomicBool::new(false);
/// The first signal's number.
static SIGNAL: AtomicU8 = AtomicU8::new(SIGINT);

const SIGINT: u8 = 2;

/// The "error" of a command that saved its work and ended early because it was told to. Everything about
/// it has been said.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupted {
    /// 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(128 + SIGNAL.load(Ordering::Relaxed))
    }
}

/// From now on the first signal raises the flag that this gives, and only the second ends the program.
pub fn stop_politely() -> &'static AtomicBool {
    POLITE.store(true, Ordering::Relaxed);
    &STOP
}

fn receive(signal: u8) {
    if !POLITE.load(Ordering::Relaxed) || STOP.swap(true, Ordering::Relaxed) {
        end(signal);
    }
    SIGNAL.store(signal, Ordering::Relaxed);
    crate::warn!("\nfinishing the step and saving; once more to stop at once");
}

/// Begins to listen. Without it (where the system allows no handler) signals end the program as usual.
#[cfg(unix)]
pub fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut wanted = vec![SIGINT, SIGTERM];
    // What `nohup` keeps away stays away. A Ctrl-C, which shells keep away from what they start with `&`,
    // is listened to all the same: someone sent it to this process.
    if !is_ignored(SIGHUP) {
        wanted.push(SIGHUP);
    }
    if let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) {
        std::thread::spawn(move || signals.forever().for_each(|signal| receive(signal as u8)));
    }
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one into the place it is given.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(unix)]
fn end(signal: u8) -> ! {
    // SAFETY: ends the process. Not `exit`: other threads are computing, and a driver that tidies up under
    // them may hang.
    unsafe { libc::_exit(128 + i32::from(signal)) }
}

/// Begins to listen. Without it (where the system allows no handler) signals end the program as usual.
#[cfg(not(unix))]
pub fn listen() {
    let _ = ctrlc::set_handler(|| receive(SIGINT));
}

#[cfg(not(unix))]
fn end(signal: u8) -> ! {
    std::process::exit(128 + i32::from(signal))
}
