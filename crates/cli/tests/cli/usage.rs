//! What needs no cluster: help, completions, bad usage, and errors that say what to do.

use std::fs;

use crate::support::{anello, run, run_unread};

#[test]
fn bad_usage_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["nonsense"][..], &["fleet", "stop"], &["tls"], &["completions", "cobol"]] {
        assert_eq!(run(dir.path(), args).code, Some(2), "{args:?}");
    }
}

#[test]
fn bad_usage_is_one_line_that_says_where_the_help_is() {
    let dir = tempfile::tempdir().unwrap();
    for (args, words) in [
        (&["nonsense"][..], "'nonsense'; see `anello --help`"),
        (&["put", "k", "v", "--colour", "red"], "'--colour' found; see `anello put --help`"),
        (&["fleet", "stop"], "<NODE>...; see `anello fleet stop --help`"),
        (&["get"], "<KEY>; see `anello get --help`"),
        (&["get", "k", "--timeout", "soon"], "such as 500ms, 5s or 1m; see `anello get --help`"),
        (&["keyspace", "create", "k", "--read", "each_quorum"], "a level of writes"),
        (&["node", "weight", "n", "0"], "above 0 and at most 100"),
        (&["node", "join", "--datacenter", "eu", "--rack", "a"], "say --plan"),
    ] {
        run(dir.path(), args).fails(2, words);
    }
}

#[test]
fn a_failure_is_a_document_where_json_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for (args, error) in [
        (&["get", "k", "--json"][..], "bad_usage"),
        (&["put", "k", "v", "--json", "--colour"], "bad_usage"),
        (&["fleet", "stop", "eu-a-1", "--json"], "failed"),
        (&["fleet", "up", "none.toml", "--json"], "bad_usage"),
        (&["tls", "issue", "tls", "n", "--json"], "failed"),
        (&["keyspace", "drop", "k", "--json"], "bad_usage"),
        (&["import", "none.jsonl", "--json"], "bad_usage"),
    ] {
        let ended = run(dir.path(), args);
        let document: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!(document["error"], error, "{ended:?}");
        let message = document["message"].as_str().unwrap();
        assert!(ended.err.contains(message), "{ended:?}");
    }
}

#[test]
fn an_empty_variable_names_no_profile() {
    let dir = tempfile::tempdir().unwrap();
    let output = anello(dir.path()).args(["get", "k"]).env("ANELLO_PROFILE", "").output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("no profile says where the cluster is"), "{err}");
    fs::create_dir(dir.path().join(".anello")).unwrap();
    let profile = "seeds = ['127.0.0.1']\n[tls]\nca = 'a'\ncert = 'b'\nkey = 'c'\n";
    fs::write(dir.path().join(".anello/profile.toml"), profile).unwrap();
    run(dir.path(), &["get", "k"]).fails(2, "profile.toml: seeds: expected addresses such as");
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
    let reads = "name = 'x'\n[[datacenter]]\nname = 'eu'\nracks = { a = 1 }\n\
                 [[keyspace]]\nname = 'k'\nread = 'each_quorum'\n";
    fs::write(&file, reads).unwrap();
    run(dir.path(), &["fleet", "up", "fleet.toml"])
        .fails(2, "fleet.toml: keyspace k: read: each_quorum is a level of writes");
    assert!(!dir.path().join(".anello").exists());
}

#[test]
fn without_a_fleet_there_is_nothing_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["fleet", "stop", "eu-a-1"]).fails(1, "there is no fleet in this directory");
    assert!(run(dir.path(), &["fleet", "ls"]).succeeds().contains("anello fleet up FILE"));
    assert_eq!(run(dir.path(), &["fleet", "ls", "--json"]).succeeds(), "[]\n");
}
