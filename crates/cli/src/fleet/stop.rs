//! Ending nodes in order: asking them, waiting, and who did not listen.

use std::{
    future::{Future, pending},
    time::{Duration, Instant},
};

use anello_protocol::id::NodeId;
use tokio::time::sleep;

use super::{layout::Layout, process, signal::Signal};

/// How long a node may take to end in order: longer than it gives its requests.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether it has.
const TICK: Duration = Duration::from_millis(50);

/// Sends a signal to those of the nodes that run; whether there is any.
pub(super) fn send(layout: &Layout, nodes: &[NodeId], signal: Signal) -> bool {
    let mut any = false;
    for id in nodes {
        if let Some((pid, doing)) = process::find(layout, id) {
            any |= pid.send(signal);
            if doing == process::Doing::Paused && signal == Signal::Terminate {
                // A process that stands still can't end in order.
                pid.send(Signal::Resume);
            }
        }
    }
    any
}

/// Waits for those of the nodes that are ending, so that what they had is free.
pub(super) async fn settle(layout: &Layout, nodes: &[NodeId]) {
    let ends = |id: &&NodeId| {
        process::find(layout, id).is_some_and(|(_, doing)| doing == process::Doing::Ends)
    };
    let ending: Vec<_> = nodes.iter().filter(ends).cloned().collect();
    wait(layout, &ending, PATIENCE, pending()).await;
}

/// Waits until the nodes have no process, or until patience or `enough` ends; who still runs then.
pub(super) async fn wait(
    layout: &Layout,
    nodes: &[NodeId],
    patience: Duration,
    enough: impl Future<Output = ()>,
) -> Vec<NodeId> {
    let until = Instant::now() + patience;
    let mut enough = std::pin::pin!(enough);
    loop {
        let runs = |id: &&NodeId| process::find(layout, id).is_some();
        let left: Vec<_> = nodes.iter().filter(runs).cloned().collect();
        if left.is_empty() || Instant::now() >= until {
            return left;
        }
        tokio::select! {
            () = sleep(TICK) => {}
            () = &mut enough => return left,
        }
    }
}
