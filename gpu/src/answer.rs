//! An answer that the driver gives by calling back.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use autograd::Result;

/// A place for the answer: clones share it.
pub struct Answer<T>(Arc<Mutex<Slot<T>>>);

struct Slot<T> {
    answer: Option<T>,
    waker: Option<Waker>,
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Answer<T> {
        Answer(self.0.clone())
    }
}

impl<T> Answer<T> {
    pub fn new() -> Answer<T> {
        Answer(Arc::new(Mutex::new(Slot { answer: None, waker: None })))
    }

    /// What the driver calls.
    pub fn give(&self, answer: T) {
        let mut slot = self.slot();
        slot.answer = Some(answer);
        let waker = slot.waker.take();
        drop(slot);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The answer. Natively drivers call back while the device is waited for, so it does, by `wait`; in a browser
    /// that returns at once, and the browser calls back later.
    pub fn after(&self, wait: impl Fn() -> Result<()>) -> impl Future<Output = Result<T>> {
        poll_fn(move |context| {
            let there = self.slot().answer.take();
            if let Some(answer) = there {
                return Poll::Ready(Ok(answer));
            }
            let waited = wait();
            let mut slot = self.slot();
            match (slot.answer.take(), waited) {
                (_, Err(error)) => Poll::Ready(Err(error)),
                (Some(answer), Ok(())) => Poll::Ready(Ok(answer)),
                (None, Ok(())) => {
                    slot.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
