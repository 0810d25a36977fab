//! `anello node drain ID`: waits until a node keeps nothing for others, so that nothing that only it has waits on
//! its disk while it is stopped.

use std::time::Duration;

use anello_protocol::{id::NodeId, message::admin::NodeStatus};
use clap::Args;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    connect::Cluster,
    outcome::{Failure, Outcome},
    output,
    progress::Progress,
};

/// How long it takes at most, unless it is told otherwise.
const TIME: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So often in a row there must be nothing: one look may fall between two hints.
const LOOKS: u32 = 2;

/// A node that is to be stopped for a while.
#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Its name
    id: NodeId,
    /// One JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// Waits for it.
pub(super) async fn run(drain: Drain) -> Result<Outcome, Failure> {
    let session = drain.cluster.connect_for(TIME).await?;
    let id = &drain.id;
    let state = session.answer(session.client().cluster_state()).await?;
    let member = state.members.get(id).ok_or_else(|| {
        Failure::failed(format_args!(
            "{id} is no member of the cluster; `anello status` shows who is"
        ))
    })?;
    let node = session.client().to_node(&member.quic);
    let mut progress = Progress::begin("hints", None, 0);
    let (mut empty, mut most) = (0, 0);
    let left = loop {
        let status = session.answer(node.status()).await?;
        let left = hints(&status);
        most = most.max(left);
        progress.of(most);
        progress.at(most - left, most - left);
        empty = if left == 0 { empty + 1 } else { 0 };
        if empty >= LOOKS || session.left() < 2 * LOOK_EVERY {
            break status;
        }
        sleep(LOOK_EVERY).await;
    };
    progress.end();
    session.close().await;
    let count = hints(&left);
    if drain.json {
        output::json(&json!({ "id": id, "drained": count == 0, "hints": left.hints }))?;
    } else if count == 0 {
        output::line(format_args!("{id} keeps nothing for others: it can be stopped"))?;
    }
    if count == 0 {
        return Ok(Outcome::Done);
    }
    let owners: Vec<_> =
        left.hints.iter().map(|(owner, hint)| format!("{} for {owner}", hint.count)).collect();
    let failure = Failure::failed(format_args!(
        "{id} still keeps {count} hints ({}); it can be stopped, and they stay on its disk until it is back \
         and those that they are for answer",
        owners.join(", ")
    ));
    Err(if drain.json { failure.documented() } else { failure })
}

fn hints(status: &NodeStatus) -> u64 {
    status.hints.values().map(|hint| hint.count).sum()
}
