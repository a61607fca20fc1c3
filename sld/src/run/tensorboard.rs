//! TensorBoard event files, written directly: few messages of one protocol buffer.
//!
//! A file is a sequence of records `length: u64, masked CRC of the length: u32, bytes, masked CRC of the
//! bytes: u32`, all little endian (the TFRecord format). The bytes are an `Event`
//! (tensorflow/core/util/event.proto): `wall_time` = field 1 (double), `step` = 2 (int64),
//! `file_version` = 3 (string), `summary` = 5, `session_log` = 7. A `Summary` repeats field 1, `Value`:
//! `tag` = 1 (string), `simple_value` = 2 (float). A `SessionLog` has `status` = 1 (enum, START = 1).

use super::error::RunError;
use super::metrics::{EpochMetrics, Reached};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tags of the points that count steps begin so; all others count epochs.
const STEPS: &str = "step/";

/// Writes scalars to a new event file of a folder. TensorBoard reads all event files of a folder as one
/// run, so a resumed run writes a file of its own, and what an earlier file has beyond the place it goes on
/// from is cut off, as those points will be measured again.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Begins a file in `folder`, for what comes after `reached`.
    pub fn create(folder: &Path, reached: Reached) -> Result<Self, RunError> {
        cut_older(folder, reached)?;
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
        // A TensorBoard that has read the older files already drops its points from this step on.
        let mut start = Message::default();
        start.varint_field(1, 1);
        let mut event = Message::default();
        event.double(1, now().as_secs_f64());
        event.varint_field(2, reached.step + 1);
        event.bytes(7, &start.0);
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

/// Cuts the event files that a folder has at their first point after `reached`. Points are written in
/// order, so what follows it is later too; so is a record that a killed run left unfinished.
fn cut_older(folder: &Path, reached: Reached) -> Result<(), RunError> {
    for entry in std::fs::read_dir(folder).map_err(RunError::read(folder))? {
        let path = entry.map_err(RunError::read(folder))?.path();
        let ours =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("events.out.tfevents."));
        if !ours {
            continue;
        }
        let bytes = std::fs::read(&path).map_err(RunError::read(&path))?;
        let mut kept = 0;
        while let Some(record) = record_at(&bytes[kept..])
            && !is_after(record, reached)
        {
            kept += record.len() + 16;
        }
        if kept < bytes.len() {
            let file = OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.set_len(kept as u64)).map_err(RunError::write(&path))?;
        }
    }
    Ok(())
}

/// The content of the record that `bytes` begin with; `None` if it is cut off or damaged.
fn record_at(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let content = bytes.get(12..length.checked_add(12)?)?;
    let crc = bytes.get(12 + length..16 + length)?;
    (crc == masked_crc(content).to_le_bytes()).then_some(content)
}

/// Whether an event is a point of a step or of an epoch that is still to come.
fn is_after(event: &[u8], reached: Reached) -> bool {
    let number = |wanted| fields(event).find_map(|(field, value, _)| (field == wanted).then_some(value));
    let Some(summary) = fields(event).find_map(|(field, _, bytes)| (field == 5).then_some(bytes)) else {
        return false;
    };
    let tag =
        fields(summary).next().and_then(|(_, _, value)| fields(value).next()).map_or(&[][..], |tag| tag.2);
    let last = if tag.starts_with(STEPS.as_bytes()) { reached.step } else { reached.epoch.into() };
    number(2).unwrap_or(0) > last
}

/// The fields of a message: number, value of an integer, bytes of everything else. Ends at what it cannot
/// read.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, u64, &[u8])> {
    std::iter::from_fn(move || {
        let key = varint(&mut bytes)?;
        let (value, length) = match key & 7 {
            0 => (varint(&mut bytes)?, 0),
            1 => (0, 8),
            2 => (0, usize::try_from(varint(&mut bytes)?).ok()?),
            5 => (0, 4),
            _ => return None,
        };
        let (content, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        Some((key >> 3, value, content))
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
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
        self.varint((field << 3) + wire_type);
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
