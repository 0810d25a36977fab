use std::{ffi::OsString, fs, os::unix::ffi::OsStringExt, path::PathBuf};

use super::*;

const WHOLE: &str = r#"
[node]
id         = "eu-a-1"
datacenter = "eu"
rack       = "a"
weight     = 2
data_dir   = "data/eu-a-1"

[cluster]
name       = "demo"
seeds      = ["127.0.0.1:7400", "node-2.example:7400"]
partitions = 64

[listen]
quic = "127.0.0.1:7401"
http = "127.0.0.1:7481"

[advertise]
quic = "10.0.0.5:7400"

[tls]
ca   = "tls/ca.pem"
cert = "tls/eu-a-1.pem"
key  = "tls/eu-a-1.key"

[http.tls]
cert = "tls/http.pem"
key  = "tls/http.key"

[storage]
durability = "os"

[telemetry]
otlp_endpoint = "http://127.0.0.1:4317"
sample_ratio  = 0.5
log           = "info,anello_gossip=debug"
log_format    = "json"
"#;

const SMALL: &str = r#"
[node]
id = "n"
datacenter = "d"
rack = "r"
data_dir = "data"
[cluster]
name = "c"
seeds = []
[tls]
ca = "a"
cert = "b"
key = "c"
"#;

/// Loads a file of this text, which messages call `node.toml`.
fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    load_with(text, environment)
}

/// The same with an environment that need not be text.
fn load_with(
    text: &str,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Config, Vec<String>> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.toml");
    fs::write(&file, text).expect("written");
    Config::load(Some(&file), environment).map_err(|error| {
        let dir = format!("{}/", dir.path().display());
        error.to_string().replace(&dir, "").lines().map(String::from).collect()
    })
}

#[test]
fn a_whole_file_is_read() {
    let config = load(WHOLE, &[]).expect("good");
    assert_eq!(config.node.id.as_str(), "eu-a-1");
    assert_eq!(config.node.weight, 2.0);
    assert_eq!(config.node.threads, None);
    assert_eq!(config.cluster.seeds, ["127.0.0.1:7400", "node-2.example:7400"]);
    assert_eq!(config.cluster.partitions, 64);
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:7481");
    assert_eq!(config.advertise.quic.as_deref(), Some("10.0.0.5:7400"));
    assert_eq!(config.advertise.http, None);
    assert_eq!(config.http_tls.expect("given").key, PathBuf::from("tls/http.key"));
    assert_eq!(config.durability, Durability::Os);
    assert_eq!(config.telemetry.sample_ratio, 0.5);
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = load(SMALL, &[]).expect("good");
    assert_eq!(config.node.weight, 1.0);
    assert_eq!(config.cluster.partitions, 256);
    assert_eq!(config.listen.quic.to_string(), "127.0.0.1:7400");
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:7480");
    assert_eq!(config.http_tls, None);
    assert_eq!(config.durability, Durability::Sync);
    assert_eq!(config.telemetry.otlp_endpoint, None);
    assert_eq!(config.telemetry.log, "info");
    assert_eq!(config.telemetry.log_format, LogFormat::Text);
}

#[test]
fn the_environment_wins() {
    let config = load(
        WHOLE,
        &[
            ("ANELLO_NODE__ID", "us-b-2"),
            ("ANELLO_NODE__WEIGHT", "0.5"),
            ("ANELLO_NODE__THREADS", "3"),
            ("ANELLO_NODE__DATA_DIR", "/var/lib/anello"),
            ("ANELLO_LISTEN__HTTP", "127.0.0.1:9000"),
            ("ANELLO_CLUSTER__SEEDS", "a:1, b:2"),
            ("ANELLO_HTTP__TLS__CERT", "other.pem"),
            ("ANELLO_PROFILE", "is the CLI's"),
            ("HOME", "is nobody's"),
        ],
    )
    .expect("good");
    assert_eq!(config.node.id.as_str(), "us-b-2");
    assert_eq!(config.node.weight, 0.5);
    assert_eq!(config.node.threads, Some(3));
    assert_eq!(config.node.data_dir, PathBuf::from("/var/lib/anello"));
    assert_eq!(config.listen.http.port(), 9000);
    assert_eq!(config.cluster.seeds, ["a:1", "b:2"]);
    assert_eq!(config.http_tls.expect("given").cert, PathBuf::from("other.pem"));
    let list = load(SMALL, &[("ANELLO_CLUSTER__SEEDS", "[\"a:1\", \"b:2\"]")]).expect("good");
    assert_eq!(list.cluster.seeds, ["a:1", "b:2"]);
    let none = load(WHOLE, &[("ANELLO_CLUSTER__SEEDS", "")]).expect("good");
    assert!(none.cluster.seeds.is_empty());
}

