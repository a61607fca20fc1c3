//! Any bytes as a pickle; what it gives is looked at.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(pickle) = nn::pickle::load(bytes) else { return };
    assert!(pickle.length <= bytes.len());
    let entries = pickle.dict(&pickle.root);
    for value in entries.iter().flat_map(|entries| entries.iter().map(|entry| &entry.1)) {
        let _ = (pickle.kind(value), pickle.object(value), pickle.text(value), pickle.int(value));
        let _ = pickle.bytes(value, bytes.len());
    }
});
