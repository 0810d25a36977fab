//! The scrub: every tree is compared with its data once in a while, one after the other, evenly spread;
//! at once, if it can't be trusted or somebody asks for it. Between two of them the disk rests for as long
//! as the last one took. One that fails is tried again behind all others.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use anello_protocol::time::Moment;

use crate::{
    desk::{Desk, Owner},
    events::Report,
    looking::{Look, Looked},
    schedule::Held,
    units::Tree,
};

/// How long to wait after the store has failed.
const PAUSE: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    /// The last tree that was scrubbed in its turn.
    last: Option<Tree>,
    /// When the next one's turn is.
    next: Option<Moment>,
    /// The last tree of a pass over all of them, without pauses.
    pass: Option<Option<Tree>>,
    untrusted: BTreeSet<Tree>,
    /// Those that can't be trusted and whose scrub has failed, the last one last.
    failed: VecDeque<Tree>,
    running: Option<(Tree, Why, Moment)>,
    pause_until: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Turn,
    Pass,
    Untrusted,
}

impl Scrub {
    /// Somebody asks for all.
    pub(crate) fn all(&mut self) {
        self.pass = Some(None);
    }

    /// Forgets trees that are held no more.
    pub(crate) fn retain(&mut self, held: &Held) {
        self.untrusted.retain(|tree| held.contains(*tree));
        self.failed.retain(|tree| held.contains(*tree));
    }

    pub(crate) fn advance(&mut self, desk: &mut Desk, held: &Held) {
        self.untrusted.append(&mut desk.untrusted);
        self.untrusted.retain(|tree| !self.failed.contains(tree));
        let now = desk.now.moment;
        if self.next.is_none() && held.trees() > 0 {
            self.next = Some(now + desk.jitter(pause(desk, held)));
        }
        if self.running.is_some() || self.pause_until.is_some_and(|until| until > now) {
            return;
        }
        self.pause_until = None;
        let Some((tree, why)) = self.choose(desk, held) else { return };
        let (keyspace, partition) = tree;
        desk.look(Owner::Scrub, Look::Scrub { keyspace, partition });
        self.running = Some((tree, why, now));
    }

    fn choose(&mut self, desk: &Desk, held: &Held) -> Option<(Tree, Why)> {
        if let Some(tree) = self.untrusted.first() {
            return Some((*tree, Why::Untrusted));
        }
        if let Some(last) = self.pass {
            match held.after(last) {
                Some(tree) => return Some((tree, Why::Pass)),
                None => self.pass = None,
            }
        }
        let is_due = self.next.is_some_and(|next| next <= desk.now.moment);
        let next = held.after(self.last).or_else(|| held.after(None)).filter(|_| is_due);
        let failed = || self.failed.front().map(|tree| (*tree, Why::Untrusted));
        next.map(|tree| (tree, Why::Turn)).or_else(failed)
    }

    /// A scrub has ended: says which tree was found to be other than what was shown of it.
    pub(crate) fn looked(&mut self, desk: &mut Desk, held: &Held, looked: Looked) -> Option<Tree> {
        let (tree, why, since) = self.running.take()?;
        let now = desk.now.moment;
        match why {
            Why::Turn => {
                self.last = Some(tree);
                self.next = Some(now + pause(desk, held));
            }
            Why::Pass if self.pass.is_some() => self.pass = Some(Some(tree)),
            Why::Pass | Why::Untrusted => {}
        }
        let was_untrusted = self.untrusted.remove(&tree) | self.failed.contains(&tree);
        self.failed.retain(|failed| *failed != tree);
        match looked {
            Looked::Scrubbed(scrubbed) => {
                let took = now.since(since);
                self.pause_until = (!took.is_zero()).then(|| now + took);
                desk.counts.trees_scrubbed += 1;
                desk.counts.leaves_mended += u64::from(scrubbed.mended);
                if scrubbed.mended > 0 {
                    let (keyspace, partition) = tree;
                    let leaves = scrubbed.mended;
                    desk.report(Report::Mended { keyspace, partition, leaves });
                }
                (scrubbed.mended > 0 || why == Why::Untrusted).then_some(tree)
            }
            other => {
                if let Looked::Failed(sentence) = other {
                    desk.report(Report::StoreFailed(sentence));
                }
                self.failed.extend(was_untrusted.then_some(tree));
                self.pause_until = Some(now + PAUSE);
                None
            }
        }
    }

    pub(crate) fn due(&self) -> Option<Moment> {
        if self.running.is_some() {
            return None;
        }
        self.pause_until.or(self.next)
    }
}

/// From one tree's turn to the next one's.
fn pause(desk: &Desk, held: &Held) -> Duration {
    let trees = u32::try_from(held.trees()).unwrap_or(u32::MAX).max(1);
    desk.config.scrub / trees
}
