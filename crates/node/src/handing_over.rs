//! What the node tells the members while the ring changes: which partitions it is through with, and how many
//! hints it still keeps for others. And how fast it is filled meanwhile, for people.
//!
//! A node that leaves may go once it keeps no hints. So its membership hears how many those are before it hears
//! of any partition that the node is through with: with a count of an earlier moment it might let the node
//! go while the only copy of a write is among them.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use actix::{Actor, Addr, Context, Handler};
use anello_antientropy::{
    HandoverFigures,
    actor::{self as merkle, AskFigures},
};
use anello_gossip::{GossipActor, HandedOver, HintsLeft};
use anello_protocol::id::Epoch;
use anello_replica::hints::DescribeHints;
use anello_ring::view::View;
use tokio::{
    sync::{mpsc, watch},
    time::interval,
};

use crate::steward::StewardFigures;

/// How often the hints are counted, and the pace is taken while the ring changes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The most words that are passed on with one count of the hints.
const BATCH: usize = 4096;
/// Over so many looks the pace is taken.
const LOOKS: usize = 20;

/// Takes anti-entropy's words to whoever runs [`report`], on another thread. They are bounded by the partitions:
/// each of them leaves a phase once.
pub(crate) struct Words(pub(crate) mpsc::UnboundedSender<merkle::HandedOver>);

impl Actor for Words {
    type Context = Context<Self>;
}

impl Handler<merkle::HandedOver> for Words {
    type Result = ();

    fn handle(&mut self, word: merkle::HandedOver, _: &mut Self::Context) {
        // Without its receiver the node ends.
        let _ = self.0.send(word);
    }
}

/// Tells membership, until the steward has ended.
pub(crate) async fn report(
    mut words: mpsc::UnboundedReceiver<merkle::HandedOver>,
    figures: StewardFigures,
    gossip: Addr<GossipActor>,
    views: watch::Receiver<Option<Arc<View>>>,
) {
    let mut looks = interval(LOOK_EVERY);
    let mut batch = Vec::new();
    let mut told = None;
    loop {
        tokio::select! {
            count = words.recv_many(&mut batch, BATCH) => if count == 0 { return },
            _ = looks.tick() => {
                let changes = |view: &Arc<View>| view.cluster().change.is_some();
                let is_changing = views.borrow().as_ref().is_some_and(changes);
                take_pace(&figures, is_changing).await;
            }
        }
        let Ok(hints) = figures.hints.send(DescribeHints).await else { return };
        let count = hints.owners.values().map(|owner| owner.count).sum();
        if told.replace(count) != Some(count) {
            gossip.do_send(HintsLeft(count));
        }
        for merkle::HandedOver { change, partition, phase, .. } in batch.drain(..) {
            gossip.do_send(HandedOver { change, partition, phase });
        }
    }
}

async fn take_pace(figures: &StewardFigures, is_changing: bool) {
    let handover = match is_changing {
        true => figures.merkle.send(AskFigures).await.ok().and_then(|figures| figures.handover),
        false => None,
    };
    let mut pace = figures.pace.lock().unwrap_or_else(PoisonError::into_inner);
    pace.look(Instant::now(), handover.as_ref());
}

/// How fast a node is filled.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    change: Epoch,
    /// When it was looked, how many bytes had been fetched and how many trees were left to be filled.
    looks: VecDeque<(Instant, u64, u64)>,
}

impl Pace {
    fn look(&mut self, now: Instant, handover: Option<&HandoverFigures>) {
        let Some(handover) = handover else { return *self = Self::default() };
        if handover.change != self.change {
            *self = Self { change: handover.change, ..Self::default() };
        }
        let trees = match handover.filling {
            0 => 0,
            _ => handover.awaited.values().map(|awaited| awaited.trees).sum(),
        };
        self.looks.push_back((now, handover.bytes_fetched, trees));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
    }

    /// How many bytes were fetched a second of late.
    pub(crate) fn bytes_per_s(&self) -> u64 {
        let (Some((from, before, _)), Some((to, after, _))) =
            (self.looks.front(), self.looks.back())
        else {
            return 0;
        };
        let seconds = to.duration_since(*from).as_secs_f64();
        if seconds == 0.0 { 0 } else { (after.saturating_sub(*before) as f64 / seconds) as u64 }
    }

    /// How long it takes until the node is filled, if it goes on as it did of late.
    pub(crate) fn left(&self) -> Option<Duration> {
        let ((from, _, before), (to, _, left)) = (self.looks.front()?, self.looks.back()?);
        let done = before.checked_sub(*left).filter(|done| *done > 0 && *left > 0)?;
        let each = to.duration_since(*from).as_secs_f64() / done as f64;
        Duration::try_from_secs_f64(each * *left as f64).ok()
    }
}

#[cfg(test)]
mod tests {
    use anello_antientropy::Awaited;

    use super::*;

    fn figures(filling: u64, trees: u64, bytes_fetched: u64) -> HandoverFigures {
        let awaited = Awaited { trees, obstacle: None };
        HandoverFigures {
            change: Epoch(5),
            filling,
            awaited: [("eu-a-1".parse().unwrap(), awaited)].into(),
            bytes_fetched,
            ..HandoverFigures::default()
        }
    }

    #[test]
    fn the_pace_is_that_of_the_last_looks() {
        let (begin, mut pace) = (Instant::now(), Pace::default());
        assert_eq!((pace.bytes_per_s(), pace.left()), (0, None));
        for second in 0..60 {
            let now = begin + Duration::from_secs(second);
            // It was slow at first.
            let fetched = if second < 30 { 0 } else { (second - 30) * 1000 };
            pace.look(now, Some(&figures(9, 100 - second, fetched)));
        }
        assert_eq!(pace.bytes_per_s(), 1000);
        assert_eq!(pace.left(), Some(Duration::from_secs(41)));
        pace.look(begin, Some(&figures(0, 80, 29_000)));
        assert_eq!(pace.left(), None, "it is filled");
        pace.look(begin, None);
        assert_eq!(pace.bytes_per_s(), 0);
    }
}
