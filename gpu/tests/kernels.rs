//! The example `kernels` runs, where there is an adapter.

#[allow(dead_code, reason = "its `main` reads the command line")]
#[path = "../examples/kernels.rs"]
mod kernels;

#[test]
fn three_kernels_make_the_same_product() {
    match kernels::multiply(128) {
        Err(autograd::Error::NoDevice(why)) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: {why}");
        }
        done => done.unwrap(),
    }
}
