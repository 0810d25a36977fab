//! A node's process: starting it, finding it again from another terminal, and signals.
//!
//! What runs is known by pid files. A pid alone proves nothing, since numbers are given out again, so
//! a process counts as the node only while its command line names the node's config file. Reads
//! `/proc`, so it needs Linux.

use std::{
    env, fs,
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anello_protocol::id::NodeId;

use super::{layout::Layout, signal::Pid};
use crate::outcome::Failure;

/// The daemon's name as a file.
const DAEMON: &str = "anello-node";
/// Which of a process's fields says how many threads it has: proc(5) counts two before the state.
const THREADS: usize = 20 - 3;
/// By when the system shows a new process as what it is.
const VISIBLE_WITHIN: Duration = Duration::from_secs(2);
/// How much of a log's end is looked at for its last lines.
const LOG_TAIL_BYTES: u64 = 16 * 1024;
/// Sections whose settings a fleet's nodes must not take from the environment: all nodes would share
/// one id, one port, one directory.
const OWN_SECTIONS: [&str; 6] = ["NODE", "CLUSTER", "LISTEN", "ADVERTISE", "TLS", "HTTP"];

/// What a node's process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It runs.
    Runs,
    /// It was paused.
    Paused,
    /// It was killed or has returned, and the system still takes back what it had, ports included.
    Ends,
}

/// Finds the daemon: beside this program, else on the path.
pub(crate) fn daemon() -> Result<PathBuf, Failure> {
    let beside = env::current_exe().ok().map(|own| own.with_file_name(DAEMON));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join(DAEMON));
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file()).ok_or_else(|| {
        Failure::failed(format_args!(
            "there is no {DAEMON} beside this program or on the PATH: build it with `cargo build --release -p anello-node`"
        ))
    })
}

/// Starts a node in the background, its output going to its log, and keeps its pid.
pub(crate) fn spawn(layout: &Layout, id: &NodeId, daemon: &Path) -> Result<Child, Failure> {
    let failed = |what: &str, error: &std::io::Error| {
        Failure::failed(format_args!("cannot start {id}: {what}: {error}"))
    };
    let log_path = layout.log(id);
    let log = fs::OpenOptions::new().create(true).append(true).open(&log_path);
    let log = log.map_err(|error| failed(&log_path.display().to_string(), &error))?;
    let errors = log.try_clone().map_err(|error| failed("its log", &error))?;
    let mut command = Command::new(daemon);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let section = text.strip_prefix("ANELLO_").and_then(|rest| rest.split_once("__"));
        if section.is_some_and(|(section, _)| OWN_SECTIONS.contains(&section)) {
            command.env_remove(&name);
        }
    }
    let mut child = command
        .arg("--config")
        .arg(layout.config(id))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // A group of its own: Ctrl-C in this terminal is for this program to pass on.
        .process_group(0)
        .spawn()
        .map_err(|error| failed(&daemon.display().to_string(), &error))?;
    let pid_path = pid_path(layout, id);
    fs::write(&pid_path, child.id().to_string())
        .map_err(|error| failed(&pid_path.display().to_string(), &error))?;
    wanted_down(layout, id, false)?;
    await_visible(layout, id, &mut child);
    Ok(child)
}

