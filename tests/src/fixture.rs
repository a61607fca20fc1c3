//! Reference data: committed under `tests/fixtures` (where a test binary runs elsewhere, `SLD_TEST_FIXTURES` names that
//! folder), the larger files in an optional folder `shared` beside the workspace.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The path of a fixture, or `None` (said aloud) where only the optional folder would have it.
pub fn available(name: &str) -> Option<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed =
        std::env::var_os("SLD_TEST_FIXTURES").map_or(tests.join("fixtures"), PathBuf::from).join(name);
    let shared = tests.join("../../shared/fixtures").join(name);
    let found = [committed, shared].into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is neither in tests/fixtures nor in ../shared/fixtures");
    }
    found
}

/// A JSON fixture.
pub fn json(name: &str) -> Value {
    let path = available(name).unwrap_or_else(|| panic!("fixture {name} is missing"));
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A safetensors fixture.
pub struct Fixture {
    name: String,
    bytes: Vec<u8>,
}

impl Fixture {
    /// Reads a fixture; `None` as [`available`].
    pub fn open(name: &str) -> Option<Fixture> {
        let path = available(name)?;
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Some(Fixture { name: name.to_string(), bytes })
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, tensor: &str) -> bool {
        self.tensors().tensor(tensor).is_ok()
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.tensors().names().into_iter().map(|name| name.to_string()).collect();
        names.sort();
        names
    }

    pub fn shape(&self, tensor: &str) -> Vec<usize> {
        self.view(tensor, |view| view.shape().to_vec())
    }

    /// Whether a tensor holds integers.
    pub fn is_integer(&self, tensor: &str) -> bool {
        self.view(tensor, |view| matches!(view.dtype(), Dtype::I32 | Dtype::I64))
    }

    /// A tensor's values, whatever their type.
    pub fn values(&self, tensor: &str) -> Vec<f64> {
        fn read<const SIZE: usize>(data: &[u8], convert: impl Fn([u8; SIZE]) -> f64) -> Vec<f64> {
            data.as_chunks::<SIZE>().0.iter().map(|&bytes| convert(bytes)).collect()
        }
        self.view(tensor, |view| match view.dtype() {
            Dtype::F64 => read(view.data(), f64::from_le_bytes),
            Dtype::F32 => read(view.data(), |b| f32::from_le_bytes(b).into()),
            Dtype::I32 => read(view.data(), |b| i32::from_le_bytes(b).into()),
            Dtype::I64 => read(view.data(), |b| i64::from_le_bytes(b) as f64),
            other => panic!("{}: {tensor} has type {other:?}", self.name),
        })
    }

    pub fn f32(&self, tensor: &str) -> Vec<f32> {
        self.values(tensor).into_iter().map(|v| v as f32).collect()
    }
    pub fn i32(&self, tensor: &str) -> Vec<i32> {
        self.values(tensor).into_iter().map(|v| v as i32).collect()
    }

    fn view<T>(&self, tensor: &str, f: impl FnOnce(&safetensors::tensor::TensorView) -> T) -> T {
        let tensors = self.tensors();
        let view = tensors.tensor(tensor).unwrap_or_else(|error| panic!("{}: {tensor}: {error}", self.name));
        f(&view)
    }

    /// Whether the metadata has an entry.
    pub fn has_metadata(&self, key: &str) -> bool {
        let metadata = SafeTensors::read_metadata(&self.bytes).map(|(_, metadata)| metadata);
        metadata.is_ok_and(|m| m.metadata().as_ref().is_some_and(|entries| entries.contains_key(key)))
    }

    /// An entry of the metadata as text.
    pub fn metadata(&self, key: &str) -> String {
        let (_, metadata) =
            SafeTensors::read_metadata(&self.bytes).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let entries = metadata.metadata().as_ref();
        let entry = entries.and_then(|entries| entries.get(key));
        entry.unwrap_or_else(|| panic!("{}: no metadata {key}", self.name)).clone()
    }

    /// An entry of the metadata that is JSON.
    pub fn json(&self, key: &str) -> Value {
        serde_json::from_str(&self.metadata(key)).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}
