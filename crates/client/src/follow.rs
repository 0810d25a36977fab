//! Learning the ring, and following its changes.
//!
//! The first state comes from whichever seed answers first. Then a task asks a node for anything newer
//! every few seconds, and at once when an operation failed in a way that a change could explain. It
//! ends with the last clone of the client.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use anello_protocol::{cluster::ClusterState, id::Epoch, message::admin::FetchCluster};
use anello_transport::{CallContext, CallError};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    error::{Error, ErrorKind},
    fleet::{About, Fleet},
    operation::Operation,
    routing::Target,
};

/// How often the ring is asked for when nothing hints at a change.
const INTERVAL: Duration = Duration::from_secs(5);
/// Hints that come faster than this are taken together.
const LEAST_INTERVAL: Duration = Duration::from_millis(250);
/// How long one question for the ring may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most time that a first connection is waited for.
const SETTLE: Duration = Duration::from_millis(250);
/// The head start of each seed before the next one is asked as well.
const STAGGER: Duration = Duration::from_millis(150);

/// Learns the first state: asks the seeds, each a little after the other, until one answers; again and
/// again until the deadline.
pub(crate) async fn learn(fleet: &Arc<Fleet>, deadline: Instant) -> Result<(), Error> {
    let mut last = NoRing { refused: false, why: "the seeds have not answered yet".into() };
    while Instant::now() < deadline && !last.refused {
        let pause = Instant::now() + LEAST_INTERVAL;
        match timeout_at(deadline, ask_seeds(fleet)).await {
            Ok(Ok(state)) => return adopt(fleet, state).await,
            Ok(Err(none)) => last = none,
            Err(_) => break,
        }
        if !last.refused {
            sleep_until(pause.min(deadline)).await;
        }
    }
    let seeds: Vec<_> = fleet.seeds().iter().map(Target::to_string).collect();
    let why = format!("no seed of {} could tell the ring: {}", seeds.join(", "), last.why);
    let kind = if last.refused { ErrorKind::Refused } else { ErrorKind::Unreachable };
    Err(Error::clean(kind(why)))
}

/// Why a round of questions did not bring the ring.
struct NoRing {
    /// All seeds refused to talk to this client: to ask again won't help.
    refused: bool,
    /// The last reason.
    why: String,
}

/// Waits a moment for the first connection to a near member, so that the first operation doesn't have
/// to guess which of them are alive.
pub(crate) async fn settle(fleet: &Arc<Fleet>) {
    let deadline = Instant::now() + SETTLE;
    while !fleet.is_settled() && Instant::now() < deadline {
        sleep(SETTLE / 50).await;
    }
}

/// One round: the first answer, or the last reason why there is none.
async fn ask_seeds(fleet: &Arc<Fleet>) -> Result<ClusterState, NoRing> {
    let mut asked = JoinSet::new();
    for (at, seed) in fleet.seeds().iter().cloned().enumerate() {
        let fleet = fleet.clone();
        asked.spawn(async move {
            sleep(STAGGER.saturating_mul(at as u32)).await;
            let context = CallContext::within(PATIENCE);
            let answer = fleet.call(0, &seed, FetchCluster { have: Epoch(0) }, context).await;
            let refused = matches!(answer, Err(CallError::Refused(_)));
            match answer {
                Ok(Some(state)) => Ok(state),
                Ok(None) => Err(NoRing { refused, why: format!("{seed} is in no cluster yet") }),
                Err(error) => Err(NoRing { refused, why: format!("{seed}: {error}") }),
            }
        });
    }
    let mut none = NoRing { refused: true, why: "there are no seeds".into() };
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(state)) => return Ok(state),
            Ok(Err(other)) => none = NoRing { refused: none.refused && other.refused, ..other },
            Err(error) => none = NoRing { refused: false, why: error.to_string() },
        }
    }
    Err(none)
}

/// Follows the ring for as long as there is a client.
pub(crate) async fn follow(fleet: Weak<Fleet>) {
    let Some(hints) = fleet.upgrade().map(|fleet| fleet.hints.clone()) else { return };
    loop {
        let asked = Instant::now();
        // Clients that started together don't go on asking together.
        let interval = INTERVAL.mul_f64(0.75 + rand::random::<f64>() / 2.0);
        tokio::select! {
            () = sleep(interval) => {}
            () = hints.notified() => sleep_until(asked + LEAST_INTERVAL).await,
        }
        let Some(fleet) = fleet.upgrade() else { return };
        if let Err(error) = refresh(&fleet).await {
            tracing::debug!(%error, "the ring could not be asked for");
        }
        fleet.tidy();
    }
}

/// Asks for anything newer than what is known.
pub(crate) async fn refresh(fleet: &Arc<Fleet>) -> Result<(), Error> {
    if fleet.view().is_none() {
        return learn(fleet, Instant::now() + PATIENCE).await;
    }
    let operation = Operation {
        fleet,
        about: About::Anything,
        pin: None,
        writes: false,
        repeatable: true,
        timeout: PATIENCE,
        attempt_timeout: PATIENCE / 2,
        trace: None,
    };
    match operation.run(|_| FetchCluster { have: fleet.epoch() }).await? {
        Some(newer) => adopt(fleet, newer).await,
        None => Ok(()),
    }
}

/// Takes a state over, off the runtime: the ring of a large cluster takes a while to work out.
async fn adopt(fleet: &Arc<Fleet>, state: ClusterState) -> Result<(), Error> {
    let fleet = fleet.clone();
    let adopted = spawn_blocking(move || fleet.adopt(state)).await;
    let unusable =
        |why: String| Error::clean(ErrorKind::Refused(format!("the cluster has no ring: {why}")));
    match adopted {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(unusable(error.to_string())),
        Err(error) => Err(unusable(error.to_string())),
    }
}
