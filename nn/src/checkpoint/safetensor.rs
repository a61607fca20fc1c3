//! The safetensors format (through its own library): the state dict as tensors, the rest as metadata.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype as FileDtype, SafeTensors, View};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::atomic::write_atomically;
use super::error::{Problem, quoted};
use super::state::{Checkpoint, NetworkInfo, OptimizerState, ParamGroup, Scalar};
use super::tensor::{DType, NamedTensor, StridedView};

/// The one metadata key. A single one, since the library writes several in random order and the same
/// checkpoint should give the same bytes.
const METADATA_KEY: &str = "checkpoint";
const BUFFER_PREFIX: &str = "optimizer.state.";

/// What a checkpoint holds beside tensors, as the metadata's JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    best_acc: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Scalar>,
    #[serde(skip_serializing_if = "Option::is_none")]
    param_groups: Option<Vec<ParamGroup>>,
}

/// Whether the file begins as this format does: the header's length, and the header's first brace.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}

/// Reads a whole file.
pub(super) fn parse(bytes: &[u8]) -> Result<Checkpoint, Problem> {
    let damaged = |e: safetensors::SafeTensorError| Problem::SafeTensors(e.to_string());
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let json = bytes.get(8..8 + length).unwrap_or_default();
    serde_json::from_slice::<UniqueKeys>(json).map_err(|e| Problem::SafeTensors(e.to_string()))?;
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let mut metadata = Metadata::default();
    let mut left_out = Vec::new();
    for (key, value) in header.metadata().iter().flatten() {
        // Others may use the key too, for something else.
        match serde_json::from_str(value) {
            Ok(ours) if key == METADATA_KEY => metadata = ours,
            _ => left_out.push(format!("metadata {} (a str)", quoted(key))),
        }
    }
    left_out.sort_unstable();

    let mut checkpoint = Checkpoint {
        network: metadata.network,
        epoch: metadata.epoch,
        accuracy: metadata.accuracy,
        best_acc: metadata.best_acc,
        extra: metadata.extra,
        left_out,
        optimizer: metadata
            .param_groups
            .map(|param_groups| OptimizerState { param_groups, ..OptimizerState::default() }),
        ..Checkpoint::default()
    };
    for name in header.offset_keys() {
        let tensor = file.tensor(&name).map_err(damaged)?;
        let read = NamedTensor { shape: tensor.shape().to_vec(), data: elements(&name, &tensor)?, name };
        let buffers = match (&mut checkpoint.optimizer, buffer_of(&read.name)) {
            (Some(optimizer), Some((position, name))) => {
                optimizer.buffers_named(name).map(|buffers| (position, buffers))
            }
            _ => None,
        };
        match buffers {
            Some((position, buffers)) => drop(buffers.insert(position, read.unnamed())),
            None => checkpoint.tensors.push(read),
        }
    }
    Ok(checkpoint)
}

/// A JSON object whose keys come once each, as do those of the metadata in it: which of two values counts
/// would depend on the reader.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueKeys)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = UniqueKeys;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "__metadata__" {
                map.next_value::<Option<UniqueKeys>>()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            if let Some(twice) = keys.replace(key) {
                return Err(A::Error::custom(format!("has the key {} twice", quoted(&twice))));
            }
        }
        Ok(self)
    }
}

/// Position and kind of the optimizer's buffer that a tensor of this name is.
fn buffer_of(name: &str) -> Option<(usize, &str)> {
    let (number, kind) = name.strip_prefix(BUFFER_PREFIX)?.split_once('.')?;
    Some((number.parse().ok()?, kind))
}

fn elements(
    name: &str,
    tensor: &safetensors::tensor::TensorView<'_>,
) -> Result<super::tensor::TensorData, Problem> {
    let problem = |what: String| Problem::Tensor { name: quoted(name), what };
    let dtype = dtype_of(tensor.dtype())
        .ok_or_else(|| problem(format!("element type {:?} is not supported", tensor.dtype())))?;
    let numel = tensor.data().len() / dtype.size();
    // The library has checked that shape and bytes agree; a flat view reads them in order.
    let flat = StridedView { dtype, offset: 0, shape: vec![numel], strides: vec![1] };
    Ok(flat.gather(tensor.data(), numel))
}

