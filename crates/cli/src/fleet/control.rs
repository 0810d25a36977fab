//! `anello fleet stop|start|kill|pause|resume|ls`: reaches into a fleet from another terminal.

use std::{
    fmt::Display,
    future::pending,
    time::{Duration, Instant},
};

use anello_protocol::id::NodeId;
use futures_util::future::{join_all, try_join_all};
use serde::Serialize;
use serde_json::json;
use tokio::time::sleep;

use super::{
    Which, home,
    layout::{Layout, Place},
    ports,
    probe::{Readiness, readiness},
    process::{self, Doing},
    signal::{Pid, Signal},
    stop,
};
use crate::{
    outcome::{Failure, Outcome},
    output::{self, Palette, Tone},
    table::{Align, Cell, Table},
};

/// How long a node that is started may take to serve before the command gives up waiting.
const START_PATIENCE: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(50);
/// How many lines of a dead node's log are shown.
const LAST_LINES: usize = 10;

/// What to do to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// End it in order.
    Stop,
    /// Bring it back.
    Start,
    /// End it at once.
    Kill,
    /// Freeze it.
    Pause,
    /// Let it go on.
    Resume,
}

/// Does it to some nodes of a fleet.
pub(super) async fn act(which: Which, action: Action) -> Result<Outcome, Failure> {
    let layout = choose(&which, Layout::all(&home()?)?)?;
    let json = which.json;
    let ids: Vec<_> = if which.all {
        let all = layout.nodes().iter().map(|place| place.id().clone());
        all.filter(|id| is_meant(&layout, id, action)).collect()
    } else {
        which.nodes
    };
    match action {
        Action::Start => start(&layout, &ids, json).await?,
        Action::Stop => end(&layout, &ids, Signal::Terminate, json).await?,
        Action::Kill => end(&layout, &ids, Signal::Kill, json).await?,
        Action::Pause => send(&layout, &ids, Signal::Pause, json)?,
        Action::Resume => send(&layout, &ids, Signal::Resume, json)?,
    }
    if json {
        output::json(&json!({ "fleet": layout.name(), "action": action, "nodes": ids }))?;
    }
    Ok(Outcome::Done)
}

/// Whether "all nodes" means this one too: not those that are as asked already.
fn is_meant(layout: &Layout, id: &NodeId, action: Action) -> bool {
    match process::find(layout, id) {
        None => action == Action::Start,
        // It can't be told anything, but its end can be waited for.
        Some((_, Doing::Ends)) => !matches!(action, Action::Pause | Action::Resume),
        Some(_) => action != Action::Start,
    }
}

/// The fleet that is meant: the only one that has such nodes, or the one named.
fn choose(which: &Which, fleets: Vec<Layout>) -> Result<Layout, Failure> {
    let has = |layout: &Layout| which.nodes.iter().all(|id| layout.node(id).is_some());
    let named = |layout: &Layout| which.fleet.as_ref().is_none_or(|name| name == layout.name());
    let known: Vec<_> = fleets.iter().map(|layout| layout.name().to_string()).collect();
    let unknown = which.fleet.as_ref().filter(|name| !known.iter().any(|k| k == name.as_str()));
    let mut found: Vec<_> = fleets.into_iter().filter(|l| named(l) && has(l)).collect();
    if found.len() > 1 {
        let runs = |layout: &Layout| {
            layout.nodes().iter().any(|place| process::find(layout, place.id()).is_some())
        };
        let running: Vec<_> = found.iter().filter(|layout| runs(layout)).cloned().collect();
        if running.len() == 1 {
            found = running;
        }
    }
    match (found.len(), found.pop()) {
        (1, Some(layout)) => Ok(layout),
        (0, _) if known.is_empty() => Err(Failure::failed(
            "there is no fleet in this directory: start one with `anello fleet up FILE`, or go where it is",
        )),
        (0, _) if let Some(name) = unknown => Err(Failure::failed(format_args!(
            "there is no fleet {name} in this directory: --fleet is one of {}",
            known.join(", ")
        ))),
        (0, _) => Err(Failure::failed(format_args!(
            "no fleet of this directory ({}) has such nodes: `anello fleet ls` shows them",
            known.join(", ")
        ))),
        _ => Err(Failure::usage(format_args!(
            "more than one fleet has such nodes: name it with --fleet, one of {}",
            known.join(", ")
        ))),
    }
}

fn running(layout: &Layout, id: &NodeId) -> Result<(Pid, Doing), Failure> {
    process::find(layout, id).ok_or_else(|| {
        Failure::failed(format_args!("{id} does not run: start it with `anello fleet start {id}`"))
    })
}

async fn end(layout: &Layout, ids: &[NodeId], signal: Signal, json: bool) -> Result<(), Failure> {
    for id in ids {
        running(layout, id)?;
    }
    for id in ids {
        process::wanted_down(layout, id, true)?;
    }
    stop::send(layout, ids, signal);
    let left = stop::wait(layout, ids, stop::PATIENCE, pending()).await;
    let done = if signal == Signal::Kill { "killed" } else { "stopped" };
    for id in ids.iter().filter(|id| !left.contains(id)) {
        say(json, format_args!("{id} {done}"))?;
    }
    let patience = stop::PATIENCE.as_secs();
    match left.first() {
        Some(id) if signal == Signal::Kill => {
            Err(Failure::failed(format_args!("{id} was killed and has not ended in {patience} s")))
        }
        Some(id) => Err(Failure::failed(format_args!(
            "{id} did not stop within {patience} s: `anello fleet kill {id}` ends it at once"
        ))),
        None => Ok(()),
    }
}