#[test]
fn the_environment_alone_is_enough() {
    let environment = [
        ("ANELLO_NODE__ID", "n"),
        ("ANELLO_NODE__DATACENTER", "d"),
        ("ANELLO_NODE__RACK", "r"),
        ("ANELLO_NODE__DATA_DIR", "data"),
        ("ANELLO_CLUSTER__NAME", "c"),
        ("ANELLO_CLUSTER__SEEDS", "a:1"),
        ("ANELLO_TLS__CA", "a"),
        ("ANELLO_TLS__CERT", "b"),
        ("ANELLO_TLS__KEY", "c"),
    ]
    .map(|(name, value)| (name.into(), value.into()));
    assert!(Config::load(None, environment.clone()).is_ok());
    let error = Config::load(None, environment.into_iter().skip(1)).expect_err("no id");
    assert_eq!(
        error.to_string(),
        "ANELLO_NODE__ID: missing; expected 1 to 63 of a-z, 0-9 and '-', beginning and ending with a \
         letter or digit, such as \"eu-a-1\""
    );
}

/// What is put in the place of a line of [`WHOLE`], and the line that answers it.
const BAD: &[(&str, &str, &str)] = &[
    (
        "id         = \"eu-a-1\"",
        "id = \"EU 1\"",
        "node.toml: node.id: expected 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter \
         or digit, such as \"eu-a-1\", found \"EU 1\"",
    ),
    (
        "id         = \"eu-a-1\"",
        "",
        "node.toml: node.id: missing; expected 1 to 63 of a-z, 0-9 and '-', beginning and ending with \
         a letter or digit, such as \"eu-a-1\"",
    ),
    (
        "rack       = \"a\"",
        "rak = \"a\"\nrack = \"a\"",
        "node.toml: node.rak: unknown key; expected one of `id`, `datacenter`, `rack`, `weight`, \
         `data_dir`, `threads`",
    ),
    (
        "weight     = 2",
        "weight = \"heavy\"",
        "node.toml: node.weight: expected a number above 0 and up to 100, found \"heavy\"",
    ),
    (
        "weight     = 2",
        "weight = 100.5",
        "node.toml: node.weight: expected a number above 0 and up to 100, found 100.5",
    ),
    (
        "weight     = 2",
        "threads = 0",
        "node.toml: node.threads: expected a whole number from 1 to 256, found 0",
    ),
    (
        "partitions = 64",
        "partitions = 100",
        "node.toml: cluster.partitions: expected a power of two from 1 to 65536, found 100",
    ),
    (
        "partitions = 64",
        "partitions = 131072",
        "node.toml: cluster.partitions: expected a power of two from 1 to 65536, found 131072",
    ),
    (
        "seeds      = [\"127.0.0.1:7400\", \"node-2.example:7400\"]",
        "seeds = [\"127.0.0.1\"]",
        "node.toml: cluster.seeds: expected a list of the first nodes' QUIC addresses, such as \
         [\"127.0.0.1:7400\"]; an empty one founds a cluster of one node, found [\"127.0.0.1\"]",
    ),
    (
        "http = \"127.0.0.1:7481\"",
        "http = 7481",
        "node.toml: listen.http: expected an IP address and a port, such as \"127.0.0.1:7400\", found \
         7481",
    ),
    (
        "http = \"127.0.0.1:7481\"",
        "http = \"0.0.0.0:7481\"",
        "node.toml: advertise.http: missing; expected the host:port at which others reach the node, \
         because listen.http is 0.0.0.0:7481, which is every address of the machine",
    ),
    (
        "key  = \"tls/eu-a-1.key\"",
        "",
        "node.toml: tls.key: missing; expected the path of a private key's file",
    ),
    (
        "key  = \"tls/http.key\"",
        "",
        "node.toml: http.tls.key: missing; expected the path of a private key's file",
    ),
    (
        "durability = \"os\"",
        "durability = \"maybe\"",
        "node.toml: storage.durability: expected \"sync\" or \"os\", found \"maybe\"",
    ),
    (
        "sample_ratio  = 0.5",
        "sample_ratio = 7",
        "node.toml: telemetry.sample_ratio: expected a number from 0 to 1, found 7",
    ),
    (
        "log           = \"info,anello_gossip=debug\"",
        "log = \"loud\"",
        "node.toml: telemetry.log: expected error, warn, info, debug or trace, or directives such as \
         \"info,anello_gossip=debug\", found \"loud\"",
    ),
    (
        "log           = \"info,anello_gossip=debug\"",
        "log = \"anello_gossip=debug,loud\"",
        "node.toml: telemetry.log: expected error, warn, info, debug or trace, or directives such as \
         \"info,anello_gossip=debug\", found \"anello_gossip=debug,loud\"",
    ),
    (
        "quic = \"10.0.0.5:7400\"",
        "quic = \"0.0.0.0:7400\"",
        "node.toml: advertise.quic: expected the host and the port at which others reach the node, such \
         as \"10.0.0.5:7400\", found \"0.0.0.0:7400\"",
    ),
    (
        "quic = \"10.0.0.5:7400\"",
        "http = \"[::]:7480\"",
        "node.toml: advertise.http: expected the host and the port at which others reach the node, such \
         as \"10.0.0.5:7400\", found \"[::]:7480\"",
    ),
    (
        "log_format    = \"json\"",
        "log_format = \"xml\"",
        "node.toml: telemetry.log_format: expected \"text\" or \"json\", found \"xml\"",
    ),
    (
        "[storage]",
        "[storrage]",
        "node.toml: storrage: unknown section; expected one of the sections node, cluster, listen, \
         advertise, tls, http.tls, storage, hints, telemetry",
    ),
    ("[node]\n", "[node\n", "node.toml line 2: expected TOML: unclosed table, expected `]`"),
    (
        "rack       = \"a\"",
        "rack = \"a\"\nrack = \"b\"",
        "node.toml line 6: rack: expected TOML: duplicate key",
    ),
    (
        "\n[node]",
        "id = 1\n[node]",
        "node.toml: id: unknown key; expected keys below a section, such as [node]",
    ),
];

