//! A fleet of real processes for tests: certificates, settings, free ports, a process a node.
//!
//! Every wait is for a condition and has an end. What is started is killed when the fleet is dropped,
//! and its directory goes with it; a test that fails prints the nodes' last log lines.
//!
//! Used by other crates' tests too: `#[path = "../../node/tests/fleet/mod.rs"] mod fleet;`

// Each test uses a part of it.
#![allow(dead_code, unreachable_pub)]

mod certificates;
pub mod disk;
pub mod http;
mod ports;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

pub use certificates::{Authority, CertificateFiles};
use tempfile::TempDir;

/// How long a fleet may take to be ready; the contract says 10 s for six empty nodes, and tests share
/// the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until something is so.
///
/// # Panics
///
/// If it isn't within the time.
#[track_caller]
pub fn wait_until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        thread::sleep(LOOK);
    }
}

/// Where a node stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub id: &'static str,
    pub datacenter: &'static str,
    pub rack: &'static str,
}

/// Three nodes of one datacenter, each in a rack of its own.
pub const THREE: [Place; 3] = [
    Place { id: "eu-a-1", datacenter: "eu", rack: "a" },
    Place { id: "eu-b-1", datacenter: "eu", rack: "b" },
    Place { id: "eu-c-1", datacenter: "eu", rack: "c" },
];

/// One node.
pub const ONE: [Place; 1] = [THREE[0]];

/// Where a node listens, and what its program is started by: nothing, or a command that enters a
/// network of its own.
#[derive(Clone, Debug)]
pub struct Site {
    pub place: Place,
    pub quic: SocketAddr,
    pub http: SocketAddr,
    pub enter: Vec<String>,
}

/// Nodes of one cluster.
pub struct Fleet {
    pub nodes: Vec<Node>,
    pub authority: Authority,
    dir: TempDir,
}

/// One node, which may run or not.
pub struct Node {
    pub id: &'static str,
    pub quic: SocketAddr,
    pub http: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    enter: Vec<String>,
    process: Option<Child>,
}

impl Fleet {
    /// Lays a fleet out and starts nothing.
    pub fn new(places: &[Place]) -> Self {
        Self::with_settings(places, "")
    }

    /// The same, with more sections in every node's file.
    pub fn with_settings(places: &[Place], more: &str) -> Self {
        let sites: Vec<_> = places
            .iter()
            .map(|&place| Site {
                place,
                quic: ports::free(),
                http: ports::free(),
                enter: Vec::new(),
            })
            .collect();
        Self::on_sites(&sites, more)
    }

    /// The same, where the caller says.
    pub fn on_sites(sites: &[Site], more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("anello-fleet-").tempdir().expect("a directory");
        let authority = Authority::create(dir.path());
        let seeds: Vec<_> = sites.iter().map(|site| format!("\"{}\"", site.quic)).collect();
        let nodes = sites.iter().map(|Site { place, quic, http, enter }| {
            let (quic, http, enter) = (*quic, *http, enter.clone());
            let tls = authority.issue_node(place.id);
            let text = settings(dir.path(), place, quic, http, &seeds.join(", "), &tls) + more;
            let config = dir.path().join(format!("{}.toml", place.id));
            fs::write(&config, text).expect("the settings are written");
            let log = dir.path().join(format!("{}.log", place.id));
            Node { id: place.id, quic, http, config, log, enter, process: None }
        });
        Self { nodes: nodes.collect(), authority, dir }
    }

    /// Lays a fleet out, starts all of it at once, and waits until every node is ready.
    pub fn up(places: &[Place]) -> Self {
        let mut fleet = Self::new(places);
        fleet.start();
        fleet.wait_ready();
        fleet
    }

    /// Where the fleet's files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A node's data directory.
    pub fn data_dir(&self, id: &str) -> PathBuf {
        self.dir().join("data").join(id)
    }

