//! `anello repair`: all replicas compare what they hold, and mend what differs.
//!
//! They do so by themselves, all the time; this has them begin a round at once, and with `--wait` shows
//! how far it is. A node that restarts while it is waited for begins again to count its rounds, and
//! counts as one that could not be waited for.

use std::time::Duration;

use anello_client::Client;
use anello_protocol::{
    id::NodeId,
    message::admin::{NodeStatus, RepairStatus},
};
use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    connect::{Cluster, Level, Session},
    outcome::{Failure, Outcome},
    output,
    progress::Progress,
};

/// Between two looks at how far the nodes are.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A node that doesn't say for so many looks how far it is isn't waited for any longer.
const SILENT_LOOKS: u32 = 40;

/// Have all replicas compare what they hold, now, and mend what differs
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Wait until all nodes are done
    #[arg(long)]
    wait: bool,
    /// One JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// A node that compares.
struct Round {
    id: NodeId,
    client: Client,
    round: u64,
    before: RepairStatus,
    latest: RepairStatus,
    silent_looks: u32,
}

impl Round {
    fn is_over(&self) -> bool {
        self.latest.rounds >= self.round
    }

    fn is_lost(&self) -> bool {
        self.silent_looks >= SILENT_LOOKS || self.latest.rounds < self.before.rounds
    }

    fn parts(&self) -> (u64, u64) {
        let (all, done) = self.latest.round_parts;
        if self.is_over() { (all.into(), all.into()) } else { (all.into(), done.into()) }
    }

    fn repaired(&self) -> u64 {
        self.latest.keys_repaired.saturating_sub(self.before.keys_repaired)
    }

    fn sent(&self) -> u64 {
        self.latest.bytes_sent.saturating_sub(self.before.bytes_sent)
    }
}

/// Begins a round on every node that can be reached.
pub(crate) async fn run(command: Repair) -> Result<Outcome, Failure> {
    let session = command.cluster.connect(&Level::default()).await?;
    let view = session.answer(session.client().cluster()).await?;
    let (there, away): (Vec<_>, Vec<_>) = view.nodes.iter().partition(|node| node.reachable);
    let begun = there.iter().map(|node| begin(&session, node.id.clone(), &node.quic));
    let begun = join_all(begun).await;
    let mut rounds = Vec::new();
    let mut failed: Vec<String> = away.iter().map(|node| format!("{}: away", node.id)).collect();
    for begun in begun {
        match begun {
            Ok(round) => rounds.push(round),
            Err(reason) => failed.push(reason),
        }
    }
    if command.wait {
        wait(&mut rounds).await;
        failed.extend(rounds.iter().filter(|round| !round.is_over()).map(|round| {
            format!("{}: can't be waited for any longer; it goes on by itself", round.id)
        }));
    }
    session.close().await;
    report(&command, &rounds, &failed)
}

async fn begin(session: &Session, id: NodeId, quic: &str) -> Result<Round, String> {
    let client = session.client().to_node(quic);
    let begun = async {
        let NodeStatus { repair: before, .. } = client.status().await?;
        Ok((before, client.repair().await?.round))
    };
    match session.answer(begun).await {
        Ok((before, round)) => {
            let latest = before.clone();
            Ok(Round { id, client: client.clone(), round, before, latest, silent_looks: 0 })
        }
        Err(failure) => Err(format!("{id}: {failure}")),
    }
}

async fn wait(rounds: &mut [Round]) {
    let mut progress = Progress::begin("repair", None, 0);
    loop {
        join_all(rounds.iter_mut().filter(|round| !round.is_over()).map(look)).await;
        let (all, done) = rounds
            .iter()
            .map(Round::parts)
            .fold((0, 0), |(all, done), (more, of)| (all + more, done + of));
        progress.of(all);
        progress.at(done, done);
        if rounds.iter().all(|round| round.is_over() || round.is_lost()) {
            return progress.end();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(round: &mut Round) {
    match round.client.status().await {
        Ok(status) => {
            round.silent_looks = 0;
            round.latest = status.repair;
        }
        // It may be restarting; what can't be said in time is said in the end.
        Err(_) => round.silent_looks += 1,
    }
}

fn report(command: &Repair, rounds: &[Round], failed: &[String]) -> Result<Outcome, Failure> {
    if command.json {
        output::json(&document(command, rounds, failed))?;
    } else if command.wait {
        let repaired: u64 = rounds.iter().map(Round::repaired).sum();
        let sent: u64 = rounds.iter().map(Round::sent).sum();
        output::line(format_args!(
            "{} nodes have compared what they hold: {repaired} keys repaired, {} sent",
            rounds.iter().filter(|round| round.is_over()).count(),
            output::bytes_for_people(sent)
        ))?;
    } else {
        output::line(format_args!(
            "{} nodes compare what they hold with the other replicas; `anello status` shows how far they are",
            rounds.len()
        ))?;
    }
    match failed {
        [] => Ok(Outcome::Done),
        _ => {
            let failure = Failure::failed(failed.join("; "));
            Err(if command.json { failure.documented() } else { failure })
        }
    }
}

fn document(command: &Repair, rounds: &[Round], failed: &[String]) -> Value {
    let nodes = rounds.iter().map(|round| {
        let mut shown = json!({ "id": round.id, "round": round.round });
        if command.wait {
            shown["done"] = round.is_over().into();
            shown["keys_repaired"] = round.repaired().into();
            shown["bytes_sent"] = round.sent().into();
        }
        shown
    });
    json!({ "nodes": nodes.collect::<Vec<_>>(), "failed": failed })
}
