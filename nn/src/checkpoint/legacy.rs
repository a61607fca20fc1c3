//! The legacy container of `.pth` files (PyTorch before 1.6, and `_use_new_zipfile_serialization=False`).
//!
//! Five pickles one after another: a magic number, the protocol version 1001, the writer's system, the
//! object, and the list of storage keys. Then, for each key in that order, the storage's number of
//! elements as a little-endian 64-bit number and its bytes.

use std::collections::HashMap;
use std::rc::Rc;

use super::error::{Allowance, Problem, quoted};
use super::layout::{self, Storages};
use super::pickle::{self, Pickle, Value};
use super::state::Checkpoint;

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const PROTOCOL: i128 = 1001;
/// The magic number's bytes as pickled, after a 2-byte PROTO opcode.
const MAGIC_PICKLED: &[u8] = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Whether the file begins as this container does.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x80) && bytes.get(2..).is_some_and(|b| b.starts_with(MAGIC_PICKLED))
}

/// Reads a whole file.
pub(super) fn parse(bytes: &[u8]) -> Result<Checkpoint, Problem> {
    let mut rest = bytes;
    let magic = next_pickle(&mut rest)?;
    if !matches!(magic.root, Value::Int(MAGIC)) {
        return Err(Problem::Legacy("its magic number is wrong".into()));
    }
    let protocol = next_pickle(&mut rest)?;
    if !matches!(protocol.root, Value::Int(PROTOCOL)) {
        return Err(Problem::Legacy("its protocol version is not 1001, the only one there is".into()));
    }
    check_byte_order(&next_pickle(&mut rest)?)?;
    let object = next_pickle(&mut rest)?;
    let keys = next_pickle(&mut rest)?;
    let mut storages =
        LegacyStorages { places: storage_places(&object, &keys, rest)?, copied: HashMap::new() };
    let mut allowance = Allowance::for_file(bytes.len());
    layout::checkpoint(&object, &mut storages, &mut allowance)
}

fn next_pickle(rest: &mut &[u8]) -> Result<Pickle, Problem> {
    let pickle = pickle::run(rest)?;
    *rest = &rest[pickle.length..];
    Ok(pickle)
}

fn check_byte_order(system: &Pickle) -> Result<(), Problem> {
    let big_endian = system.dict(&system.root).is_some_and(|entries| {
        entries.iter().any(|(key, value)| {
            matches!((key, value), (Value::Text(key), Value::Bool(false)) if &**key == "little_endian")
        })
    });
    if big_endian {
        return Err(Problem::Legacy(
            "written on a big-endian machine; save it again on a little-endian one".into(),
        ));
    }
    Ok(())
}

/// The bytes of every storage, by key.
fn storage_places<'a>(
    object: &Pickle,
    keys: &Pickle,
    mut rest: &'a [u8],
) -> Result<HashMap<Rc<str>, &'a [u8]>, Problem> {
    let keys_read = keys
        .sequence(&keys.root)
        .ok_or_else(|| Problem::Legacy("its list of storages is not a list".into()))?;
    let mut places = HashMap::new();
    for key in keys_read {
        let Value::Text(key) = key else {
            return Err(Problem::Legacy("a storage key is not a text".into()));
        };
        let Some(dtype) = object.storage_types.get(key) else {
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
            .and_then(|numel| numel.checked_mul(dtype.size()))
            .filter(|&length| length <= after.len())
            .ok_or_else(cut_short)?;
        let (storage, after) = after.split_at(length);
        places.insert(key.clone(), storage);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(Problem::Legacy(format!("{} bytes follow the last storage", rest.len())));
    }
    Ok(places)
}

struct LegacyStorages<'a> {
    places: HashMap<Rc<str>, &'a [u8]>,
    copied: HashMap<Rc<str>, Rc<[u8]>>,
}

impl Storages for LegacyStorages<'_> {
    fn bytes(&mut self, key: &str, _allowance: &mut Allowance) -> Result<Rc<[u8]>, Problem> {
        if let Some(copied) = self.copied.get(key) {
            return Ok(copied.clone());
        }
        let (key, bytes) = self
            .places
            .get_key_value(key)
            .ok_or_else(|| Problem::Legacy(format!("storage {} is not in the file", quoted(key))))?;
        let copy: Rc<[u8]> = (*bytes).into();
        self.copied.insert(key.clone(), copy.clone());
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
        let mut file = [b"\x80\x02", MAGIC_PICKLED, b"\x80\x02M\xe9\x03.\x80\x02}."].concat();
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
        let whole = parse(&file(b"N", &["7"], 4)).unwrap();
        assert_eq!(values(&whole), &TensorData::F32(vec![1.0, 2.0, 3.0]));
        let part = parse(&file(b"(U\x018K\x01K\x03t", &["7"], 4)).unwrap();
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
            let problem = parse(&file).unwrap_err().to_string();
            assert!(problem.contains(message), "{message:?} not in: {problem}");
        }
    }
}
