//! `anello tls`: what it writes, and what it refuses to overwrite.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::run;

#[test]
fn an_authority_issues_for_nodes_and_clients() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &["tls", "init", "tls"]).succeeds().contains("tls/ca.pem"));
    let host = ["tls", "issue", "tls", "eu-a-1", "--host", "kv.example.org,10.0.0.5"];
    run(dir.path(), &host).succeeds();
    run(dir.path(), &["tls", "issue", "tls", "app", "--client"]).succeeds();
    for name in ["ca", "eu-a-1", "client.app"] {
        let key = dir.path().join(format!("tls/{name}.key"));
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        let certificate = fs::read_to_string(dir.path().join(format!("tls/{name}.pem"))).unwrap();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{certificate}");
    }
}

#[test]
fn programs_are_told_where_the_files_are() {
    let dir = tempfile::tempdir().unwrap();
    for (args, name) in [
        (&["tls", "init", "tls", "--json"][..], "ca"),
        (&["tls", "issue", "tls", "n", "--json"], "n"),
    ] {
        let ended = run(dir.path(), args);
        let document: serde_json::Value = serde_json::from_str(ended.succeeds()).unwrap();
        assert_eq!(document["certificate"], format!("tls/{name}.pem"));
        assert_eq!(document["key"], format!("tls/{name}.key"));
        assert!(document["days"].as_u64() > Some(800), "{document}");
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["tls", "init", "tls"]).succeeds();
    run(dir.path(), &["tls", "init", "tls"]).fails(1, "an authority is never replaced");
    run(dir.path(), &["tls", "issue", "tls", "n"]).succeeds();
    run(dir.path(), &["tls", "issue", "tls", "n"]).fails(1, "say --replace");
    let replaced = run(dir.path(), &["tls", "issue", "tls", "n", "--replace"]);
    assert!(replaced.succeeds().contains("in the place of the one before"));
}

#[test]
fn mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["tls", "issue", "tls", "n"]).fails(1, "make one with `anello tls init tls`");
    let bad_id = run(dir.path(), &["tls", "issue", "tls", "Not An Id"]);
    assert_eq!(bad_id.code, Some(2), "{bad_id:?}");
    assert!(bad_id.err.contains("bad node name"), "{bad_id:?}");
}
