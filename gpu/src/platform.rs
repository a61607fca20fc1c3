//! What differs between a program and a page: all of it.
//!
//! A program may stop and wait, and has threads. A page has neither: it must go back to its browser, which calls
//! when something is done.

pub use here::*;

#[cfg(not(target_family = "wasm"))]
mod here {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use autograd::{Error, Result};

    pub const BACKENDS: wgpu::Backends =
        wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

    /// Opens a device; one that is not checked has no checks of its driver either, where that can be asked for.
    pub async fn open(
        adapter: &wgpu::Adapter,
        wanted: &wgpu::DeviceDescriptor<'_>,
        is_checked: bool,
    ) -> std::result::Result<(wgpu::Device, wgpu::Queue), String> {
        #[cfg(not(target_vendor = "apple"))]
        if !is_checked && let Some(opened) = crate::vulkan::open(adapter, wanted) {
            return Ok(opened);
        }
        let _ = is_checked;
        adapter.request_device(wanted).await.map_err(|error| error.to_string())
    }

    /// Error scopes that were closed and whose errors are still to come: none, they come at once.
    #[derive(Default)]
    pub struct Scopes;

    impl Scopes {
        /// Closes scopes, the innermost last in the list; the error that they caught, if there was one.
        pub fn close(&self, _what: &str, scopes: Vec<wgpu::ErrorScopeGuard>) -> Option<wgpu::Error> {
            scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).last()
        }

        /// The errors that have come since, each with what was being done.
        pub async fn errors(&self) -> Vec<(String, wgpu::Error)> {
            Vec::new()
        }
    }

    /// Does `work` for every number below `count`, on all cores.
    pub fn for_each(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
        let next = AtomicUsize::new(0);
        let share = || {
            let claim = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&number| number < count);
            std::iter::from_fn(claim).try_for_each(&work)
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(share)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(Error::Device("a thread of the device panicked".into())))
            })
        })
    }
}

#[cfg(target_family = "wasm")]
mod here {
    use std::cell::RefCell;
    use std::future::Future;
    use std::pin::Pin;

    use autograd::Result;

    pub const BACKENDS: wgpu::Backends = wgpu::Backends::BROWSER_WEBGPU;

    /// Opens a device; what browsers check they always check.
    pub async fn open(
        adapter: &wgpu::Adapter,
        wanted: &wgpu::DeviceDescriptor<'_>,
        _is_checked: bool,
    ) -> std::result::Result<(wgpu::Device, wgpu::Queue), String> {
        adapter.request_device(wanted).await.map_err(|error| error.to_string())
    }

    type Caught = Pin<Box<dyn Future<Output = Option<wgpu::Error>>>>;

    /// Error scopes that were closed and whose errors are still to come.
    #[derive(Default)]
    pub struct Scopes(RefCell<Vec<(String, Caught)>>);

    impl Scopes {
        /// Closes scopes, the innermost last in the list. What they caught is told later, by [`Scopes::errors`].
        pub fn close(&self, what: &str, scopes: Vec<wgpu::ErrorScopeGuard>) -> Option<wgpu::Error> {
            for scope in scopes.into_iter().rev() {
                self.0.borrow_mut().push((what.into(), Box::pin(scope.pop())));
            }
            None
        }

        /// The errors that have come since, each with what was being done.
        pub async fn errors(&self) -> Vec<(String, wgpu::Error)> {
            let scopes = self.0.take();
            let mut errors = Vec::new();
            for (what, caught) in scopes {
                errors.extend(caught.await.map(|error| (what, error)));
            }
            errors
        }
    }

    /// Does `work` for every number below `count`.
    pub fn for_each(count: usize, work: impl Fn(usize) -> Result<()>) -> Result<()> {
        (0..count).try_for_each(work)
    }
}