#[test]
fn every_problem_is_one_line_with_place_key_and_what_was_expected() {
    for (good, bad, line) in BAD {
        let text = WHOLE.replacen(good, bad, 1);
        assert_ne!(text, WHOLE, "{good:?} is no line of the file");
        assert_eq!(load(&text, &[]).expect_err(bad), [*line]);
    }
}

#[test]
fn levels_and_directives_are_good_logs() {
    for log in ["info", "TRACE", "off", "warn,anello_gossip=debug", "anello[request]=trace,info,"] {
        let config = load(SMALL, &[("ANELLO_TELEMETRY__LOG", log)]).expect(log);
        assert_eq!(config.telemetry.log, log);
    }
}

#[test]
fn a_problem_in_the_environment_names_the_variable() {
    let cases = [
        (
            ("ANELLO_TELEMETRY__LOG", "loud"),
            "ANELLO_TELEMETRY__LOG: expected error, warn, info, debug or trace, or directives such as \
             \"info,anello_gossip=debug\", found \"loud\"",
        ),
        (
            ("ANELLO_ADVERTISE__QUIC", "0.0.0.0:7400"),
            "ANELLO_ADVERTISE__QUIC: expected the host and the port at which others reach the node, such \
             as \"10.0.0.5:7400\", found \"0.0.0.0:7400\"",
        ),
        (
            ("ANELLO_NODE__WEIGHT", "heavy"),
            "ANELLO_NODE__WEIGHT: expected a number above 0 and up to 100, found \"heavy\"",
        ),
        (
            ("ANELLO_STORAGE__DURABLE", "sync"),
            "ANELLO_STORAGE__DURABLE: unknown key; expected `durability`",
        ),
        (
            ("ANELLO_STORE__DURABILITY", "sync"),
            "ANELLO_STORE__DURABILITY: unknown setting; expected one of the sections node, cluster, \
             listen, advertise, tls, http.tls, storage, hints, telemetry",
        ),
    ];
    for (variable, line) in cases {
        assert_eq!(load(WHOLE, &[variable]).expect_err(line), [line]);
    }
}