    /// Starts every node that doesn't run.
    pub fn start(&mut self) {
        self.nodes.iter_mut().filter(|node| node.process.is_none()).for_each(Node::start);
    }

    /// Waits until every node serves.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        for node in &mut self.nodes {
            node.wait_ready(end.saturating_duration_since(Instant::now()));
        }
    }

    /// Kills all at once, as a loss of power would, short of what it does to the page cache.
    pub fn kill(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.kill().expect("the process is ours");
            }
        }
        self.nodes.iter_mut().for_each(Node::reap);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            for node in &self.nodes {
                eprintln!("--- {}\n{}", node.id, node.log_tail(60));
            }
        }
    }
}

impl Node {
    /// Starts the process.
    pub fn start(&mut self) {
        let log = fs::File::options().create(true).append(true).open(&self.log);
        let mut words: Vec<_> = self.enter.iter().map(PathBuf::from).collect();
        words.push(program());
        let process = Command::new(&words[0])
            .args(&words[1..])
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("the log is opened"))
            .spawn();
        self.process = Some(process.expect("the daemon's program is built and starts"));
    }

    /// Waits until the node serves.
    #[track_caller]
    pub fn wait_ready(&mut self, within: Duration) {
        let end = Instant::now() + within;
        loop {
            if http::get(self.http, "/readyz").is_ok_and(|answer| answer.status == 200) {
                return;
            }
            if let Some(process) = &mut self.process
                && let Some(status) = process.try_wait().expect("the process is ours")
            {
                panic!("{} ended with {status}:\n{}", self.id, self.log_tail(20));
            }
            if Instant::now() > end {
                panic!("{} is not ready within {within:?}:\n{}", self.id, self.log_tail(20));
            }
            thread::sleep(LOOK);
        }
    }

    /// Kills the process with signal 9.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().expect("the process is ours");
        }
        self.reap();
    }

    /// Asks the process to end, as `kill` does, and waits for it.
    #[track_caller]
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait_end(within)
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    pub fn wait_end(&mut self, within: Duration) -> ExitStatus {
        let process = self.process.as_mut().expect("the node runs");
        let end = Instant::now() + within;
        loop {
            if let Some(status) = process.try_wait().expect("the process is ours") {
                self.process = None;
                return status;
            }
            assert!(Instant::now() < end, "{} does not end within {within:?}", self.id);
            thread::sleep(LOOK);
        }
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("the node runs");
        let mut kill = Command::new("kill");
        kill.arg(format!("-{name}")).arg(process.id().to_string());
        assert!(kill.status().expect("kill is there").success());
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").id()
    }

    /// What the node has logged, in all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The file of its settings.
    pub fn config(&self) -> &Path {
        &self.config
    }

    fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let skip = log.lines().count().saturating_sub(lines);
        log.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }

    fn reap(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.wait().expect("the process is ours");
        }
    }
}

/// The daemon's program: this crate's own, or, in another crate's tests, the one beside the test.
pub fn program() -> PathBuf {
    if let Some(program) = option_env!("CARGO_BIN_EXE_anello-node") {
        return program.into();
    }
    let test = std::env::current_exe().expect("a test is a program");
    let profile = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps");
    profile.join("anello-node")
}

fn settings(
    dir: &Path,
    place: &Place,
    quic: SocketAddr,
    http: SocketAddr,
    seeds: &str,
    tls: &CertificateFiles,
) -> String {
    let Place { id, datacenter, rack } = place;
    let data = dir.join("data").join(id);
    format!(
        r#"
[node]
id         = "{id}"
datacenter = "{datacenter}"
rack       = "{rack}"
data_dir   = {data:?}

[cluster]
name       = "test"
seeds      = [{seeds}]
partitions = 64

[listen]
quic = "{quic}"
http = "{http}"

[tls]
ca   = {:?}
cert = {:?}
key  = {:?}
"#,
        tls.ca, tls.cert, tls.key
    )
}
