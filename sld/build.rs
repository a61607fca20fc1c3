//! Gives the program its version: the package's, and the commit if this is a checkout and git is there.

use std::path::Path;
use std::process::Command;

fn main() {
    let package = env!("CARGO_PKG_VERSION");
    let version = match commit() {
        Some(commit) => format!("{package} ({commit})"),
        None => package.into(),
    };
    println!("cargo:rustc-env=SLD_VERSION={version}");
}

/// "95be2d8", with "-dirty" where files differ from the commit's.
fn commit() -> Option<String> {
    // Unpacked sources may lie in the checkout of something else.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.canonicalize().ok()?;
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != root {
        return None;
    }
    // What another commit or a change touches; a path that does not exist would run this every time.
    let log = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"])?;
    let members = std::fs::read_dir(&root).ok()?.flatten().map(|member| member.path().join("src"));
    for path in members.chain([log.into()]).filter(|path| path.exists()) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    git(&["describe", "--always", "--dirty", "--exclude=*"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}
