//! `anello fleet up FILE`: starts a fleet, says when each node is ready, watches it, stops it all.
//!
//! Nodes are watched by their pid files, so a node that `anello fleet start` brought back from another
//! terminal is watched, and stopped at the end, like those started here. A node that dies by itself is
//! reported and the fleet goes on. It ends when nobody reads what is said any more.

use std::{
    cell::Cell,
    fmt::Display,
    fs::File,
    future::pending,
    path::Path,
    time::{Duration, Instant},
};

use anello_protocol::id::NodeId;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Up,
    file::FleetFile,
    hints, home,
    layout::{BasePorts, Layout},
    ports, probe, process,
    signal::Signal,
    stop,
    watch::{Change, Watched},
};
use crate::{
    interrupt::Interrupts,
    outcome::{Failure, Outcome},
    output::{self, Palette, Tone},
};

/// How often the nodes are looked at.
const TICK: Duration = Duration::from_millis(100);
/// After that long without becoming ready, a node is reported.
const SLOW: Duration = Duration::from_secs(30);
/// How many lines of a dead node's log are shown.
const LAST_LINES: usize = 10;

/// Brings the fleet up and watches it until Ctrl-C.
pub(super) async fn run(up: Up) -> Result<Outcome, Failure> {
    let fleet = FleetFile::load(&up.file).map_err(Failure::usage)?;
    let ports = match (up.base_quic_port, up.base_http_port) {
        (Some(quic), Some(http)) => Some(BasePorts { quic, http }),
        _ => None,
    };
    let layout = Layout::plan(&home()?, &fleet, ports)?;
    let daemon = process::daemon()?;
    let _lock = lock(&layout)?;
    let ids: Vec<_> = layout.nodes().iter().map(|place| place.id().clone()).collect();
    stop::settle(&layout, &ids).await;
    // Until here Ctrl-C may simply end it.
    let mut interrupts = Interrupts::listen()?;
    ports::check(layout.nodes().iter().filter(|p| process::find(&layout, p.id()).is_none()))?;
    layout.write()?;

    let mut running = Running::new(layout, up.json);
    let watched = match running.start(&daemon) {
        Ok(()) => running.watch(&fleet, &mut interrupts).await,
        Err(failure) => Err(failure),
    };
    let stopped = running.stop(&mut interrupts).await;
    watched.and(stopped).map(|()| Outcome::Done)
}

/// Makes sure that one process watches the fleet: the lock goes with it, however it ends.
fn lock(layout: &Layout) -> Result<File, Failure> {
    let path = layout.run_dir().join("up.lock");
    let opened = std::fs::create_dir_all(layout.run_dir()).and_then(|()| File::create(&path));
    let file = opened.map_err(|error| {
        Failure::failed(format_args!("cannot write {}: {error}", path.display()))
    })?;
    file.try_lock().map_err(|_| {
        Failure::failed(format_args!(
            "fleet {} is up already, in another terminal: stop it there with Ctrl-C first",
            layout.name()
        ))
    })?;
    Ok(file)
}

/// A fleet that is up.
struct Running {
    layout: Layout,
    nodes: Vec<Watched>,
    palette: Palette,
    /// Whether a program reads what is said.
    json: bool,
    /// The longest name, so that lines are below each other.
    width: usize,
    /// Whether standard output is still open.
    is_read: Cell<bool>,
}

impl Running {
    fn new(layout: Layout, json: bool) -> Self {
        let nodes: Vec<_> = layout.nodes().iter().cloned().map(Watched::new).collect();
        let widths = nodes.iter().map(|node| node.place().id().as_str().len());
        let width = widths.max().unwrap_or(0);
        let (palette, is_read) = (Palette::of_stdout(), Cell::new(true));
        Self { layout, nodes, palette, json, width, is_read }
    }

    /// Starts all nodes that don't run, at once.
    fn start(&mut self, daemon: &Path) -> Result<(), Failure> {
        let (name, root) = (self.layout.name(), self.layout.root().display());
        let count = self.nodes.len();
        let nodes = if count == 1 { "node" } else { "nodes" };
        self.tell(
            format_args!("fleet {name}: {count} {nodes}, everything below {root}"),
            json!({ "fleet": name, "state": "starting", "nodes": count, "root": self.layout.root() }),
        )?;
        for node in &mut self.nodes {
            let id = node.place().id().clone();
            if process::find(&self.layout, &id).is_none() {
                let child = process::spawn(&self.layout, &id, daemon)?;
                let pid = process::pid_of(&child)?;
                node.started(child, pid, Instant::now());
            }
        }
        Ok(())
    }

    /// Says what becomes of the nodes until an interrupt.
    async fn watch(
        &mut self,
        fleet: &FleetFile,
        interrupts: &mut Interrupts,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settled = false;
        loop {
            tokio::select! {
                biased;
                () = interrupts.next() => return Ok(()),
                _ = ticks.tick() => self.look().await?,
            }
            if !settled && !self.nodes.iter().any(Watched::is_starting) {
                settled = true;
                tokio::select! {
                    done = self.settle(fleet, began.elapsed()) => done?,
                    () = interrupts.next() => return Ok(()),
                }
            }
            if !self.is_read.get() {
                return Ok(());
            }
        }
    }

