//! The behaviour of one vnode: reading, joining, issuing dots, and keeping what comes of it.
//!
//! Invariants:
//! - a dot is shown to nobody, not even in a digest, before the commit that holds it is durable;
//! - what the answer to a request rests on is durable when it is sent, also where the request itself
//!   changed nothing;
//! - commits of a key are issued in the order of its states, each containing those before;
//! - what took until the vnode acted under a state in which its replicas are others, or count for something
//!   else, is not acknowledged: whoever counts it would count it under the state before;
//! - after a commit whose outcome is unknown no dot is issued under the same incarnation;
//! - requests that wait are bounded by count and bytes; past the bound the answer is
//!   [`Refusal::Busy`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use anello_protocol::{
    causality::Incarnation,
    id::{Epoch, NodeId, PartitionId},
    key::DataKey,
    message::replica::{Held, Refusal, Stored, Want},
    time::Now,
    version::Versions,
};
use anello_ring::view::View;

use super::{
    events::{CommitNumber, CommitOutcome, Effect, Input, Reply, Request, Token},
    issuer::Issuer,
    key::{self, OpenKey},
    mint::{self, Follows, Mint},
    standing::{Role, Standing},
};
use crate::store::{Commit, NotTaken, Summary, VnodeRecord};

/// The bounds of a vnode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// The most requests that wait for the store, default 4,096. More hide a slow disk for longer.
    pub requests_max: usize,
    /// The most bytes of keys and values in them, default 8 MiB. More costs that much memory a vnode.
    pub bytes_max: usize,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self { requests_max: 4096, bytes_max: 8 << 20 }
    }
}

/// One vnode. See the head of this file.
#[derive(Debug)]
pub struct Replica {
    node: NodeId,
    partition: PartitionId,
    config: ReplicaConfig,
    issuer: Issuer,
    standing: Option<Standing>,
    frozen: Frozen,
    is_quarantined: bool,
    keys: BTreeMap<DataKey, KeyState>,
    commits: BTreeMap<CommitNumber, CommitUnderWay>,
    next_commit: CommitNumber,
    load: Load,
    effects: VecDeque<Effect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    No,
    /// Writes are still under way.
    Ending,
    Quiet,
}

/// What waits, by count and bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    requests: usize,
    bytes: usize,
}

#[derive(Debug)]
enum KeyState {
    /// The store is being asked; who waits for its answer, in order.
    Loading(Vec<Waiting>),
    /// There are commits under way.
    Open(OpenKey),
}

#[derive(Debug)]
struct Waiting {
    token: Token,
    request: Request,
    bytes: usize,
}

#[derive(Debug)]
struct CommitUnderWay {
    key: DataKey,
    /// The life of the vnode in which it was issued.
    life: Incarnation,
    record: Option<VnodeRecord>,
    replies: Vec<Awaited>,
}

/// What is answered once a commit has ended.
#[derive(Debug)]
struct Awaited {
    token: Token,
    reply: Reply,
    /// What the request weighs.
    bytes: usize,
    /// Whether the key's replicas have become others since it was admitted, or count for something else.
    is_overtaken: bool,
}

impl Awaited {
    fn new(token: Token, reply: Reply, bytes: usize) -> Self {
        Self { token, reply, bytes, is_overtaken: false }
    }
}

impl Replica {
    /// A vnode that goes on from what the store remembers of it.
    ///
    /// `remembered` is `None` at its first start, and whenever it can't be proved that the store holds
    /// everything that it ever acknowledged: the vnode then issues its dots under a new incarnation.
    /// `seed` is drawn at random at every start.
    pub fn new(
        node: NodeId,
        partition: PartitionId,
        config: ReplicaConfig,
        seed: u64,
        remembered: Option<VnodeRecord>,
    ) -> Self {
        Self {
            issuer: Issuer::new(&node, partition, seed, remembered),
            node,
            partition,
            config,
            standing: None,
            frozen: Frozen::No,
            is_quarantined: false,
            keys: BTreeMap::new(),
            commits: BTreeMap::new(),
            next_commit: CommitNumber(0),
            load: Load::default(),
            effects: VecDeque::new(),
        }
    }

