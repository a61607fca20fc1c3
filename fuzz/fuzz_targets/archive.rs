//! Any bytes as a `.tar` or `.tar.gz` with a member `wanted.pth`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = std::path::Path::new("fuzzed.tar");
    if let Err(error) = nn::checkpoint::parse_archive(bytes, "wanted.pth", path) {
        assert!(error.to_string().contains("fuzzed.tar"));
    }
});
