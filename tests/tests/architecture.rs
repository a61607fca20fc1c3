//! The house keeps its shape: crates import downwards only, and within a crate no modules in a circle.
//!
//! Read are the paths that begin with `crate`, `super`, `self` or a crate's name, outside of tests and comments. An
//! import of a module counts as one of the file that the module is in, so what a folder's `mod.rs` offers again
//! counts as one of `mod.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every crate's folder, and the crates of this project that its code may name.
const CRATES: [(&str, &[&str]); 11] = [
    ("autograd", &[]),
    ("schedule", &["autograd"]),
    ("nn", &["autograd"]),
    ("shaders", &["autograd", "schedule"]),
    ("cpu", &["autograd", "schedule"]),
    ("gpu", &["autograd", "schedule", "shaders"]),
    ("sld", &["autograd", "schedule", "nn", "cpu", "gpu"]),
    ("tests/reference", &["autograd", "schedule"]),
    ("web", &["autograd", "schedule", "nn", "cpu", "gpu", "sld"]),
    ("tests", &["autograd", "schedule", "nn", "shaders", "cpu", "gpu", "sld"]),
    ("docs/book", &["autograd", "schedule", "nn", "cpu", "gpu", "sld"]),
];

/// The name of the crate in a folder.
fn crate_name(folder: &'static str) -> &'static str {
    folder.rsplit('/').next().unwrap_or(folder)
}

/// A crate's modules and what each imports. A module is named by its path: `lower::heavy`, the crate's root by
/// nothing.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn crates_import_downwards() {
    let mut wrong = Vec::new();
    for (name, allowed) in CRATES {
        for (module, text) in modules(name) {
            let others = CRATES.map(|(folder, _)| crate_name(folder));
            for other in others.iter().filter(|o| **o != crate_name(name) && !allowed.contains(o)) {
                if paths(&text).iter().any(|path| path[0] == **other && path.len() > 1) {
                    wrong.push(format!("`{name}::{module}` names `{other}`"));
                }
            }
        }
        wrong.extend(
            dependencies(name)
                .difference(&allowed.iter().map(|c| c.to_string()).collect())
                .map(|other| format!("the manifest of `{name}` depends on `{other}`")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut wrong = Vec::new();
    for (name, _) in CRATES {
        if let Some(circle) = circle(&imports(&modules(name))) {
            wrong.push(format!("`{name}` has a circle: {}", circle.join(" -> ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_planted_circle_is_found() {
    let text = |s: &str| without_tests(s).trim().to_string();
    let mut modules = BTreeMap::from([
        (text(""), text("mod a; mod b; mod c; use a::x;")),
        (text("a"), text("use crate::b::{self, Y}; // crate::c\nfn x() { b::y() }")),
        (text("b"), text("pub struct Y;\nfn y() {}\n#[cfg(test)]\nmod tests { use crate::a::x; }")),
        (text("b::inner"), text("use super::Y;")),
    ]);
    assert_eq!(circle(&imports(&modules)), None);
    modules.insert(text("b"), text("fn y() { crate::a::x() }"));
    assert_eq!(circle(&imports(&modules)), Some(vec![text("a"), text("b"), text("a")]));
    modules.insert(text("b"), text("use inner::Z;"));
    assert_eq!(circle(&imports(&modules)), Some(vec![text("b"), text("b::inner"), text("b")]));
}

#[test]
fn nested_imports_are_read_whole() {
    let text =
        "use crate::a::{b::{C, d}, e as f, self};\nlet x = crate::g::h(i::j);\npub(in crate::z) fn k() {}";
    let found: Vec<String> = paths(text).iter().map(|path| path.join("::")).collect();
    for path in ["crate::a::b::C", "crate::a::b::d", "crate::a::e", "crate::a", "crate::g::h", "i::j"] {
        assert!(found.iter().any(|other| other == path), "{path} in {found:?}");
    }
    assert!(!found.iter().any(|path| path.contains('z')), "who may see an item is no import: {found:?}");
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join(name)
}

/// The crates of this project among a manifest's dependencies (not those of its tests).
fn dependencies(name: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(folder(name).join("Cargo.toml")).expect("a manifest");
    let section = manifest.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
    let names = section.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    names
        .filter(|name| CRATES.iter().any(|(other, _)| crate_name(other) == *name))
        .map(str::to_string)
        .collect()
}

/// The text of every module of a crate, without comments and tests.
fn modules(name: &str) -> BTreeMap<String, String> {
    let source = folder(name).join("src");
    let (mut found, mut pending) = (BTreeMap::new(), vec![source.clone()]);
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let inside = path.strip_prefix(&source).expect("inside").with_extension("");
            let mut parts: Vec<String> =
                inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            let last = parts.last().map_or("", String::as_str);
            // A program beside a library, and modules of tests, are no part of the crate.
            if path.extension().is_none_or(|e| e != "rs") || last == "main" || last.ends_with("tests") {
                continue;
            }
            if ["lib", "mod"].contains(&last) {
                parts.pop();
            }
            let text = fs::read_to_string(&path).expect("a source");
            found.insert(parts.join("::"), without_tests(&text));
        }
    }
    assert!(!found.is_empty(), "no sources in {}", source.display());
    found
}

/// A source without its comments and without what is behind `#[cfg(test)]`.
fn without_tests(text: &str) -> String {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    let mut kept = String::new();
    let mut lines = code.peekable();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("#[cfg(test)]") {
            kept += line;
            kept.push('\n');
            continue;
        }
        let mut depth = 0;
        for line in lines.by_ref() {
            depth += line.matches('{').count() as i64 - line.matches('}').count() as i64;
            if depth == 0 && line.trim_end().ends_with(['}', ';']) {
                break;
            }
        }
    }
    kept
}

/// Every path in a text, with the names in braces after it as paths of their own.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut tokens: Vec<String> = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if !c.is_whitespace() {
            tokens.push(c.to_string());
        }
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        // Who may see an item is no import.
        let seen_by = tokens[..at].ends_with(&["pub".into(), "(".into(), "in".into()]);
        if is_name(&tokens[at]) {
            let mut own = Vec::new();
            path(&tokens, &mut at, &[], &mut own);
            found.extend(own.into_iter().filter(|_| !seen_by));
        }
        at += 1;
    }
    found
}

/// Reads a path that begins at token `at`, leaves `at` at its last token.
fn path(tokens: &[String], at: &mut usize, before: &[String], found: &mut Vec<Vec<String>>) {
    let mut names = before.to_vec();
    if tokens[*at] != "self" || before.is_empty() {
        names.push(tokens[*at].clone());
    }
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    while token(*at + 1) == ":" && token(*at + 2) == ":" {
        if is_name(token(*at + 3)) {
            names.push(token(*at + 3).to_string());
            *at += 3;
            continue;
        }
        if token(*at + 3) != "{" {
            break;
        }
        *at += 4;
        // What is in braces are paths of their own.
        while *at < tokens.len() && tokens[*at] != "}" {
            if tokens[*at] == "as" {
                *at += 1;
            } else if is_name(&tokens[*at]) {
                path(tokens, at, &names, found);
            }
            *at += 1;
        }
        return;
    }
    found.push(names);
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// What each module imports of its crate.
fn imports(modules: &BTreeMap<String, String>) -> Imports {
    modules.iter().map(|(module, text)| (module.clone(), imports_of(module, text, modules))).collect()
}

fn imports_of(module: &str, text: &str, modules: &BTreeMap<String, String>) -> BTreeSet<String> {
    let here: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut found = BTreeSet::new();
    for path in paths(text).into_iter().filter(|path| path.len() > 1) {
        let mut full = match path[0].as_str() {
            "crate" => vec![],
            "super" | "self" => here.clone(),
            // A child, named without `self`.
            child if modules.contains_key(&[&here[..], &[child]].concat().join("::")) => {
                [&here[..], &[child]].concat()
            }
            _ => continue,
        };
        let mut rest = path.iter().map(String::as_str).peekable();
        if !["super", "self", "crate"].contains(&path[0].as_str()) {
            rest.next();
        }
        while let Some(step) = rest.next_if(|step| ["super", "self", "crate"].contains(step)) {
            if step == "super" {
                full.pop();
            }
        }
        // As far as it names modules, what is left names an item.
        for part in rest {
            let deeper = [&full[..], &[part]].concat();
            if !modules.contains_key(&deeper.join("::")) {
                break;
            }
            full = deeper;
        }
        let target = full.join("::");
        if target != module {
            found.insert(target);
        }
    }
    found
}

/// A circle, from a module back to itself.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn visit(
        module: &str,
        imports: &Imports,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|other| other == module) {
            return Some([&path[start..], &[module.to_string()]].concat());
        }
        if !done.insert(module.to_string()) {
            return None;
        }
        path.push(module.to_string());
        let found = imports.get(module).into_iter().flatten();
        let circle = found.filter_map(|next| visit(next, imports, path, done)).next();
        path.pop();
        circle
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| visit(module, imports, &mut Vec::new(), &mut done))
}