/// Waits until a new process shows as the node, or has ended: on a busy machine its command line is
/// empty for a moment after its start, and it would be taken for dead.
fn await_visible(layout: &Layout, id: &NodeId, child: &mut Child) {
    let until = Instant::now() + VISIBLE_WITHIN;
    let is_hidden = || find(layout, id).is_none_or(|(_, doing)| doing == Doing::Ends);
    while is_hidden() && Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The number of a process that was just started.
pub(crate) fn pid_of(child: &Child) -> Result<Pid, Failure> {
    let pid = child.id().to_string().parse();
    pid.map_err(|_| Failure::failed(format_args!("process {} is no process's number", child.id())))
}

/// Whether the node was started since its fleet was last brought down in order.
pub(crate) fn was_started(layout: &Layout, id: &NodeId) -> bool {
    pid_path(layout, id).exists()
}

/// Forgets the process of a node that was brought down.
pub(crate) fn forget(layout: &Layout, id: &NodeId) {
    // A file that stays behind names a process that is gone, which [`find`] sees.
    let _ = fs::remove_file(pid_path(layout, id));
}

/// The node's process, if it has one.
pub(crate) fn find(layout: &Layout, id: &NodeId) -> Option<(Pid, Doing)> {
    let pid = fs::read_to_string(pid_path(layout, id)).ok()?.trim().parse().ok()?;
    let doing = doing(pid, &layout.config(id))?;
    Some((pid, doing))
}

fn doing(pid: Pid, config: &Path) -> Option<Doing> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    if command.is_empty() {
        return is_ending(&stat).then_some(Doing::Ends);
    }
    let mut words = command.split(|byte| *byte == 0);
    let program = Path::new(std::str::from_utf8(words.next()?).ok()?).file_name()?;
    let config = config.as_os_str().as_encoded_bytes();
    if program != DAEMON || !words.any(|word| word == config) {
        return None;
    }
    match state_letter(&stat)? {
        'T' | 't' => Some(Doing::Paused),
        _ => Some(Doing::Runs),
    }
}

/// Whether a process without a command line, which goes with its memory, is a daemon that still has
/// anything else: its files, which are closed by the last of its threads to end.
fn is_ending(stat: &str) -> bool {
    let name = stat.split_once('(').and_then(|(_, rest)| Some(rest.rsplit_once(')')?.0));
    let has_ended = match state_letter(stat) {
        Some('X') | None => true,
        Some('Z') => fields(stat).nth(THREADS).is_none_or(|threads| matches!(threads, "0" | "1")),
        Some(_) => false,
    };
    name == Some(DAEMON) && !has_ended
}

fn state_letter(stat: &str) -> Option<char> {
    fields(stat).next()?.chars().next()
}

/// What is said of a process after its name, which is in brackets and may hold anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace()
}

/// Keeps that a person wants the node down, or no more: who watches the fleet then knows why it ended.
pub(crate) fn wanted_down(layout: &Layout, id: &NodeId, down: bool) -> Result<(), Failure> {
    let path = layout.run_dir().join(format!("{id}.down"));
    let done = if down { fs::write(&path, "") } else { fs::remove_file(&path) };
    match done {
        Err(error) if down || error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::failed(format_args!("cannot write {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Whether a person wants the node down.
pub(crate) fn is_wanted_down(layout: &Layout, id: &NodeId) -> bool {
    layout.run_dir().join(format!("{id}.down")).exists()
}

fn pid_path(layout: &Layout, id: &NodeId) -> PathBuf {
    layout.run_dir().join(format!("{id}.pid"))
}

/// The last lines of a node's log.
pub(crate) fn last_lines(layout: &Layout, id: &NodeId, count: usize) -> Vec<String> {
    let mut tail = Vec::new();
    let read = fs::File::open(layout.log(id)).and_then(|mut log| {
        let end = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(end.saturating_sub(LOG_TAIL_BYTES)))?;
        log.take(LOG_TAIL_BYTES).read_to_end(&mut tail)
    });
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<_> = text.lines().map(String::from).collect();
    lines[lines.len().saturating_sub(count)..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        assert_eq!(state_letter("17 (odd) name) T 1 17"), Some('T'));
        assert_eq!(state_letter("nonsense"), None);
    }

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        let stat = |name: &str, state: &str, threads: u32| {
            format!("17 ({name}) {state} 1 17 17 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 99 0 0")
        };
        assert!(is_ending(&stat(DAEMON, "R", 5)), "its memory is gone");
        assert!(is_ending(&stat(DAEMON, "Z", 2)), "its first thread is gone");
        assert!(!is_ending(&stat(DAEMON, "Z", 1)), "only its exit code is left");
        assert!(!is_ending(&stat("other", "R", 5)));
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        let threads = fs::read_dir("/proc/self/task").unwrap().count();
        assert!(threads > 1 && fields(&own).nth(THREADS).unwrap().parse::<usize>().unwrap() > 1);
    }

    #[test]
    fn a_pid_alone_proves_nothing() {
        let own = std::process::id().to_string().parse().unwrap();
        assert_eq!(doing(own, Path::new("/no/such/config.toml")), None);
    }
}
