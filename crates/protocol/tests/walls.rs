//! The arrows between the crates, as `ARCHITECTURE.md` draws them. A new one is a decision: it is made here
//! and there.

use std::{collections::BTreeSet, fs, path::Path};

/// Each crate, and the crates of ours that it may use.
const ARROWS: [(&str, &[&str]); 11] = [
    ("protocol", &[]),
    ("ring", &["protocol"]),
    ("transport", &["protocol"]),
    ("replica", &["protocol", "ring", "transport"]),
    ("gossip", &["protocol", "ring", "transport"]),
    ("antientropy", &["protocol", "ring", "transport"]),
    ("gateway", &["protocol", "replica", "transport"]),
    ("client", &["protocol", "ring", "transport"]),
    ("node", &["protocol", "ring", "transport", "replica", "gossip", "antientropy", "gateway"]),
    ("cli", &["protocol", "ring", "client"]),
    ("sim", &["protocol", "ring", "replica", "gossip", "antientropy"]),
];

/// The crates of ours that a manifest names as dependencies of the product (not of its tests).
fn uses(manifest: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut used = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let is_product = section == "[dependencies]" || section.starts_with("[target.");
        if let Some(rest) = line.strip_prefix("anello-").filter(|_| is_product) {
            used.insert(rest.chars().take_while(char::is_ascii_alphabetic).collect());
        }
    }
    used
}

#[test]
fn no_crate_uses_what_it_must_not() {
    let crates =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates/protocol has a parent");
    let mut seen = BTreeSet::new();
    for folder in fs::read_dir(crates).expect("crates/ can be read") {
        let folder = folder.expect("an entry").path();
        let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let name = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
        let (_, allowed) = ARROWS
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("crates/{name} is not on the map"));
        for used in uses(&manifest) {
            assert!(allowed.contains(&used.as_str()), "{name} must not use {used}");
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), ARROWS.len(), "a crate on the map is gone");
}

#[test]
fn a_manifest_is_read_right() {
    let manifest = "[dependencies]\nanello-ring.workspace = true\nanello-replica = { path = \"x\" }\n\
                    [dev-dependencies]\nanello-node.workspace = true\n";
    assert_eq!(uses(manifest), BTreeSet::from(["ring".into(), "replica".into()]));
}
