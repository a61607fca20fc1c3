//! Writes `.pth` files in the zip container, laid out as the reference's trainer does.

use std::collections::BTreeSet;
use std::io::{self, Seek, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::atomic::write_atomically;
use super::error::{Problem, quoted};
use super::pickle_writer::PickleWriter;
use super::state::{Checkpoint, NetworkInfo, OptimizerState, Scalar};
use super::tensor::NamedTensor;

/// Keys that the checkpoint's own fields take.
const RESERVED: [&str; 7] = ["model", "state_dict", "network", "epoch", "accuracy", "best_acc", "optimizer"];

/// Writes the checkpoint; see [`super::write_pth`].
pub(super) fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), Problem> {
    let mut object = ObjectWriter { pickle: PickleWriter::new(), storages: Vec::new() };
    object.checkpoint(checkpoint)?;
    let pickle = object.pickle.finish();
    let storages = object.storages;
    let zip = zip_of(&pickle, &storages).map_err(|source| Problem::Io { action: "pack the file", source })?;
    write_atomically(path, |file| file.write_all(&zip))
        .map_err(|source| Problem::Io { action: "write the file", source })
}

struct ObjectWriter<'a> {
    pickle: PickleWriter,
    /// Tensors in the order of their storage keys.
    storages: Vec<&'a NamedTensor>,
}

impl<'a> ObjectWriter<'a> {
    fn checkpoint(&mut self, checkpoint: &'a Checkpoint) -> Result<(), Problem> {
        if let Some(key) = checkpoint.extra.keys().find(|k| RESERVED.contains(&k.as_str())) {
            return Err(Problem::Unwritable(format!("the extra value {key:?} takes the key of a field")));
        }
        self.pickle.begin_dict();
        if let Some(epoch) = checkpoint.epoch {
            self.pickle.text("epoch")?;
            self.pickle.int(epoch);
        }
        self.pickle.text("model")?;
        self.state_dict(&checkpoint.tensors)?;
        if let Some(network) = &checkpoint.network {
            self.pickle.text("network")?;
            self.network(network)?;
        }
        for (key, value) in [("accuracy", checkpoint.accuracy), ("best_acc", checkpoint.best_acc)] {
            if let Some(value) = value {
                self.pickle.text(key)?;
                self.pickle.float(value);
            }
        }
        if let Some(optimizer) = &checkpoint.optimizer {
            self.pickle.text("optimizer")?;
            self.optimizer(optimizer)?;
        }
        for (key, value) in &checkpoint.extra {
            self.pickle.text(key)?;
            self.scalar(value)?;
        }
        self.pickle.end_dict();
        Ok(())
    }

    fn state_dict(&mut self, tensors: &'a [NamedTensor]) -> Result<(), Problem> {
        let mut names = std::collections::HashSet::new();
        self.pickle.begin_ordered_dict();
        for tensor in tensors {
            if !names.insert(tensor.name.as_str()) {
                return Err(Problem::Unwritable(format!(
                    "two tensors have the name {}",
                    quoted(&tensor.name)
                )));
            }
            self.pickle.text(&tensor.name)?;
            self.tensor(tensor)?;
        }
        self.pickle.end_dict();
        Ok(())
    }

    fn tensor(&mut self, tensor: &'a NamedTensor) -> Result<(), Problem> {
        tensor.check()?;
        let key = self.storages.len().to_string();
        self.pickle.tensor(&key, tensor.data.dtype(), &tensor.shape)?;
        self.storages.push(tensor);
        Ok(())
    }

