//! TensorBoard event files, written directly: few messages of one protocol buffer.
//!
//! A file is a sequence of records `length: u64, masked CRC of the length: u32, bytes, masked CRC of the
//! bytes: u32`, all little endian (the TFRecord format). The bytes are an `Event`
//! (tensorflow/core/util/event.proto): `wall_time` = field 1 (double), `step` = 2 (int64),
//! `file_version` = 3 (string), `summary` = 5. A `Summary` repeats field 1, `Value`: `tag` = 1 (string),
//! `simple_value` = 2 (float).

use super::{EpochMetrics, RunError};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes scalars to a new event file of a folder. TensorBoard reads all event files of a folder as one
/// run, so a resumed run writes a file of its own.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Begins a file in `folder`.
    pub fn create(folder: &Path) -> Result<Self, RunError> {
        let nanos = now().as_nanos();
        // TensorBoard wants "tfevents" in the name and reads files in the order of their names.
        let name = format!(
            "events.out.tfevents.{}.{:09}.{}",
            nanos / 1_000_000_000,
            nanos % 1_000_000_000,
            std::process::id()
        );
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(RunError::write(&path))?;
        let mut writer = Self { path, file: BufWriter::new(file) };
        let mut event = Message::default();
        event.double(1, now().as_secs_f64());
        event.bytes(3, b"brain.Event:2");
        writer.record(&event.0)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes named values of a step.
    pub fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<(), RunError> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut scalar = Message::default();
            scalar.bytes(1, tag.as_bytes());
            scalar.float(2, *value as f32);
            summary.bytes(1, &scalar.0);
        }
        let mut event = Message::default();
        event.double(1, now().as_secs_f64());
        event.varint_field(2, step);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// Writes everything of an epoch, with the epoch as the step.
    pub fn epoch(&mut self, metrics: &EpochMetrics) -> Result<(), RunError> {
        let mut values = vec![
            ("lr".to_string(), metrics.lr),
            ("train/loss".into(), metrics.train.loss),
            ("train/top1".into(), metrics.train.top1),
            ("train/top5".into(), metrics.train.top5),
            ("test/loss".into(), metrics.test.loss),
            ("test/top1".into(), metrics.test.top1),
            ("test/top5".into(), metrics.test.top5),
            ("speed/images_per_second".into(), metrics.images_per_second),
        ];
        values.extend(metrics.train.terms.iter().map(|(name, value)| (format!("loss/{name}"), *value)));
        if let Some(validation) = &metrics.validation {
            values.push(("validation/loss".into(), validation.loss));
            values.push(("validation/top1".into(), validation.top1));
            values.push(("validation/top5".into(), validation.top5));
        }
        if let Some(swap) = &metrics.swap {
            for (who, side) in [("teacher", &swap.teacher), ("student", &swap.student)] {
                values.push((format!("swap/{who}_share"), side.share));
                values.push((format!("swap/{who}_confidence_before"), side.confidence_before));
                values.push((format!("swap/{who}_confidence_after"), side.confidence_after));
            }
            values.push(("swap/teacher_level".into(), swap.teacher_level));
            values.push(("swap/student_level".into(), swap.student_level));
        }
        self.scalars(metrics.epoch.into(), &values)?;
        self.flush()
    }

    /// Hands everything to the operating system, so that TensorBoard sees it.
    pub fn flush(&mut self) -> Result<(), RunError> {
        self.file.flush().map_err(RunError::write(&self.path))
    }

    fn record(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        let length = (bytes.len() as u64).to_le_bytes();
        let parts: [&[u8]; 4] =
            [&length, &masked_crc(&length).to_le_bytes(), bytes, &masked_crc(bytes).to_le_bytes()];
        self.file.write_all(&parts.concat()).map_err(RunError::write(&self.path))
    }
}

/// CRC-32C, rotated and offset: the CRC of data that itself contains CRCs would be weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> std::time::Duration {
    // A clock before 1970 only spoils the time axis.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A protocol buffer message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint_field(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }
}
