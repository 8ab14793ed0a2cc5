//! Rules for what this project depends on, checked without a network.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Licences that a permissive project may link; an `OR` needs one of them, an `AND` all. bzip2's own is BSD's with the
/// request not to misstate the origin.
const ALLOWED: [&str; 9] = [
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Zlib",
    "Unicode-3.0",
    "ISC",
    "Unlicense",
    "bzip2-1.0.6",
];

fn is_allowed(expression: &str) -> bool {
    let alternatives = expression.replace('/', " OR ");
    alternatives.split(" AND ").all(|part| {
        part.trim_matches(['(', ')', ' '])
            .split(" OR ")
            .any(|one| ALLOWED.contains(&one.trim_matches(['(', ')', ' '])))
    })
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn licences_sources_and_reasons() {
    assert!(is_allowed("MIT/Apache-2.0") && is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!is_allowed("GPL-2.0-or-later") && !is_allowed("MIT AND GPL-3.0"));
    let metadata = metadata();
    let reasons =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dependencies.md")).unwrap();
    let mut direct = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        match package["source"].as_str() {
            Some(source) => {
                assert!(
                    source.starts_with("registry+https://github.com/rust-lang/crates.io-index"),
                    "{name}: {source}"
                );
                let licence = package["license"].as_str().unwrap_or("none stated");
                assert!(is_allowed(licence), "{name}: {licence}");
            }
            None => {
                let dependencies = package["dependencies"].as_array().unwrap();
                let foreign = dependencies.iter().filter(|dependency| dependency["path"].is_null());
                direct.extend(foreign.map(|dependency| dependency["name"].as_str().unwrap().to_owned()));
            }
        }
    }
    for name in &direct {
        assert!(reasons.contains(&format!("`{name}`")), "{name} has no reason in docs/dependencies.md");
    }
    assert!(direct.contains("zerocopy"));
}