/// Writes the checkpoint; see [`super::write_safetensors`].
pub(super) fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), Problem> {
    let unwritable = |e: &dyn std::fmt::Display| Problem::Unwritable(format!("safetensors refuses it: {e}"));
    let metadata = Metadata {
        network: checkpoint.network.clone(),
        epoch: checkpoint.epoch,
        accuracy: checkpoint.accuracy,
        best_acc: checkpoint.best_acc,
        extra: checkpoint.extra.clone(),
        param_groups: checkpoint.optimizer.as_ref().map(|optimizer| optimizer.param_groups.clone()),
    };
    check_finite(&metadata)?;
    let json = serde_json::to_string(&metadata).map_err(|e| unwritable(&e))?;

    let mut tensors: BTreeMap<Cow<'_, str>, Written<'_>> = BTreeMap::new();
    let kinds = checkpoint.optimizer.iter().flat_map(OptimizerState::buffers);
    let buffers =
        kinds.flat_map(|(name, kind)| kind.iter().map(move |(position, tensor)| (name, position, tensor)));
    let named = checkpoint.tensors.iter().map(|tensor| (Cow::Borrowed(tensor.name.as_str()), tensor)).chain(
        buffers.map(|(name, position, tensor)| {
            (Cow::Owned(format!("{BUFFER_PREFIX}{position}.{name}")), tensor)
        }),
    );
    for (name, tensor) in named {
        tensor.check()?;
        if let Some(twice) = tensors.insert(name, Written(tensor)) {
            return Err(Problem::Unwritable(format!("two tensors have the name {}", quoted(&twice.0.name))));
        }
    }
    let metadata = HashMap::from([(METADATA_KEY.to_owned(), json)]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| unwritable(&e))?;
    write_atomically(path, |file| file.write_all(&bytes))
        .map_err(|source| Problem::Io { action: "write the file", source })
}

/// JSON has no NaN or infinity.
fn check_finite(metadata: &Metadata) -> Result<(), Problem> {
    let groups = metadata.param_groups.iter().flatten();
    let options = groups.flat_map(|group| group.options.iter().map(|(key, value)| (key, value)));
    let scalars = metadata.extra.iter().chain(options).map(|(key, value)| (key.as_str(), value.as_f64()));
    let named = [("accuracy", metadata.accuracy), ("best_acc", metadata.best_acc)];
    for (key, value) in named.into_iter().chain(scalars) {
        if value.is_some_and(|value| !value.is_finite()) {
            return Err(Problem::Unwritable(format!(
                "{} is not a finite number; a .pth file can hold it",
                quoted(key)
            )));
        }
    }
    Ok(())
}

struct Written<'a>(&'a NamedTensor);

impl View for Written<'_> {
    fn dtype(&self) -> FileDtype {
        file_dtype(self.0.data.dtype())
    }
    fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.data.to_le_bytes())
    }
    fn data_len(&self) -> usize {
        self.0.data.len() * self.0.data.dtype().size()
    }
}

macro_rules! same_dtypes {
    ($($ours:ident = $theirs:ident),*) => {
        fn dtype_of(dtype: FileDtype) -> Option<DType> {
            match dtype { $(FileDtype::$theirs => Some(DType::$ours),)* _ => None }
        }
        fn file_dtype(dtype: DType) -> FileDtype {
            match dtype { $(DType::$ours => FileDtype::$theirs,)* }
        }
    };
}
same_dtypes!(
    F64 = F64,
    F32 = F32,
    F16 = F16,
    BF16 = BF16,
    I64 = I64,
    I32 = I32,
    I16 = I16,
    I8 = I8,
    U64 = U64,
    U32 = U32,
    U16 = U16,
    U8 = U8,
    Bool = BOOL
);
