//! What a device has been asked for and hands over when it has it.

use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use autograd::{Error, Result};

/// A value that a device was asked for. Its copy is in the queue, so what is called later does not change it.
///
/// Natively it waits for the device the first time that it is polled, and is ready then. In a browser, where
/// nothing may wait, it is ready after the browser has called back: there it has to be awaited.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T>>>>;

/// What is there already.
pub fn at_once<T: 'static>(result: Result<T>) -> Pending<T> {
    Box::pin(ready(result))
}

/// Waits for the value: natively.
///
/// # Errors
/// The value's; [`Error::Device`] in a browser, if the value is not there yet.
pub fn wait<T, E: From<Error>>(
    pending: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    match pin!(pending).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(E::from(Error::Device(
            "a page cannot wait for its device: await the method of this name that ends in `_async`".into(),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_comes_is_an_error_and_not_an_endless_wait() {
        assert_eq!(wait(at_once(Ok(3))).ok(), Some(3));
        let never = wait(std::future::pending::<Result<()>>()).unwrap_err();
        assert!(never.to_string().contains("_async"), "{never}");
    }
}