    /// Takes one input in; what is to be done about it is in [`Replica::next_effect`].
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Asked { token, request } => self.asked(now, token, request),
            Input::Loaded(key, found) => self.loaded(now, key, found),
            Input::Committed(number, outcome) => self.committed(number, outcome),
            Input::ClusterChanged(view) => self.cluster_changed(view),
            Input::Freeze => {
                self.frozen = Frozen::Ending;
                self.settle_freeze();
            }
            Input::Thaw => self.frozen = Frozen::No,
            Input::Quarantined(is_quarantined) => self.is_quarantined = is_quarantined,
        }
    }

    /// The next thing to do, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// How many requests wait for the store.
    pub fn waiting(&self) -> usize {
        self.load.requests
    }

    /// The number of the state that it acts under; 0 while it has been told none.
    pub fn epoch(&self) -> Epoch {
        self.standing.as_ref().map(Standing::epoch).unwrap_or_default()
    }

    fn asked(&mut self, now: Now, token: Token, request: Request) {
        if let Err(refusal) = self.admit(&request) {
            self.effects.push_back(Effect::Reply(token, request.refused(refusal)));
            return;
        }
        if let Request::Read(read) = &request
            && let Some(KeyState::Open(open)) = self.keys.get(&read.key)
        {
            let held = look(open.committed(), read.want);
            self.effects.push_back(Effect::Reply(token, Reply::Read(Ok(held))));
            return;
        }
        let bytes = request.weight();
        let full = self.load.requests >= self.config.requests_max
            || self.load.bytes + bytes > self.config.bytes_max.max(bytes);
        if full {
            self.effects.push_back(Effect::Reply(token, request.refused(Refusal::Busy)));
            return;
        }
        self.load.requests += 1;
        self.load.bytes += bytes;
        let waiting = Waiting { token, request, bytes };
        match self.keys.get_mut(waiting.request.key()) {
            Some(KeyState::Loading(queue)) => queue.push(waiting),
            Some(KeyState::Open(_)) => self.carry_out(now, waiting),
            None => {
                let key = waiting.request.key().clone();
                self.effects.push_back(Effect::Load(key.clone()));
                self.keys.insert(key, KeyState::Loading(vec![waiting]));
            }
        }
    }

    fn loaded(&mut self, now: Now, key: DataKey, found: Result<Versions, String>) {
        match self.keys.remove(&key) {
            Some(KeyState::Loading(queue)) => match found {
                Ok(versions) => self.open(now, key, versions, queue),
                Err(sentence) => {
                    for Waiting { token, request, bytes } in queue {
                        let refusal = Refusal::Storage(sentence.clone());
                        self.reply(token, request.refused(refusal), bytes);
                    }
                }
            },
            // Nobody asked for it: what is known is newer.
            Some(open @ KeyState::Open(_)) => {
                self.keys.insert(key, open);
            }
            None => {}
        }
    }

    fn open(&mut self, now: Now, key: DataKey, versions: Versions, queue: Vec<Waiting>) {
        // Most often a single reader waits, who can have the versions as they are.
        if let [Waiting { token, request: request @ Request::Read(read), bytes }] = &queue[..]
            && self.admit(request).is_ok()
        {
            let held = match read.want {
                Want::Full => Held::Full(versions),
                Want::Digest => Held::Digest(versions.digest()),
            };
            return self.reply(*token, Reply::Read(Ok(held)), *bytes);
        }
        self.keys.insert(key.clone(), KeyState::Open(OpenKey::new(versions)));
        for waiting in queue {
            // The cluster may have changed, or be frozen, since the request was admitted.
            match self.admit(&waiting.request) {
                Ok(()) => self.carry_out(now, waiting),
                Err(refusal) => {
                    let Waiting { token, request, bytes } = waiting;
                    self.reply(token, request.refused(refusal), bytes);
                }
            }
        }
        self.close_if_settled(&key);
    }

    /// Carries a request out on a key that is open.
    fn carry_out(&mut self, now: Now, Waiting { token, request, bytes }: Waiting) {
        let key = request.key().clone();
        let open = open_key(&mut self.keys, &key);
        let (kept, record, reply) = match request {
            Request::Read(read) => {
                let held = look(open.committed(), read.want);
                return self.reply(token, Reply::Read(Ok(held)), bytes);
            }
            Request::Store(store) => {
                let (kept, lost_to) = key::join(open.latest(), store);
                let stored = Stored { lost_to, is_quarantined: self.is_quarantined };
                // What is joined with may hold a fresh dot, whose own commit may yet fail.
                let rests_on = open.last_commit();
                let record = rests_on.and_then(|_| self.issuer.record_to_commit());
                (kept, record, Reply::Store(Ok(stored)))
            }
            Request::Mint(write) => {
                let held = open.latest();
                match mint::mint(held, write, Follows::Held, &mut self.issuer, now.wall_ms) {
                    Ok(Mint::Fresh(kept, minted)) => {
                        (Some(kept), self.issuer.record_to_commit(), Reply::Mint(Ok(minted)))
                    }
                    Ok(Mint::Known(minted)) => (None, None, Reply::Mint(Ok(minted))),
                    Err(refusal) => return self.reply(token, Reply::Mint(Err(refusal)), bytes),
                }
            }
            Request::Purge(purge) => {
                let purged = match self.is_quarantined {
                    true => key::drop_copy(open, &purge),
                    false => Ok(key::purge(open, &purge)),
                };
                match purged {
                    Ok((kept, purged)) => (kept, None, Reply::Purge(Ok(purged))),
                    Err(refusal) => return self.reply(token, Reply::Purge(Err(refusal)), bytes),
                }
            }
        };
        let Some(kept) = kept else {
            // Nothing new; but what the answer rests on may still be on its way to the disk.
            let last = open.last_commit().and_then(|last| self.commits.get_mut(&last));
            return match last {
                Some(commit) => commit.replies.push(Awaited::new(token, reply, bytes)),
                None => self.reply(token, reply, bytes),
            };
        };
        let number = self.next_commit;
        self.next_commit.0 += 1;
        let kept = Arc::new(kept);
        let commit = Commit {
            partition: self.partition,
            key: key.clone(),
            replaced: Summary::of(open.latest()),
            versions: kept.clone(),
            vnode_record: record,
        };
        open.push(number, kept);
        let (life, replies) = (self.issuer.life(), vec![Awaited::new(token, reply, bytes)]);
        self.commits.insert(number, CommitUnderWay { key, life, record, replies });
        self.effects.push_back(Effect::Commit(number, commit));
    }

    fn committed(&mut self, number: CommitNumber, outcome: CommitOutcome) {
        let Some(CommitUnderWay { key, life, record, replies }) = self.commits.remove(&number)
        else {
            return;
        };
        let open = open_key(&mut self.keys, &key);
        let refusal = match outcome {
            CommitOutcome::Durable => {
                open.committed_up_to(number);
                if let Some(record) = record {
                    self.issuer.committed(record);
                }
                None
            }
            CommitOutcome::NotTaken(why) => {
                let withdrawn = open.withdraw_from(number);
                return self.not_taken(&key, replies, &withdrawn, why);
            }
            CommitOutcome::Failed(sentence) => {
                open.failed(number);
                self.issuer.end(life);
                Some(Refusal::Storage(sentence))
            }
        };
        self.close_if_settled(&key);
        let own = self.epoch();
        for Awaited { token, reply, bytes, is_overtaken } in replies {
            let reply = match &refusal {
                None if is_overtaken => reply.refused(Refusal::StaleEpoch(own)),
                None => reply,
                Some(refusal) => reply.refused(refusal.clone()),
            };
            self.reply(token, reply, bytes);
        }
        self.settle_freeze();
    }

    /// The store had no room for a commit. Those of the key that contain it, `withdrawn`, were not offered
    /// yet and come to nothing too: so what was issued in them can be issued again, because nobody has
    /// seen it and nothing holds it.
    fn not_taken(
        &mut self,
        key: &DataKey,
        mut replies: Vec<Awaited>,
        withdrawn: &[CommitNumber],
        why: NotTaken,
    ) {
        let before = self.effects.len();
        self.effects.retain(
            |effect| !matches!(effect, Effect::Commit(number, _) if withdrawn.contains(number)),
        );
        debug_assert_eq!(
            before - self.effects.len(),
            withdrawn.len(),
            "the outcome was told before the next commit was offered"
        );
        for number in withdrawn {
            replies.extend(self.commits.remove(number).into_iter().flat_map(|it| it.replies));
        }
        self.close_if_settled(key);
        for Awaited { token, reply, bytes, .. } in replies {
            self.reply(token, reply.refused(refusal_of(why)), bytes);
        }
        self.settle_freeze();
    }

    fn cluster_changed(&mut self, view: Arc<View>) {
        if view.epoch() < self.epoch() {
            return;
        }
        if let Some(standing) = &self.standing {
            // Only what is under way can be told too late: what waits to be loaded is admitted anew.
            let mut moves = BTreeMap::new();
            for commit in self.commits.values_mut() {
                let keyspace = commit.key.keyspace;
                let has_moved = *moves
                    .entry(keyspace)
                    .or_insert_with(|| standing.moves(&view, keyspace, self.partition));
                commit.replies.iter_mut().for_each(|it| it.is_overtaken |= has_moved);
            }
        }
        self.standing = Some(Standing::new(view));
    }

    /// Whether a request is for this vnode, under the state that it acts under.
    fn admit(&mut self, request: &Request) -> Result<(), Refusal> {
        let Some(standing) = &mut self.standing else {
            return Err(Refusal::Behind(Epoch::default()));
        };
        let own = standing.epoch();
        if request.epoch() < own {
            return Err(Refusal::StaleEpoch(own));
        }
        if request.epoch() > own {
            return Err(Refusal::Behind(own));
        }
        let key = request.key();
        let needed = match request {
            // Old owners are not read any more while new ones still fetch from them; coordinators ask readers
            // only.
            Request::Mint(_) => Role::Reader,
            Request::Read(_) | Request::Store(_) | Request::Purge(_) => Role::Holder,
        };
        let partition = key.hash.partition(standing.partitions());
        if partition != self.partition
            || standing.role(&self.node, key.keyspace, self.partition) < needed
        {
            return Err(Refusal::NotOwner);
        }
        match request {
            Request::Store(_) | Request::Mint(_) | Request::Purge(_)
                if self.frozen != Frozen::No =>
            {
                Err(Refusal::Frozen)
            }
            // What others write is taken in all the same: it is news. What may be forgotten is another
            // question then, see `key::drop_copy`.
            Request::Read(_) | Request::Mint(_) if self.is_quarantined => Err(Refusal::Quarantined),
            _ => Ok(()),
        }
    }

    fn close_if_settled(&mut self, key: &DataKey) {
        if let Some(KeyState::Open(open)) = self.keys.get(key)
            && open.is_settled()
        {
            self.keys.remove(key);
        }
    }

    fn settle_freeze(&mut self) {
        if self.frozen == Frozen::Ending && self.commits.is_empty() {
            self.frozen = Frozen::Quiet;
            self.effects.push_back(Effect::Quiet);
        }
    }

    /// Answers a request that waited.
    fn reply(&mut self, token: Token, reply: Reply, bytes: usize) {
        self.load.requests -= 1;
        self.load.bytes -= bytes;
        self.effects.push_back(Effect::Reply(token, reply));
    }
}

/// A key that is open: commits are under way, or requests are being carried out on it.
fn open_key<'a>(keys: &'a mut BTreeMap<DataKey, KeyState>, key: &DataKey) -> &'a mut OpenKey {
    match keys.get_mut(key) {
        Some(KeyState::Open(open)) => open,
        _ => unreachable!("a key is open as long as a commit of it is under way"),
    }
}

pub(crate) fn refusal_of(why: NotTaken) -> Refusal {
    match why {
        NotTaken::Busy => Refusal::Busy,
        NotTaken::DiskFull => Refusal::DiskFull,
    }
}

fn look(versions: &Versions, want: Want) -> Held {
    match want {
        Want::Full => Held::Full(versions.clone()),
        Want::Digest => Held::Digest(versions.digest()),
    }
}
