//! Requests that look at what is kept of a key for all of its owners: reading it, and checking whether
//! there is anything.
//!
//! Only owners for whom something is kept, or under way, are looked at; most often there is none, and the
//! answer is at hand.

use std::{collections::BTreeSet, sync::Arc};

use anello_protocol::{
    message::replica::{Held, Refusal, Want},
    time::Now,
    version::{ConflictRule, Versions},
};

use super::{
    events::{Effect, Reply, Request, Token},
    keeping::Place,
    machine::HintStore,
    open::{KeyState, Look, Task, Waiting},
    store::Hint,
};

/// A request that looks, and what it has seen.
#[derive(Debug)]
pub(super) struct Gathering {
    token: Token,
    what: What,
    /// How many places have not been looked at.
    left: usize,
    refusal: Option<Refusal>,
    /// What it counts for towards the bounds.
    requests: usize,
    bytes: usize,
}

#[derive(Debug)]
enum What {
    Read { want: Want, rule: ConflictRule, joined: Versions },
    Check { found: Vec<bool> },
}

impl HintStore {
    pub(super) fn gather(&mut self, now: Now, token: Token, request: Request) {
        let bytes = request.weight();
        let (what, places) = match &request {
            Request::Read(read) => {
                let keyspace = self.view.as_ref().and_then(|it| it.keyspace_of(read.key.keyspace));
                let rule = keyspace.map(|keyspace| keyspace.config.conflict).unwrap_or_default();
                let owners = self.owners.keys().map(|owner| (owner.clone(), read.key.clone()));
                let places = owners.filter(|place| self.may_be_kept(place));
                let places: Vec<(Place, usize)> = places.map(|place| (place, 0)).collect();
                (What::Read { want: read.want, rule, joined: Versions::new() }, places)
            }
            Request::Check(check) => {
                // What is on its way counts even if the hint itself is gone: it may arrive yet.
                let runs = self.owners.values().flat_map(|owner| owner.run.in_flight.values());
                let flying: BTreeSet<_> = runs.map(|sent| &sent.key).collect();
                let is_under_way = |key| {
                    flying.contains(key)
                        || self.delivery.is_lurking(now.moment, key)
                        || self.owners.keys().any(|owner| {
                            self.keys.get(&(owner.clone(), key.clone())).is_some_and(is_being_kept)
                        })
                };
                let found: Vec<_> = check.keys.iter().map(is_under_way).collect();
                let open = found.iter().zip(&check.keys).enumerate().filter(|(_, (it, _))| !**it);
                let places = open.flat_map(|(at, (_, key))| {
                    let owners = self.owners.keys().map(|owner| (owner.clone(), key.clone()));
                    owners.filter(|place| self.may_be_kept(place)).map(move |place| (place, at))
                });
                let places = places.collect();
                (What::Check { found }, places)
            }
            Request::Store(_) | Request::Mint(_) | Request::Credit(..) => return,
        };
        let requests = places.len();
        if requests > 0 && !self.has_room(requests, bytes) {
            return self.effects.push_back(Effect::Reply(token, request.refused(Refusal::Busy)));
        }
        let bytes = if requests > 0 { bytes } else { 0 };
        self.load.requests += requests;
        self.load.bytes += bytes;
        let number = self.next_gathering;
        self.next_gathering += 1;
        let gathering = Gathering { token, what, left: requests, refusal: None, requests, bytes };
        self.gatherings.insert(number, gathering);
        for (place, at) in places {
            let look = Look { gathering: number, at };
            self.enqueue(now, &place, Waiting { task: Task::Look(look), bytes: 0 });
        }
        self.end_gathering(number);
    }

    fn may_be_kept(&self, place: &Place) -> bool {
        self.owners.get(&place.0).is_some_and(|owner| owner.totals.count > 0)
            || self.keys.contains_key(place)
    }

    /// A place was looked at: what is durable there, and whether there is anything at all.
    pub(super) fn looked(&mut self, look: Look, seen: Result<(Option<Arc<Hint>>, bool), Refusal>) {
        let Some(gathering) = self.gatherings.get_mut(&look.gathering) else { return };
        gathering.left -= 1;
        match (&mut gathering.what, seen) {
            (_, Err(refusal)) => gathering.refusal = Some(refusal),
            (What::Read { rule, joined, .. }, Ok((hint, _))) => {
                if let Some(hint) = hint {
                    joined.merge(hint.versions.clone(), *rule);
                }
            }
            (What::Check { found }, Ok((_, is_kept))) => {
                if let Some(it) = found.get_mut(look.at) {
                    *it |= is_kept;
                }
            }
        }
        self.end_gathering(look.gathering);
    }

    fn end_gathering(&mut self, number: u64) {
        if self.gatherings.get(&number).is_none_or(|gathering| gathering.left > 0) {
            return;
        }
        let Some(gathering) = self.gatherings.remove(&number) else { return };
        self.load.requests -= gathering.requests;
        self.load.bytes -= gathering.bytes;
        let reply = match (gathering.what, gathering.refusal) {
            (What::Read { want: Want::Full, joined, .. }, None) => {
                Reply::Read(Ok(Held::Full(joined)))
            }
            (What::Read { want: Want::Digest, joined, .. }, None) => {
                Reply::Read(Ok(Held::Digest(joined.digest())))
            }
            (What::Read { .. }, Some(refusal)) => Reply::Read(Err(refusal)),
            (What::Check { found }, None) => Reply::Check(Ok(found)),
            (What::Check { .. }, Some(refusal)) => Reply::Check(Err(refusal)),
        };
        self.effects.push_back(Effect::Reply(gathering.token, reply));
    }
}

/// Whether something is on its way to the shelf, or off it: the answer need not wait for which.
fn is_being_kept(state: &KeyState) -> bool {
    match state {
        KeyState::Loading { queue, counted } => {
            let is_change = |waiting: &Waiting| {
                matches!(waiting.task, Task::Store(..) | Task::Mint(..) | Task::Remove(_))
            };
            counted.is_some() || queue.iter().any(is_change)
        }
        KeyState::Open(_) | KeyState::Removing { .. } => true,
    }
}
