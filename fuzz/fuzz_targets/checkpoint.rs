//! Any bytes as a `.pth` (zip or legacy container) or safetensors file.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = std::path::Path::new("fuzzed.file");
    match nn::checkpoint::parse(bytes, path) {
        Ok(checkpoint) => {
            for tensor in checkpoint.tensors {
                assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
            }
        }
        Err(error) => assert!(error.to_string().starts_with("fuzzed.file: ")),
    }
});