    /// Says what happened, to a person or to a program.
    fn tell(&self, text: impl Display, document: Value) -> Result<(), Failure> {
        let is_read = if self.json { output::is_read(document) } else { output::is_read(text) };
        if !is_read? {
            self.is_read.set(false);
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Failure> {
        let mut changes = Vec::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            changes.extend(node.look(&self.layout, Instant::now()).map(|change| (at, change)));
        }
        let awaited = self.nodes.iter().enumerate().filter(|(_, node)| node.is_awaited());
        let words = awaited.map(|(at, node)| {
            let http = node.place().http;
            async move { (at, probe::readiness(http).await) }
        });
        for (at, word) in join_all(words).await {
            let change = self.nodes[at].heard(word, Instant::now(), SLOW);
            changes.extend(change.map(|change| (at, change)));
        }
        changes
            .into_iter()
            .try_for_each(|(at, change)| self.say(self.nodes[at].place().id(), &change))
    }

    fn say(&self, id: &NodeId, change: &Change) -> Result<(), Failure> {
        let place = self.layout.node(id);
        let last_lines = match change {
            Change::Died(_) => process::last_lines(&self.layout, id, LAST_LINES),
            _ => Vec::new(),
        };
        let (tone, text, document) = match change {
            Change::Ready(pid, took) => {
                let addresses =
                    place.map(|place| format!("quic {}  http {}", place.quic, place.http));
                let addresses = addresses.unwrap_or_default();
                let seconds = took.as_secs_f64();
                (
                    Tone::Good,
                    format!("ready in {seconds:.1} s  {addresses}  pid {pid}"),
                    json!({
                        "node": id,
                        "state": "ready",
                        "seconds": seconds,
                        "quic": place.map(|place| place.quic),
                        "http": place.map(|place| place.http),
                        "pid": pid.number(),
                    }),
                )
            }
            Change::Back(pid) => (
                Tone::Plain,
                format!("is running, pid {pid}"),
                json!({ "node": id, "state": "starting", "pid": pid.number() }),
            ),
            Change::Stopped => (
                Tone::Plain,
                "is down, as somebody wanted".into(),
                json!({ "node": id, "state": "stopped" }),
            ),
            Change::Slow(reason) => {
                let reason = reason.as_deref().unwrap_or("it does not answer");
                let log = self.layout.log(id);
                (
                    Tone::Warning,
                    format!("is still not ready: {reason}; its log: {}", log.display()),
                    json!({ "node": id, "state": "slow", "reason": reason, "log": log }),
                )
            }
            Change::Left => (
                Tone::Plain,
                "ended in order, by itself: it has left the cluster".to_owned(),
                json!({ "node": id, "state": "left" }),
            ),
            Change::Died(how) => {
                let how = how.as_deref().unwrap_or("nobody saw how");
                (
                    Tone::Bad,
                    format!("died by itself ({how}); `anello fleet start {id}` brings it back"),
                    json!({ "node": id, "state": "died", "reason": how, "last_lines": last_lines }),
                )
            }
        };
        let name = self.palette.paint(Tone::Strong, format!("{id:width$}", width = self.width));
        let mut text = format!("{name}  {}", self.palette.paint(tone, text));
        for line in &last_lines {
            text.push_str("\n    ");
            text.push_str(line);
        }
        self.tell(text, document)
    }

    /// Once every node is ready, or clearly won't be soon.
    async fn settle(&self, fleet: &FleetFile, took: Duration) -> Result<(), Failure> {
        let ready = self.nodes.iter().filter(|node| node.is_ready()).count();
        if !self.nodes.iter().any(Watched::is_up) {
            return Err(Failure::failed("no node came up: the lines above say why"));
        }
        let all = self.nodes.len();
        let seconds = took.as_secs_f64();
        let line = format!("{ready} of {all} nodes are ready after {seconds:.1} s");
        let tone = if ready == all { Tone::Good } else { Tone::Warning };
        let name = self.layout.name();
        self.tell(
            self.palette.paint(tone, line),
            json!({ "fleet": name, "state": "up", "ready": ready, "nodes": all, "seconds": seconds }),
        )?;
        super::keyspaces::apply(&self.layout, &fleet.keyspaces, |tone, text, document| {
            self.tell(self.palette.paint(tone, text), document)
        })
        .await?;
        if self.json { Ok(()) } else { self.tell(hints::what_to_try(&self.layout), Value::Null) }
    }

    /// Stops every node, whoever started it. A second interrupt cuts it short.
    async fn stop(&self, interrupts: &mut Interrupts) -> Result<(), Failure> {
        let ids: Vec<_> = self.layout.nodes().iter().map(|place| place.id().clone()).collect();
        if !stop::send(&self.layout, &ids, Signal::Terminate) {
            return Ok(());
        }
        // The nodes come first: what can't be printed does not keep them running.
        let name = self.layout.name();
        let stopping = json!({ "fleet": name, "state": "stopping" });
        let _ = self.tell("stopping; Ctrl-C again kills", stopping);
        let left = stop::wait(&self.layout, &ids, stop::PATIENCE, interrupts.next()).await;
        for id in &left {
            let killed = json!({ "node": id, "state": "killed" });
            let _ = self.tell(format_args!("{id} did not stop in time: killed"), killed);
        }
        stop::send(&self.layout, &left, Signal::Kill);
        let left = stop::wait(&self.layout, &left, stop::PATIENCE, pending()).await;
        for id in ids.iter().filter(|id| !left.contains(id)) {
            process::forget(&self.layout, id);
        }
        match left.first() {
            Some(id) => Err(Failure::failed(format_args!("{id} can't be killed"))),
            None => {
                let down = json!({ "fleet": name, "state": "down" });
                self.tell(format_args!("fleet {name} is down"), down)
            }
        }
    }
}
