//! The legacy container of `.pth` files (PyTorch before 1.6, and `_use_new_zipfile_serialization=False`).
//!
//! Five pickles one after another: a magic number, the protocol version 1001, the writer's system, the
//! object, and the list of storage keys. Then, for each key in that order, the storage's number of
//! elements as a little-endian 64-bit number and its bytes.

use std::collections::HashMap;
use std::rc::Rc;

use super::error::{Allowance, Problem, quoted};
use super::layout::{self, Storages};
use super::state::Checkpoint;
use super::torch;
use crate::pickle::{self, Pickle, Value};

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;
/// The magic number as pickled: LONG1 and its bytes, and in protocol 1 its digits.
const PICKLED: [&[u8]; 2] =
    [b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", b"L119547037146038801333356L\n."];

/// Whether the file begins as this container does.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    // PROTO and its number from protocol 2 on, FRAME and its length from protocol 4 on.
    let bytes = if bytes.starts_with(b"\x80") { bytes.get(2..).unwrap_or_default() } else { bytes };
    let bytes = if bytes.starts_with(b"\x95") { bytes.get(9..).unwrap_or_default() } else { bytes };
    PICKLED.iter().any(|magic| bytes.starts_with(magic))
}

/// Reads a whole file; see [`layout::checkpoint`] for `part`.
pub(super) fn parse(bytes: &[u8], part: &mut Option<&str>) -> Result<Checkpoint, Problem> {
    let mut rest = bytes;
    let magic = next_pickle(&mut rest)?;
    if magic.int(&magic.root) != Some(MAGIC) {
        return Err(Problem::Legacy("its magic number is wrong".into()));
    }
    let protocol = next_pickle(&mut rest)?;
    if protocol.int(&protocol.root) != Some(PROTOCOL) {
        return Err(Problem::Legacy("its protocol version is not 1001, the only one there is".into()));
    }
    let system = next_pickle(&mut rest)?;
    if system.get(&system.root, "little_endian") == Some(Value::Bool(false)) {
        return Err(Problem::Legacy(
            "written on a big-endian machine; save it again on a little-endian one".into(),
        ));
    }
    let object = next_pickle(&mut rest)?;
    let keys = next_pickle(&mut rest)?;
    let mut storages =
        LegacyStorages { places: storage_places(&object, &keys, rest)?, copied: HashMap::new() };
    let mut allowance = Allowance::for_file(bytes.len());
    layout::checkpoint(&object, part, &mut storages, &mut allowance)
}

fn next_pickle<'a>(rest: &mut &'a [u8]) -> Result<Pickle<'a>, Problem> {
    let pickle = pickle::load(rest)?;
    *rest = &rest[pickle.length..];
    Ok(pickle)
}

/// The bytes of every storage, by key.
fn storage_places<'a>(
    object: &Pickle<'a>,
    keys: &Pickle<'a>,
    mut rest: &'a [u8],
) -> Result<HashMap<&'a str, &'a [u8]>, Problem> {
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    for id in object.persistent_ids() {
        let storage = torch::storage_of(object, id).map_err(Problem::Legacy)?;
        sizes.entry(storage.key).or_insert(storage.size);
    }
    let keys_read = keys
        .sequence(&keys.root)
        .ok_or_else(|| Problem::Legacy("its list of storages is not a list".into()))?;
    let mut places = HashMap::new();
    for key in keys_read {
        let Some(key) = keys.text(key) else {
            return Err(Problem::Legacy("a storage key is not a text".into()));
        };
        let Some(size) = sizes.get(key) else {
            return Err(Problem::Legacy(format!(
                "storage {} is listed but no tensor uses it, so its type is unknown",
                quoted(key)
            )));
        };
        let cut_short =
            || Problem::Legacy(format!("the file ends within storage {}; it is cut short", quoted(key)));
        let (numel, after) = rest.split_first_chunk::<8>().ok_or_else(cut_short)?;
        let length = usize::try_from(i64::from_le_bytes(*numel))
            .ok()
            .and_then(|numel| numel.checked_mul(*size))
            .filter(|&length| length <= after.len())
            .ok_or_else(cut_short)?;
        let (storage, after) = after.split_at(length);
        places.insert(key, storage);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(Problem::Legacy(format!("{} bytes follow the last storage", rest.len())));
    }
    Ok(places)
}

