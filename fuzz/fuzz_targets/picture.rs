//! Any bytes as a picture.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut picture = sld::picture::Picture::default();
    match picture.decode(bytes) {
        Ok(_) => assert_eq!(picture.pixels().len(), picture.width() * picture.height() * 3),
        Err(why) => assert!(why != sld::picture::PictureError::Panic),
    }
});
