//! What the program says of its settings and its data directory, and how it exits.

mod fleet;

use std::{
    ffi::OsStr,
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Output},
};

use fleet::{Fleet, ONE, program};

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program());
    command.args(arguments).envs(environment.iter().copied());
    command.output().expect("the program starts")
}

fn check(config: &Path, environment: &[(&str, &str)]) -> Output {
    run(&["--check", "--config", config.to_str().expect("a plain path")], environment)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that a run was refused as bad settings, with one line that has all of these in it.
#[track_caller]
fn assert_refused(output: &Output, parts: &[&str]) {
    let line = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert_eq!(line.lines().count(), 1, "one line: {line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
}

#[test]
fn good_settings_are_said_to_be_good_and_start_nothing() {
    let fleet = Fleet::new(&ONE);
    let output = check(fleet.nodes[0].config(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).is_empty());
    assert!(!fleet.dir().join("data").exists(), "nothing is made");
}

#[test]
fn bad_settings_exit_with_2_whether_checked_or_started() {
    let fleet = Fleet::new(&ONE);
    let config = fleet.nodes[0].config();
    let good = fs::read_to_string(config).expect("there");
    let path = config.to_str().expect("a plain path");
    let cases = [
        ("rack       =", "rak =", vec!["eu-a-1.toml: node.rak: unknown key; expected one of"]),
        ("partitions = 64", "partitions = 65", vec!["cluster.partitions: expected a power of two"]),
        ("ca.pem", "gone.pem", vec!["eu-a-1.toml: tls.ca: ", "gone.pem", "No such file"]),
        ("id         = \"eu-a-1\"", "id = \"eu-b-1\"", vec!["eu-a-1.toml: tls.cert: ", "eu-b-1"]),
    ];
    for (from, to, parts) in cases {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        fs::write(config, bad).expect("written");
        let checked = check(config, &[]);
        // A missing key is a line of its own.
        let lines = stderr(&checked);
        let only =
            Output { stderr: lines.lines().next().unwrap_or_default().into(), ..checked.clone() };
        assert_refused(&only, &parts);
        let started = run(&["--config", path], &[]);
        assert_eq!(stderr(&started), lines);
        assert_eq!(started.status.code(), Some(2));
    }
    assert!(!fleet.dir().join("data").exists(), "nothing is made");
}

#[test]
fn bad_arguments_are_one_line_that_says_where_the_help_is() {
    for arguments in [&["--colour"][..], &["--config"], &["up"]] {
        assert_refused(&run(arguments, &[]), &["anello-node: ", "; see `anello-node --help`"]);
    }
    let help = run(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--check"));
}

#[test]
fn a_missing_file_and_a_bad_variable_are_named() {
    assert_refused(
        &check(Path::new("/nowhere/node.toml"), &[]),
        &["/nowhere/node.toml: cannot be read", "expected a configuration file"],
    );
    let fleet = Fleet::new(&ONE);
    assert_refused(
        &check(fleet.nodes[0].config(), &[("ANELLO_LISTEN__HTTP", "7480")]),
        &["ANELLO_LISTEN__HTTP: expected an IP address and a port"],
    );
}

#[test]
fn a_file_in_the_place_of_the_data_directory_is_a_bad_setting() {
    let fleet = Fleet::new(&ONE);
    let config = fleet.nodes[0].config();
    let path = config.to_str().expect("a plain path");
    for below in ["", "/data"] {
        let data_dir = format!("{path}{below}");
        let environment = [("ANELLO_NODE__DATA_DIR", data_dir.as_str())];
        let said = ["ANELLO_NODE__DATA_DIR: expected the path of a directory", &data_dir];
        assert_refused(&check(config, &environment), &said);
        let started = run(&["--config", path], &environment);
        assert_eq!(started.status.code(), Some(2));
        assert!(stderr(&started).contains(said[0]), "{}", stderr(&started));
    }
}

#[test]
fn a_variable_that_is_no_text_is_a_bad_setting() {
    let fleet = Fleet::new(&ONE);
    let mut command = Command::new(program());
    command.arg("--check").arg("--config").arg(fleet.nodes[0].config());
    command.env("ANELLO_NODE__DATA_DIR", OsStr::from_bytes(b"data/\xff"));
    let output = command.output().expect("the program starts");
    assert_refused(&output, &["ANELLO_NODE__DATA_DIR: ", "no UTF-8 text"]);
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let fleet = Fleet::up(&ONE);
    let config = fleet.nodes[0].config().to_str().expect("a plain path");
    // Other ports, so that the directory is all that they share.
    let elsewhere =
        [("ANELLO_LISTEN__QUIC", "127.0.0.1:0"), ("ANELLO_LISTEN__HTTP", "127.0.0.1:0")];
    let output = run(&["--config", config], &elsewhere);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("another process uses it"), "{}", stderr(&output));
}

#[test]
fn a_start_that_fails_for_a_port_leaves_the_directory_to_anybody() {
    let fleet = Fleet::new(&ONE);
    let node = &fleet.nodes[0];
    let config = node.config().to_str().expect("a plain path");
    let elsewhere = ("ANELLO_LISTEN__HTTP", "127.0.0.1:0");
    let http = TcpListener::bind(node.http).expect("free");
    let output = run(&["--config", config], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("listen.http: can't listen at"), "{}", stderr(&output));
    drop(http);
    let quic = UdpSocket::bind(node.quic).expect("free");
    let output = run(&["--config", config], &[elsewhere]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("listen.quic: can't listen at"), "{}", stderr(&output));
    drop(quic);
    assert!(!fleet.dir().join("data/eu-a-1/identity.toml").exists());
    let renamed = ("ANELLO_NODE__RACK", "z");
    assert_eq!(check(node.config(), &[renamed]).status.code(), Some(0), "nobody's directory yet");
}

#[test]
fn another_place_on_the_same_directory_is_refused() {
    let mut fleet = Fleet::up(&ONE);
    fleet.kill();
    let config = fleet.nodes[0].config().to_str().expect("a plain path");
    for (variable, value, said) in [
        ("ANELLO_NODE__RACK", "z", "it belongs to node.rack \"a\", the settings say \"z\""),
        ("ANELLO_NODE__DATACENTER", "us", "node.datacenter \"eu\", the settings say \"us\""),
        (
            "ANELLO_CLUSTER__PARTITIONS",
            "128",
            "cluster.partitions \"64\", the settings say \"128\"",
        ),
        ("ANELLO_CLUSTER__NAME", "other", "cluster.name \"test\", the settings say \"other\""),
    ] {
        let output = run(&["--check", "--config", config], &[(variable, value)]);
        assert_refused(&output, &[said]);
        let output = run(&["--config", config], &[(variable, value)]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}