    /// `{"state": {position: {"momentum_buffer": tensor}}, "param_groups": [{...}]}`
    fn optimizer(&mut self, optimizer: &'a OptimizerState) -> Result<(), Problem> {
        self.pickle.begin_dict();
        self.pickle.text("state")?;
        self.pickle.begin_dict();
        let buffers = optimizer.buffers();
        let positions: BTreeSet<usize> = buffers.iter().flat_map(|(_, kind)| kind.keys().copied()).collect();
        for position in positions {
            self.pickle.int(position as i64);
            self.pickle.begin_dict();
            for (name, kind) in &buffers {
                if let Some(buffer) = kind.get(&position) {
                    self.pickle.text(name)?;
                    self.tensor(buffer)?;
                }
            }
            self.pickle.end_dict();
        }
        self.pickle.end_dict();
        self.pickle.text("param_groups")?;
        self.pickle.begin_list();
        for group in &optimizer.param_groups {
            self.pickle.begin_dict();
            let (betas, others): (Vec<_>, Vec<_>) =
                group.options.iter().partition(|(key, _)| key.starts_with("betas."));
            if !betas.is_empty() {
                self.pickle.text("betas")?;
                self.pickle.begin_list();
                betas.into_iter().try_for_each(|(_, beta)| self.scalar(beta))?;
                self.pickle.end_list();
            }
            for (key, value) in others {
                self.pickle.text(key)?;
                self.scalar(value)?;
            }
            self.pickle.text("params")?;
            self.pickle.begin_list();
            for &position in &group.params {
                self.pickle.int(position as i64);
            }
            self.pickle.end_list();
            self.pickle.end_dict();
        }
        self.pickle.end_list();
        self.pickle.end_dict();
        Ok(())
    }

    /// `{"model": name, "classes": [names], "size": [height, width], "mean": [...], "std": [...]}`,
    /// and for pictures `"resize": shorter side`
    fn network(&mut self, network: &NetworkInfo) -> Result<(), Problem> {
        self.pickle.begin_dict();
        self.pickle.text("model")?;
        self.pickle.text(&network.model)?;
        self.pickle.text("classes")?;
        self.pickle.begin_list();
        for class in &network.classes {
            self.pickle.text(class)?;
        }
        self.pickle.end_list();
        self.pickle.text("size")?;
        self.pickle.begin_list();
        for &side in &network.size {
            self.pickle.int(side as i64);
        }
        self.pickle.end_list();
        if network.resize > 0 {
            self.pickle.text("resize")?;
            self.pickle.int(network.resize as i64);
        }
        for (key, values) in [("mean", network.mean), ("std", network.std)] {
            self.pickle.text(key)?;
            self.pickle.begin_list();
            for value in values {
                self.pickle.float(f64::from(value));
            }
            self.pickle.end_list();
        }
        self.pickle.end_dict();
        Ok(())
    }

    fn scalar(&mut self, scalar: &Scalar) -> Result<(), Problem> {
        match scalar {
            Scalar::None => self.pickle.none(),
            Scalar::Bool(value) => self.pickle.bool(*value),
            Scalar::Int(value) => self.pickle.int(*value),
            Scalar::Float(value) => self.pickle.float(*value),
            Scalar::Text(value) => self.pickle.text(value)?,
        }
        Ok(())
    }
}

/// Entries and order as `torch.save`; storages aligned to 64 bytes, so that PyTorch can map them.
///
/// In memory: on a full disk, the zip writer's destructor would write to the terminal what the caller
/// already knows.
fn zip_of(pickle: &[u8], storages: &[&NamedTensor]) -> io::Result<Vec<u8>> {
    let mut zip = ZipWriter::new(io::Cursor::new(Vec::new()));
    entry(&mut zip, "data.pkl", pickle)?;
    entry(&mut zip, ".format_version", b"1")?;
    entry(&mut zip, ".storage_alignment", b"64")?;
    entry(&mut zip, "byteorder", b"little")?;
    for (key, tensor) in storages.iter().enumerate() {
        entry(&mut zip, &format!("data/{key}"), &tensor.data.to_le_bytes())?;
    }
    entry(&mut zip, "version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

fn entry(zip: &mut ZipWriter<impl Write + Seek>, name: &str, content: &[u8]) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        // A fixed time: the same checkpoint gives the same bytes.
        .last_modified_time(DateTime::default())
        .with_alignment(64)
        .large_file(content.len() > u32::MAX as usize / 2);
    zip.start_file(format!("archive/{name}"), options)?;
    zip.write_all(content)
}
