//! The open device with what everything in this crate shares: typed errors, buffers, reading back.

use std::sync::{Arc, Mutex, PoisonError};

use autograd::{Error, Result};
use shaders::Target;

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
        device.on_uncaptured_error(Arc::new(move |error| *lock(&on_error.latest) = Some(typed(error))));
        Gpu {
            limits: device.limits(),
            timestamps: device.features().contains(wgpu::Features::TIMESTAMP_QUERY),
            device,
            queue,
            name,
            target,
            checked,
            failure,
            staging: Mutex::new(None),
        }
    }

    /// Runs `create` with every kind of error caught and returned: an object that failed to be created
    /// would otherwise be ignored silently when it is used.
    pub fn scoped<T>(&self, what: &str, create: impl FnOnce() -> T) -> Result<T> {
        let filters =
            [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let made = create();
        let mut found = None;
        for scope in scopes.into_iter().rev() {
            if let Some(error) = pollster::block_on(scope.pop()) {
                found = Some(error);
            }
        }
        match found {
            None => self.check().map(|()| made),
            Some(error) => Err(match typed(error) {
                Error::Device(message) => Error::Device(format!("{what}: {message}")),
                Error::OutOfMemory(message) => Error::OutOfMemory(format!("{what}: {message}")),
                other => other,
            }),
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

    /// Waits until everything submitted is done.
    pub fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let waited = self.device.poll(wgpu::PollType::Wait { submission_index: submission, timeout: None });
        self.check()?;
        waited.map(drop).map_err(|error| Error::Lost(format!("waiting for the device: {error}")))
    }

    /// Reads the first `elements` of a buffer, after everything submitted so far.
    pub fn read(&self, buffer: &wgpu::Buffer, elements: usize) -> Result<Vec<f32>> {
        let size = (elements * 4) as u64;
        if elements == 0 {
            return Ok(Vec::new());
        }
        let kept = lock(&self.staging).take().filter(|b| b.size() >= size);
        let staging = match kept {
            Some(staging) => staging,
            None => self.scoped("reading back", || {
                self.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("read back"),
                    size: size.next_multiple_of(4096),
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            })?,
        };
        self.scoped("reading back", || {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
            self.queue.submit([encoder.finish()]);
        })?;
        let mapped = Arc::new(Mutex::new(None));
        let callback = mapped.clone();
        staging.map_async(wgpu::MapMode::Read, 0..size, move |result| *lock(&callback) = Some(result));
        self.wait(None)?;
        match lock(&mapped).take() {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(Error::Device(format!("reading back: {error}"))),
            None => return Err(Error::Lost("reading back never finished".into())),
        }
        let view = staging.get_mapped_range(0..size);
        let view = view.map_err(|error| Error::Device(format!("reading back: {error}")))?;
        let values = bytemuck::pod_collect_to_vec(&view[..]);
        drop(view);
        staging.unmap();
        *lock(&self.staging) = Some(staging);
        Ok(values)
    }
}

fn typed(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            Error::OutOfMemory("the device has no room left: use a smaller batch".into())
        }
        wgpu::Error::Validation { description, .. } => Error::Device(description),
        wgpu::Error::Internal { description, .. } => Error::Device(description),
    }
}
