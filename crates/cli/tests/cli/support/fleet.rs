//! A fleet of real nodes below a directory of its own, brought up and down by the program itself.

use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{Ended, anello};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ports from which fleets are given theirs: below those that the system gives out by itself.
const FIRST_PORT: u16 = 21_000;
const LAST_PORT: u16 = 30_000;

/// A fleet that is up.
pub(crate) struct Fleet {
    dir: tempfile::TempDir,
    ports: (u16, u16),
    up: Option<Up>,
}

struct Up {
    process: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

/// Builds the daemon beside the program, where it looks for it.
fn build_daemon() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "anello-node", "--bin", "anello-node"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "the daemon does not build");
    });
}

/// A base from which so many ports of both kinds are free, given to one fleet only.
fn free_ports(count: u16) -> (u16, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock().expect("nobody panics while asking");
    let spread = u16::try_from(std::process::id() % 80).expect("below 80") * 100;
    loop {
        let offset = NEXT.fetch_add(2 * count, Ordering::Relaxed) + spread;
        let quic = FIRST_PORT + offset % (LAST_PORT - FIRST_PORT);
        let http = quic + count;
        let free = |port| {
            UdpSocket::bind(("127.0.0.1", port)).is_ok()
                && TcpListener::bind(("127.0.0.1", port)).is_ok()
        };
        if (quic..http + count).all(free) {
            return (quic, http);
        }
    }
}

impl Fleet {
    /// Brings a fleet up, and waits until all of its nodes are ready.
    pub(crate) fn up(file: &str, nodes: u16) -> Self {
        build_daemon();
        let dir = tempfile::tempdir().expect("there is room for a directory");
        std::fs::write(dir.path().join("fleet.toml"), file).expect("it can be written");
        let mut fleet = Self { dir, ports: free_ports(nodes), up: None };
        fleet.start();
        fleet.wait_for(&format!("{nodes} of {nodes} nodes are ready"));
        fleet
    }

    /// Starts `fleet up` again.
    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with further flags.
    pub(crate) fn start_with(&mut self, flags: &[&str]) {
        let (quic, http) = self.ports;
        let mut process = anello(self.dir())
            .args(["fleet", "up", "fleet.toml"])
            .args(flags)
            .args(["--base-quic-port", &quic.to_string(), "--base-http-port", &http.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (heard, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if heard.send(line).is_err() {
                    break;
                }
            }
        });
        self.up = Some(Up { process, lines, said: Vec::new() });
    }

    /// Waits until `fleet up` says something with these words.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        let up = self.up.as_mut().expect("the fleet is up");
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match up.lines.recv_timeout(left) {
                Ok(line) => {
                    up.said.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(_) => panic!("nothing about {words:?} in {:#?}", up.said),
            }
        }
    }

    /// Presses Ctrl-C, and waits for the end.
    pub(crate) fn interrupt(&mut self) -> ExitStatus {
        let mut up = self.up.take().expect("the fleet is up");
        signal("INT", up.process.id());
        up.process.wait().expect("it ends")
    }

    /// The working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the program beside the fleet.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        super::run(self.dir(), args)
    }

    /// The same where nobody reads what it prints; its exit code.
    pub(crate) fn run_unread(&self, args: &[&str]) -> Option<i32> {
        super::run_unread(self.dir(), args)
    }

    /// Runs the program again and again until it ends as it should.
    #[track_caller]
    pub(crate) fn until(&self, args: &[&str], as_it_should: impl Fn(&Ended) -> bool) -> Ended {
        let until = Instant::now() + PATIENCE;
        loop {
            let ended = self.run(args);
            if as_it_should(&ended) {
                return ended;
            }
            assert!(Instant::now() < until, "{ended:?}");
        }
    }

    /// The QUIC address of the i-th node.
    pub(crate) fn quic(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.ports.0 + node)
    }

    /// Writes a file into the working directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.expect("there is a kill").success());
}

impl Drop for Fleet {
    /// Leaves no process behind, also when a test has failed.
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            signal("INT", up.process.id());
            let _ = up.process.wait();
        }
    }
}