struct LegacyStorages<'a> {
    places: HashMap<&'a str, &'a [u8]>,
    copied: HashMap<&'a str, Rc<[u8]>>,
}

impl Storages for LegacyStorages<'_> {
    fn bytes(&mut self, key: &str, _allowance: &mut Allowance) -> Result<Rc<[u8]>, Problem> {
        if let Some(copied) = self.copied.get(key) {
            return Ok(copied.clone());
        }
        let (&key, bytes) = self
            .places
            .get_key_value(key)
            .ok_or_else(|| Problem::Legacy(format!("storage {} is not in the file", quoted(key))))?;
        let copy: Rc<[u8]> = (*bytes).into();
        self.copied.insert(key, copy.clone());
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, TensorData};

    fn text(text: &str) -> Vec<u8> {
        [&[b'U', text.len() as u8], text.as_bytes()].concat()
    }

    /// A file whose state dict has one tensor of three floats, over all of storage "7" or a `part` of it
    /// (a pickled tuple), with `keys` listed and four elements there. Texts are spelled as Python 2 did.
    fn file(part: &[u8], keys: &[&str], numel: i64) -> Vec<u8> {
        let mut file = [b"\x80\x02", PICKLED[0], b"\x80\x02M\xe9\x03.\x80\x02}."].concat();
        file.extend([&b"\x80\x02}"[..], &text("w")].concat());
        file.extend(b"ctorch._utils\n_rebuild_tensor\n((");
        // The class of storages on a GPU, as before PyTorch 0.4.
        file.extend([&text("storage"), &b"ctorch.cuda\nFloatStorage\n"[..]].concat());
        file.extend([&text("7"), &text("cuda:3"), &b"K\x04"[..], part].concat());
        file.extend(b"tQK\0K\x03\x85K\x01\x85tRs.\x80\x02](");
        file.extend(keys.iter().flat_map(|key| text(key)));
        file.extend(b"e.");
        file.extend(numel.to_le_bytes());
        file.extend([1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()));
        file
    }

    fn values(checkpoint: &Checkpoint) -> &TensorData {
        &checkpoint.tensors[0].data
    }

    #[test]
    fn parts_of_storages_are_read() {
        let whole = parse(&file(b"N", &["7"], 4), &mut None).unwrap();
        assert_eq!(values(&whole), &TensorData::F32(vec![1.0, 2.0, 3.0]));
        let part = parse(&file(b"(U\x018K\x01K\x03t", &["7"], 4), &mut None).unwrap();
        assert_eq!(values(&part), &TensorData::F32(vec![2.0, 3.0, 4.0]));
    }

    #[test]
    fn damage_is_named() {
        for (file, message) in [
            (file(b"(U\x018K\x02K\x03t", &["7"], 4), "its part reaches outside"),
            (file(b"(U\x018K\x02K\x02t", &["7"], 4), "reach outside its storage of 2"),
            (file(b"N", &["8"], 4), "\"8\" is listed but no tensor uses it"),
            (file(b"N", &[], 4), "24 bytes follow the last storage"),
            (file(b"N", &["7"], 5), "ends within storage \"7\""),
            (file(b"N", &["7"], -1), "ends within storage \"7\""),
            (file(b"N", &["7"], i64::MAX), "ends within storage \"7\""),
            (file(b"N", &["7"], 3), "4 bytes follow the last storage"),
            (file(b"N", &["7", "7"], 4), "ends within storage \"7\""),
        ] {
            let problem = parse(&file, &mut None).unwrap_err().to_string();
            assert!(problem.contains(message), "{message:?} not in: {problem}");
        }
    }
}
