//! What needs no cluster: help, completions, bad usage, and errors that say what to do.

use std::fs;

use crate::support::{run, run_unread};

#[test]
fn bad_usage_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["nonsense"][..], &["fleet", "stop"], &["tls"], &["completions", "cobol"]] {
        assert_eq!(run(dir.path(), args).code, Some(2), "{args:?}");
    }
}

#[test]
fn help_names_the_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let help = run(dir.path(), &["--help"]);
    assert!(help.succeeds().contains("5 too few replicas"), "{help:?}");
}

#[test]
fn a_closed_standard_output_changes_no_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run_unread(dir.path(), &["completions", "bash"]), Some(0));
    assert_eq!(run_unread(dir.path(), &["fleet", "ls"]), Some(0));
    assert_eq!(run_unread(dir.path(), &["tls", "issue", "tls", "n"]), Some(1));
}

#[test]
fn completions_are_there_for_every_shell() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(dir.path(), &["completions", shell]);
        assert!(script.succeeds().contains("anello"), "{shell}");
    }
}

#[test]
fn a_fleet_file_that_is_wrong_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.toml");
    fs::write(&file, "name = \"x\"\nnode = 3\n").unwrap();
    run(dir.path(), &["fleet", "up", "fleet.toml"])
        .fails(2, "fleet.toml: line 2: unknown field `node`");
    run(dir.path(), &["fleet", "up", "none.toml"]).fails(2, "deploy/fleets/");
    assert!(!dir.path().join(".anello").exists());
}

#[test]
fn without_a_fleet_there_is_nothing_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["fleet", "stop", "eu-a-1"]).fails(1, "there is no fleet in this directory");
    assert!(run(dir.path(), &["fleet", "ls"]).succeeds().contains("anello fleet up FILE"));
    assert_eq!(run(dir.path(), &["fleet", "ls", "--json"]).succeeds(), "[]\n");
}
