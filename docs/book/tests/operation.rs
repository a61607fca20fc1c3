//! The diff of the chapter on adding an operation, applied to a copy of the crates that it changes, which are then
//! built and asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use book::operation::{SINE, apply, changes};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(fs::copy(&path, &target).is_ok(), "{}", path.display()),
        }
    }
}

#[test]
fn a_diff_fits_its_text_or_says_where_not() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.txt"), "one\ntwo\nthree\n").expect("a file");
    let diff = "--- a/a.txt\n+++ b/a.txt\n@@ here @@\n one\n-two\n+2\n three\n";
    apply(diff, folder.path()).expect("a change");
    assert_eq!(fs::read_to_string(folder.path().join("a.txt")).expect("a file"), "one\n2\nthree\n");
    let again = apply(diff, folder.path());
    assert!(again.is_err_and(|message| message.starts_with("a.txt does not have these lines")));
}

/// A copy of what the diff changes and of what that needs, in a workspace of its own, whose libraries are those
/// that were built already.
#[test]
fn the_operation_works_on_the_cpu_device() {
    let here = Path::new(env!("CARGO_TARGET_TMPDIR")).join("operation");
    let _ = fs::remove_dir_all(&here);
    for name in ["autograd", "schedule", "cpu", "tests/reference"] {
        copy(&root().join(name), &here.join(name));
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let own = |line: &str| match line.split_once(" = ") {
        Some(("members", _)) => r#"members = ["autograd", "schedule", "cpu", "tests/reference"]"#.into(),
        Some(("exclude", _)) => String::new(),
        _ => line.to_string(),
    };
    let manifest: Vec<String> = manifest.lines().map(own).collect();
    // What is built anew only has to be right.
    let quick = ["autograd", "schedule", "cpu"]
        .map(|name| format!("[profile.release.package.{name}]\nopt-level = 0\n"));
    let manifest = [manifest.join("\n"), quick.concat()].join("\n");
    fs::write(here.join("Cargo.toml"), manifest).expect("a manifest");
    fs::copy(root().join("Cargo.lock"), here.join("Cargo.lock")).expect("a lock file");
    let changed: Vec<&str> = changes(SINE).iter().map(|change| change.0).collect();
    assert_eq!(changed.len(), 4, "{changed:?}");
    apply(SINE, &here).unwrap_or_else(|error| panic!("docs/book/src/sine.diff: {error}"));
    fs::copy(root().join("docs/book/src/sine.rs"), here.join("cpu/examples/sine.rs")).expect("a copy");

    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let run = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--release", "--offline", "-p", "cpu", "--example", "sine", "--target-dir"])
        .arg(target)
        .current_dir(&here)
        .output()
        .expect("cargo");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let expected = fs::read_to_string(root().join("docs/book/src/sine.txt")).expect("the output");
    assert_eq!(String::from_utf8_lossy(&run.stdout), expected);
    let _ = fs::remove_dir_all(&here);
}
