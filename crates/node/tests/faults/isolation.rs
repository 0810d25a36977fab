//! A scenario in namespaces of its own: networks, mounts, processes.
//!
//! The test runs its own binary again, for this one test, below `unshare`. What the scenario makes there
//! (network namespaces, links, rules, nodes) is seen by nobody else and can collide with nothing, and the
//! kernel takes it away when the scenario ends, however it ends: it is process 1 of its namespace, so no
//! process outlives it. Its directories lie below one that the test removes.

use std::{
    any, fs,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{self, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    thread,
};

/// Says to the inner run what it is.
const INSIDE: &str = "ANELLO_FAULT_INSIDE";

/// How the directories of scenarios begin.
const DIRECTORY: &str = "anello-faults-";

/// What `unshare` is told: as root, and as anybody where users may have namespaces of their own.
const MEANS: [&[&str]; 2] =
    [&["-nmpf", "--mount-proc", "--kill-child"], &["-Urnmpf", "--mount-proc", "--kill-child"]];

/// What a scenario needs of its namespaces: a private `/run` for the networks' names, links between
/// networks, forwarding, and rules that drop packets.
const PROBE: &str = "mount -t tmpfs tmpfs /run && ip netns add probe \
    && ip link add probe type veth peer name eth0 netns probe && ip link set probe up \
    && ip rule add from 10.0.0.1 to 10.0.0.2 blackhole && echo 1 > /proc/sys/net/ipv4/ip_forward \
    && nsenter --net=/run/netns/probe ip link set lo up";

/// Runs a scenario isolated, or says on stderr that this machine does not let it.
///
/// To be called with a closure in the body of the test itself, whose name it is known by.
pub fn isolated<F: FnOnce()>(scenario: F) {
    if std::env::var_os(INSIDE).is_some() {
        end_with_the_test();
        return scenario();
    }
    // One fleet at a time: six nodes are load enough.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let name = any::type_name::<F>();
    let name = name.split_once("::").map_or(name, |(_, path)| path);
    let name = name.trim_end_matches("::{{closure}}");
    match means() {
        Ok(flags) => run_inside(flags, name),
        // Past the harness, which would swallow it.
        Err(why) => writeln!(io::stderr(), "skipped: {name}: {why}").expect("stderr is open"),
    }
}

/// How this machine lets namespaces be made; looked at once.
fn means() -> Result<&'static [&'static str], &'static str> {
    static MEANS_HERE: OnceLock<Result<&'static [&'static str], String>> = OnceLock::new();
    let found = MEANS_HERE.get_or_init(|| {
        let mut why = String::new();
        for flags in MEANS {
            let probe = Command::new("unshare").args(flags).args(["sh", "-c", PROBE]).output();
            match probe {
                Ok(output) if output.status.success() => return Ok(flags),
                Ok(output) => {
                    why = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
                }
                Err(error) => why = format!("unshare: {error}"),
            }
        }
        Err(format!("neither root nor a user's own namespaces give networks here ({why})"))
    });
    found.as_ref().copied().map_err(String::as_str)
}

fn run_inside(flags: &[&str], name: &str) {
    let dir = tempfile::Builder::new().prefix(DIRECTORY).tempdir().expect("a directory");
    let (output, passed) = run(flags, name, dir.path());
    // An inner run that finds no test by this name succeeds too.
    assert!(passed && output.contains("1 passed"), "{name} failed in its namespaces, see above");
}

/// Runs the test inside, tells what it prints as it comes, and says whether it went well.
fn run(flags: &[&str], name: &str, dir: &Path) -> (String, bool) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut child = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe().expect("a test is a program"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("TMPDIR", dir)
        // Held open as long as this process lives.
        .stdin(Stdio::piped())
        .stdout(writer.try_clone().expect("a pipe's end"))
        .stderr(writer)
        .spawn()
        .expect("unshare starts");
    let lifeline = child.stdin.take();
    let mut output = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.expect("a pipe is read");
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        output += &line;
        output.push('\n');
    }
    drop(lifeline);
    (output, child.wait().expect("the child is ours").success())
}

/// Ends this process, and with it its namespaces, when the test that started it is gone; its directory
/// is then left to be removed here.
fn end_with_the_test() {
    thread::spawn(|| {
        let _gone = io::stdin().read(&mut [0]);
        let dir = std::env::temp_dir();
        if dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(DIRECTORY)) {
            // The nodes still write there: what can't be removed stays, and nobody is left to be told.
            let _left = fs::remove_dir_all(dir);
        }
        process::exit(1);
    });
}
