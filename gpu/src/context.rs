//! The open device with what everything in this crate shares: typed errors, buffers, reading back.

use std::sync::{Arc, Mutex, PoisonError};

use autograd::{Error, Result};
use schedule::Pending;
use schedule::pending::at_once;
use shaders::Target;

use crate::answer::Answer;
use crate::platform::Scopes;

/// An open device.
pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub name: String,
    pub target: Target,
    pub limits: wgpu::Limits,
    /// Whether shaders keep their bounds checks.
    pub checked: bool,
    pub timestamps: bool,
    /// What the driver reported outside any error scope.
    failure: Arc<Failure>,
    scopes: Scopes,
    /// A buffer to read back through, kept for the next time.
    staging: Mutex<Option<wgpu::Buffer>>,
}

#[derive(Default)]
struct Failure {
    /// Stays: nothing works on a lost device.
    lost: Mutex<Option<String>>,
    latest: Mutex<Option<Error>>,
}

/// Locks, also after a panic elsewhere: the values behind these locks are always whole.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    pub fn new(device: wgpu::Device, queue: wgpu::Queue, name: String, target: Target, checked: bool) -> Gpu {
        let failure = Arc::new(Failure::default());
        let on_lost = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device on purpose is reported as well.
            if reason != wgpu::DeviceLostReason::Destroyed {
                *lock(&on_lost.lost) = Some(message);
            }
        });
        let on_error = failure.clone();
        let keep = move |error| *lock(&on_error.latest) = Some(typed(error, "the device"));
        device.on_uncaptured_error(Arc::new(keep));
        Gpu {
            limits: device.limits(),
            timestamps: device.features().contains(wgpu::Features::TIMESTAMP_QUERY),
            device,
            queue,
            name,
            target,
            checked,
            failure,
            scopes: Scopes::default(),
            staging: Mutex::new(None),
        }
    }

    /// Runs `create` with every kind of error caught and returned: an object that failed to be created
    /// would otherwise be ignored silently when it is used. In a browser errors come later, see [`Gpu::settled`].
    pub fn scoped<T>(&self, what: &str, create: impl FnOnce() -> T) -> Result<T> {
        let filters =
            [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let made = create();
        match self.scopes.close(what, scopes.into()) {
            None => self.check().map(|()| made),
            Some(error) => Err(typed(error, what)),
        }
    }

    /// [`Gpu::check`] once everything that was to be created has been, also in a browser.
    pub async fn settled(&self) -> Result<()> {
        match self.scopes.errors().await.into_iter().next() {
            Some((what, error)) => Err(typed(error, &what)),
            None => self.check(),
        }
    }

    /// What the driver has reported since the last check.
    pub fn check(&self) -> Result<()> {
        if let Some(message) = lock(&self.failure.lost).clone() {
            return Err(Error::Lost(format!("{message}; open the device again (state on it is gone)")));
        }
        match lock(&self.failure.latest).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A storage buffer of this many bytes, zero at first.
    pub fn buffer(&self, label: &str, size: u64) -> Result<wgpu::Buffer> {
        if size > self.limits.max_buffer_size {
            return Err(Error::Limit(format!(
                "`{label}` needs {} MiB, this device allows buffers of {} MiB: use a smaller batch",
                size >> 20,
                self.limits.max_buffer_size >> 20
            )));
        }
        self.scoped(&format!("{} MiB for `{label}`", size >> 20), || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// Waits until everything submitted is done: natively. In a browser it returns at once.
    pub fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index: submission, timeout: None });
        self.check()?;
        waited.map(drop).map_err(|error| Error::Lost(format!("waiting for the device: {error}")))
    }

    /// Reads the first `elements` of a buffer, after everything submitted so far.
    pub fn read(self: &Arc<Self>, buffer: &wgpu::Buffer, elements: usize) -> Result<Pending<Vec<f32>>> {
        let size = (elements * 4) as u64;
        if elements == 0 {
            return Ok(at_once(Ok(Vec::new())));
        }
        let kept = lock(&self.staging).take().filter(|b| b.size() >= size);
        let staging = kept.map_or_else(|| self.staging(elements), Ok)?;
        let copied = self.copy_to(buffer, &staging, elements)?;
        let values = self.fetch(staging.clone(), copied, elements);
        let gpu = self.clone();
        Ok(Box::pin(async move {
            let values = values.await?;
            *lock(&gpu.staging) = Some(staging);
            Ok(values)
        }))
    }

    /// A buffer to read so many elements back through.
    pub fn staging(&self, elements: usize) -> Result<wgpu::Buffer> {
        self.scoped("reading back", || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("read back"),
                size: (elements as u64 * 4).next_multiple_of(4096),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })
    }

    /// Sends a copy of a buffer's first elements, after everything submitted so far.
    pub fn copy_to(
        &self,
        buffer: &wgpu::Buffer,
        staging: &wgpu::Buffer,
        elements: usize,
    ) -> Result<wgpu::SubmissionIndex> {
        self.scoped("reading back", || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, 0, staging, 0, (elements * 4) as u64);
            self.queue.submit([encoder.finish()])
        })
    }

    /// What was copied to a staging buffer, which then can be used again. What was submitted later is not
    /// waited for.
    pub fn fetch(
        self: &Arc<Self>,
        staging: wgpu::Buffer,
        copied: wgpu::SubmissionIndex,
        elements: usize,
    ) -> Pending<Vec<f32>> {
        let size = (elements * 4) as u64;
        let mapped = Answer::new();
        let callback = mapped.clone();
        staging.map_async(wgpu::MapMode::Read, 0..size, move |result| callback.give(result));
        let gpu = self.clone();
        Box::pin(async move {
            let failed = |error: &dyn std::fmt::Display| Error::Device(format!("reading back: {error}"));
            let mapped = mapped.after(|| gpu.wait(Some(copied.clone()))).await?;
            gpu.settled().await?;
            mapped.map_err(|error| failed(&error))?;
            let view = staging.get_mapped_range(0..size).map_err(|error| failed(&error))?;
            let values = bytemuck::pod_collect_to_vec(&view[..]);
            drop(view);
            staging.unmap();
            Ok(values)
        })
    }
}

/// The error of doing `what`.
fn typed(error: wgpu::Error, what: &str) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            Error::OutOfMemory(format!("{what}: the device has no room left: use a smaller batch"))
        }
        wgpu::Error::Validation { description, .. } => Error::Device(format!("{what}: {description}")),
        wgpu::Error::Internal { description, .. } => Error::Device(format!("{what}: {description}")),
    }
}
