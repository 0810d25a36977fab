// A node within this process, for examples and doctests: a real one, on ports that are free, with
// certificates of its own, in a folder that vanishes with it. (Doctests include this file, and what is
// included can't begin with inner documentation.)

use std::{fs, path::Path, time::Duration};

use anello_client::{Profile, TlsFiles};
use anello_node::{Node, config::Config};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// A running node. It stops when it is dropped.
pub(crate) struct InProcess {
    node: Node,
    folder: tempfile::TempDir,
}

/// Starts a node that is a cluster by itself.
pub(crate) fn start() -> InProcess {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    certify(folder.path());
    let settings = folder.path().join("node.toml");
    fs::write(&settings, settings_in(folder.path())).expect("the folder can be written to");
    let config = Config::load(Some(&settings), []).expect("the settings are complete");
    let node = Node::start(config).expect("nothing is in the way of a node");
    assert!(node.wait_ready(Duration::from_secs(30)), "a node by itself is soon ready");
    InProcess { node, folder }
}

impl InProcess {
    /// Where the node is, and as whom to talk to it.
    pub(crate) fn profile(&self) -> Profile {
        let file = |name: &str| self.folder.path().join(name);
        Profile {
            cluster: Some("demo".parse().expect("a valid name")),
            seeds: vec![self.node.quic_address().to_string()],
            datacenter: Some("eu".parse().expect("a valid name")),
            tls: TlsFiles { ca: file("ca.pem"), cert: file("client.pem"), key: file("client.key") },
        }
    }
}

fn settings_in(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
        [node]
        id         = "eu-a-1"
        datacenter = "eu"
        rack       = "a"
        data_dir   = "{folder}/data"
        threads    = 1

        [cluster]
        name       = "demo"
        seeds      = []
        partitions = 16

        [listen]
        quic = "127.0.0.1:0"
        http = "127.0.0.1:0"

        [tls]
        ca   = "{folder}/ca.pem"
        cert = "{folder}/node.pem"
        key  = "{folder}/node.key"

        [storage]
        durability = "os"
        "#
    )
}

/// What `anello tls init` and `anello tls issue` do.
fn certify(folder: &Path) {
    let write = |name: &str, pem: String| {
        fs::write(folder.join(name), pem).expect("the folder can be written to");
    };
    let key = || KeyPair::generate().expect("there is randomness");
    let params = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).expect("DNS names")
    };
    let ca_key = key();
    let mut ca = params(&[]);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.pem", ca.self_signed(&ca_key).expect("a complete certificate").pem());
    let issuer = Issuer::new(ca, ca_key);
    for (file, name) in [("node", "eu-a-1"), ("client", "client.example")] {
        let key = key();
        let certificate = params(&[name]).signed_by(&key, &issuer).expect("a complete certificate");
        write(&format!("{file}.pem"), certificate.pem());
        write(&format!("{file}.key"), key.serialize_pem());
    }
}