#[test]
fn a_variable_that_was_meant_as_a_setting_is_refused() {
    for (given, meant) in [
        ("ANELLO_NODE_ID", "ANELLO_NODE__ID"),
        ("ANELLO_LISTENHTTP", "ANELLO_LISTEN__HTTP"),
        ("ANELLO_DATA_DIR", "ANELLO_NODE__DATA_DIR"),
        ("ANELLO_HTTP_TLS_CERT", "ANELLO_HTTP__TLS__CERT"),
        ("ANELLO_TELEMETRY_LOG_FORMAT", "ANELLO_TELEMETRY__LOG_FORMAT"),
    ] {
        let line = format!("{given}: unknown setting; expected {meant}");
        assert_eq!(load(SMALL, &[(given, "x")]).expect_err(given), [line]);
    }
    for other in ["ANELLO_PROFILE", "ANELLO_SERVICE_HOST", "ANELLO_PORT_7480_TCP_ADDR"] {
        assert!(load(SMALL, &[(other, "x")]).is_ok(), "{other} is no setting of a node");
    }
}

#[test]
fn every_setting_has_its_path() {
    let paths: Vec<_> = raw::paths().collect();
    for path in ["node.id", "advertise.quic", "http.tls.key", "telemetry.log_format"] {
        assert!(paths.iter().any(|known| known == path), "{path} is not in {paths:?}");
    }
}

#[test]
fn a_setting_in_the_environment_that_is_no_text_is_refused() {
    let load = |name: &str| {
        let variable = (name.into(), OsString::from_vec(b"data/\xff".to_vec()));
        load_with(WHOLE, [variable].into_iter())
    };
    assert_eq!(
        load("ANELLO_NODE__DATA_DIR").expect_err("no text"),
        [
            "ANELLO_NODE__DATA_DIR: expected the path of a directory, found \"data/\u{fffd}\", which is \
          no UTF-8 text"
        ]
    );
    assert!(load("ANELLO_NODE__NAME").expect_err("no text")[0].contains("unknown key"));
    assert!(load("ANELLO_PROFILE").is_ok() && load("HOME").is_ok(), "no settings of a node");
    let name = OsString::from_vec(b"ANELLO_NODE__\xff".to_vec());
    let unknown = load_with(WHOLE, [(name, "x".into())].into_iter()).expect_err("no text");
    assert!(unknown[0].contains("unknown key"), "{unknown:?}");
}

#[test]
fn all_problems_are_found_in_one_go() {
    let text = WHOLE.replace("weight     = 2", "weight = -1").replace("\"os\"", "\"or\"");
    assert_eq!(load(&text, &[("ANELLO_NODE__RACK", "A")]).expect_err("three").len(), 3);
}

#[test]
fn a_missing_file_is_said_to_be_missing() {
    let error = Config::load(Some(Path::new("/nowhere/node.toml")), []).expect_err("missing");
    assert_eq!(
        error.to_string(),
        "/nowhere/node.toml: cannot be read: No such file or directory (os error 2); expected a \
         configuration file (a relative path is relative to the working directory)"
    );
}