/// Says it to a person; a program gets a document at the end.
fn say(json: bool, text: impl Display) -> Result<(), Failure> {
    if json { Ok(()) } else { output::line(text) }
}

fn send(layout: &Layout, ids: &[NodeId], signal: Signal, json: bool) -> Result<(), Failure> {
    let done = if signal == Signal::Pause { "paused" } else { "goes on" };
    for id in ids {
        running(layout, id)?;
    }
    for id in ids {
        running(layout, id)?.0.send(signal);
        say(json, format_args!("{id} {done}"))?;
    }
    Ok(())
}

async fn start(layout: &Layout, ids: &[NodeId], json: bool) -> Result<(), Failure> {
    let daemon = process::daemon()?;
    stop::settle(layout, ids).await;
    let mut places = Vec::new();
    for id in ids {
        if let Some((pid, doing)) = process::find(layout, id) {
            let advice = match doing {
                Doing::Runs => String::new(),
                Doing::Paused => format!(" and is paused: `anello fleet resume {id}`"),
                Doing::Ends => " and does not end".into(),
            };
            return Err(Failure::failed(format_args!("{id} runs already, pid {pid}{advice}")));
        }
        places.extend(layout.node(id));
    }
    ports::check(places.iter().copied())?;
    let mut started = Vec::new();
    for place in places {
        let child = process::spawn(layout, place.id(), &daemon)?;
        started.push(await_ready(layout, place, child, Instant::now(), json));
    }
    try_join_all(started).await.map(drop)
}

async fn await_ready(
    layout: &Layout,
    place: &Place,
    mut child: std::process::Child,
    since: Instant,
    json: bool,
) -> Result<(), Failure> {
    let id = place.id();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            for line in process::last_lines(layout, id, LAST_LINES) {
                output::note(format_args!("    {line}"));
            }
            return Err(Failure::failed(format_args!(
                "{id} died at its start ({status}); its log: {}",
                layout.log(id).display()
            )));
        }
        let word = readiness(place.http).await;
        let took = since.elapsed();
        if word == Readiness::Ready {
            let (quic, http, pid) = (place.quic, place.http, child.id());
            let seconds = took.as_secs_f64();
            return say(
                json,
                format_args!("{id} ready in {seconds:.1} s  quic {quic}  http {http}  pid {pid}"),
            );
        }
        if took >= START_PATIENCE {
            let reason = match word {
                Readiness::NotYet(reason) => reason,
                _ => "it does not answer".into(),
            };
            return Err(Failure::failed(format_args!(
                "{id} runs and is not ready after {} s: {reason}; its log: {}",
                took.as_secs(),
                layout.log(id).display()
            )));
        }
        sleep(TICK).await;
    }
}

/// What a node is doing, as `fleet ls` says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Listed<'a> {
    fleet: &'a str,
    #[serde(flatten)]
    place: &'a Place,
    pid: Option<i32>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ready,
    Starting,
    Silent,
    Paused,
    Stopped,
    Died,
}

impl State {
    fn shown(self) -> (Tone, &'static str) {
        match self {
            State::Ready => (Tone::Good, "ready"),
            State::Starting => (Tone::Warning, "not ready"),
            State::Silent => (Tone::Warning, "silent"),
            State::Paused => (Tone::Warning, "paused"),
            State::Stopped => (Tone::Faint, "down"),
            State::Died => (Tone::Bad, "died"),
        }
    }
}

/// Lists the fleets of the working directory.
pub(super) async fn list(json: bool) -> Result<Outcome, Failure> {
    let fleets = Layout::all(&home()?)?;
    let nodes = fleets.iter().flat_map(|layout| layout.nodes().iter().map(move |p| (layout, p)));
    let listed = join_all(nodes.map(|(layout, place)| describe(layout, place))).await;
    if json {
        output::json(&listed)?;
        return Ok(Outcome::Done);
    }
    if listed.is_empty() {
        output::line("there is no fleet in this directory: start one with `anello fleet up FILE`")?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&[
        ("fleet", Align::Left),
        ("node", Align::Left),
        ("state", Align::Left),
        ("pid", Align::Right),
        ("quic", Align::Left),
        ("http", Align::Left),
    ]);
    for node in &listed {
        let (tone, state) = node.state.shown();
        table.row([
            node.fleet.into(),
            node.place.id().into(),
            Cell::toned(tone, state),
            node.pid.map(|pid| pid.to_string()).unwrap_or_default().into(),
            node.place.quic.into(),
            node.place.http.into(),
        ]);
    }
    output::line(table.render(Palette::of_stdout()))?;
    Ok(Outcome::Done)
}

async fn describe<'a>(layout: &'a Layout, place: &'a Place) -> Listed<'a> {
    let found = process::find(layout, place.id());
    let state = match found {
        None | Some((_, Doing::Ends)) if process::is_wanted_down(layout, place.id()) => {
            State::Stopped
        }
        None | Some((_, Doing::Ends)) if process::was_started(layout, place.id()) => State::Died,
        None | Some((_, Doing::Ends)) => State::Stopped,
        Some((_, Doing::Paused)) => State::Paused,
        Some((_, Doing::Runs)) => match readiness(place.http).await {
            Readiness::Ready => State::Ready,
            Readiness::NotYet(_) => State::Starting,
            Readiness::Silent => State::Silent,
        },
    };
    let pid = found.map(|(pid, _)| pid.number());
    Listed { fleet: layout.name().as_str(), place, pid, state }
}
