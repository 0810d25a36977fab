//! Group commit: one thread takes all writes that wait, writes them as one batch, syncs once, and
//! tells each of them.
//!
//! While one group is on its way to the disk the next one gathers, so the busier the node, the larger
//! the groups and the cheaper each write. The queue is bounded by count and by bytes; past a bound a
//! write is refused at once. A failed group fails each of its writes: whether one of them is on disk
//! all the same isn't known. Only votes are not failed by a full disk: they are tried again, before
//! whatever came after them, until there is room.

use std::{
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anello_protocol::id::KeyspaceId;

use super::{keeper::Upkeep, keys::Family, room::is_no_space};

/// The most writes that wait.
const MAX_WAITING: usize = 16 * 1024;
/// The most bytes that wait; as many again may be on their way to the disk.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// Before a vote is tried again for which the disk had no room.
const PAUSE_WHILE_FULL: Duration = Duration::from_millis(250);

/// One key, and its new value or that it goes.
pub(super) struct Change {
    pub(super) family: Family,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// What a submission means for the flag that a keyspace has data here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// Nothing: it is no data.
    Unconcerned,
    /// It has, if these changes are made.
    Holds(KeyspaceId),
    /// It has none: the last of it was deleted.
    Swept(KeyspaceId),
}

/// Told once, on the commit thread, what became of a submission.
pub(super) type Done = Box<dyn FnOnce(Result<(), String>) + Send>;

/// What becomes durable together.
pub(super) struct Submission {
    pub(super) changes: Vec<Change>,
    /// What the changes mean for the Merkle trees.
    pub(super) upkeep: Upkeep,
    pub(super) flag: Flag,
    pub(super) class: Class,
    pub(super) done: Done,
}

/// How a submission is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Refused past the bounds; as durable as the settings say.
    Data,
    /// A vote or the like, of which there is one at a time: always taken, and always synced, because the
    /// loss of a vote may make two clusters of one.
    Vote,
}

impl Submission {
    pub(super) fn bytes(&self) -> usize {
        let values = self.changes.iter().filter_map(|change| change.value.as_ref()).map(Vec::len);
        self.changes.iter().map(|change| change.key.len()).sum::<usize>() + values.sum::<usize>()
    }
}

/// Writes groups; the one thing that the commit thread owns.
pub(super) trait Sink: Send + 'static {
    /// Makes all of them durable, or says why not. It may keep what is in them.
    fn write(&mut self, group: &mut [Submission]) -> Result<(), String>;
}

/// What the commit thread has done since its start.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) groups: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) largest_group: AtomicU64,
    /// How long the slowest write took, from the queue to the disk, since somebody looked last.
    slowest_us: AtomicU64,
}

/// What waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitLook {
    /// How many writes.
    pub waiting: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long the slowest write took since the last look, from the queue to the disk, in microseconds.
    pub slowest_us: u64,
}

/// The commit thread and its queue. Dropping it lets what waits be written, and ends the thread.
pub(super) struct CommitThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    figures: Figures,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Submission>,
    bytes: usize,
    /// Since when the first of them waits.
    since: Option<Instant>,
    /// The thread sleeps and must be woken; while it writes it looks by itself.
    is_idle: bool,
    is_closed: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing below the lock can leave the queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CommitThread {
    pub(super) fn start(sink: impl Sink) -> std::io::Result<Self> {
        let queue = Mutex::new(Queue::default());
        let shared = Arc::new(Shared { queue, wake: Condvar::new(), figures: Figures::default() });
        let name = thread::Builder::new().name("commit".into());
        let thread = name.spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, sink)
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues a write, or gives it back when there is no room.
    pub(super) fn submit(&self, submission: Submission) -> Result<(), Submission> {
        let bytes = submission.bytes();
        let mut queue = self.shared.queue();
        // One that is larger than the bound by itself is let in when it is alone.
        let is_full = queue.waiting.len() >= MAX_WAITING
            || (!queue.waiting.is_empty() && queue.bytes + bytes > MAX_WAITING_BYTES);
        if (is_full && submission.class == Class::Data) || queue.is_closed {
            return Err(submission);
        }
        queue.bytes += bytes;
        if queue.waiting.is_empty() {
            queue.since = Some(Instant::now());
        }
        queue.waiting.push(submission);
        if mem::take(&mut queue.is_idle) {
            drop(queue);
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// What waits, and how long the slowest write took since the last call.
    pub(super) fn look(&self) -> CommitLook {
        let queue = self.shared.queue();
        let (waiting, bytes) = (queue.waiting.len() as u64, queue.bytes as u64);
        let age = queue.since.map_or(0, as_us);
        drop(queue);
        let slowest = self.shared.figures.slowest_us.swap(0, Ordering::Relaxed);
        CommitLook { waiting, bytes, slowest_us: slowest.max(age) }
    }
}

impl Drop for CommitThread {
    fn drop(&mut self) {
        self.shared.queue().is_closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            // The last holder may be a callback on the commit thread itself, which then ends by itself.
            && thread.thread().id() != thread::current().id()
        {
            // A panic of that thread has been reported where it happened.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, mut sink: impl Sink) {
    // Two vectors change places, so that neither is ever allocated anew.
    let mut group = Vec::new();
    let mut votes = Vec::new();
    while let Some(since) = take_group(shared, &mut group, !votes.is_empty()) {
        group.splice(..0, votes.drain(..));
        let outcome = sink.write(&mut group);
        let size = group.len() as u64;
        shared.figures.groups.fetch_add(1, Ordering::Relaxed);
        shared.figures.writes.fetch_add(size, Ordering::Relaxed);
        shared.figures.largest_group.fetch_max(size, Ordering::Relaxed);
        shared.figures.slowest_us.fetch_max(as_us(since), Ordering::Relaxed);
        let is_full = outcome.as_ref().is_err_and(|sentence| is_no_space(sentence));
        for submission in group.drain(..) {
            if is_full && submission.class == Class::Vote {
                votes.push(submission);
            } else {
                (submission.done)(outcome.clone());
            }
        }
        // Whoever waits for a core has more writes for the next group: on a busy machine it grows, and
        // on another one nothing is lost.
        thread::yield_now();
    }
    for vote in votes {
        (vote.done)(Err("the store was closed before the disk had room".into()));
    }
}

/// Waits for writes and takes them all, and says since when the first of them waited; nothing once the
/// queue is closed and empty. While `votes` wait to
/// be tried again, it waits no longer than for that, and may take nothing.
fn take_group(shared: &Shared, group: &mut Vec<Submission>, votes: bool) -> Option<Instant> {
    let mut queue = shared.queue();
    while queue.waiting.is_empty() {
        if queue.is_closed {
            return None;
        }
        queue.is_idle = true;
        if votes {
            let waited = shared.wake.wait_timeout(queue, PAUSE_WHILE_FULL);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            break;
        }
        queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    queue.is_idle = false;
    queue.bytes = 0;
    mem::swap(&mut queue.waiting, group);
    Some(queue.since.take().unwrap_or_else(Instant::now))
}

fn as_us(since: Instant) -> u64 {
    since.elapsed().as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says how large each group is, and waits for leave to go on.
    struct Gate {
        groups: mpsc::Sender<usize>,
        leave: mpsc::Receiver<Outcome>,
    }

    impl Sink for Gate {
        fn write(&mut self, group: &mut [Submission]) -> Result<(), String> {
            self.groups.send(group.len()).expect("the test listens");
            self.leave.recv().expect("the test answers")
        }
    }

    type Outcome = Result<(), String>;

    struct Fixture {
        commits: CommitThread,
        groups: mpsc::Receiver<usize>,
        leave: mpsc::Sender<Outcome>,
        done: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    }

    fn fixture() -> Fixture {
        let (groups_in, groups) = mpsc::channel();
        let (leave, leave_out) = mpsc::channel();
        let commits = CommitThread::start(Gate { groups: groups_in, leave: leave_out });
        Fixture { commits: commits.expect("a thread"), groups, leave, done: mpsc::channel() }
    }

    impl Fixture {
        fn submit(&self, bytes: usize) -> Result<(), Submission> {
            let value = Some(vec![0; bytes]);
            let change = Change { family: Family::Data, key: Vec::new(), value };
            let done = self.done.0.clone();
            self.commits.submit(Submission {
                changes: vec![change],
                upkeep: Upkeep::Nothing,
                flag: Flag::Unconcerned,
                class: Class::Data,
                done: Box::new(move |outcome| done.send(outcome).expect("the test listens")),
            })
        }
    }

    #[test]
    fn what_gathers_while_the_disk_works_is_one_group() {
        let fixture = fixture();
        assert!(fixture.submit(1).is_ok());
        assert_eq!(fixture.groups.recv(), Ok(1));
        for _ in 0..100 {
            assert!(fixture.submit(1).is_ok());
        }
        assert!(fixture.done.1.try_recv().is_err(), "nothing is acknowledged before it is durable");
        fixture.leave.send(Ok(())).expect("it waits");
        assert_eq!(fixture.done.1.recv(), Ok(Ok(())));
        assert_eq!(fixture.groups.recv(), Ok(100));
        fixture.leave.send(Ok(())).expect("it waits");
        for _ in 0..100 {
            assert_eq!(fixture.done.1.recv(), Ok(Ok(())));
        }
        assert_eq!(fixture.commits.figures().largest_group.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn a_failed_group_fails_each_of_its_writes() {
        let fixture = fixture();
        assert!(fixture.submit(1).is_ok());
        assert_eq!(fixture.groups.recv(), Ok(1));
        assert!(fixture.submit(1).is_ok());
        assert!(fixture.submit(1).is_ok());
        fixture.leave.send(Ok(())).expect("it waits");
        fixture.leave.send(Err("no space left".into())).expect("it waits");
        let outcomes: Vec<_> = (0..3).map(|_| fixture.done.1.recv().expect("told")).collect();
        assert_eq!(outcomes[0], Ok(()));
        assert_eq!(outcomes[1..], [Err("no space left".into()), Err("no space left".into())]);
    }

    #[test]
    fn a_vote_outlasts_a_full_disk_and_nothing_else_does() {
        let fixture = fixture();
        assert!(fixture.submit(1).is_ok());
        assert_eq!(fixture.groups.recv(), Ok(1));
        let (voted_in, voted) = mpsc::channel();
        let vote = Submission {
            changes: Vec::new(),
            upkeep: Upkeep::Nothing,
            flag: Flag::Unconcerned,
            class: Class::Vote,
            done: Box::new(move |outcome| voted_in.send(outcome).expect("the test listens")),
        };
        assert!(fixture.commits.submit(vote).is_ok());
        assert!(fixture.submit(1).is_ok());
        fixture.leave.send(Ok(())).expect("it waits");
        let full = Err::<(), String>("IO error: No space left on device".into());
        fixture.leave.send(full.clone()).expect("it waits");
        assert_eq!(fixture.groups.recv(), Ok(2));
        assert_eq!(fixture.done.1.recv(), Ok(Ok(())));
        assert_eq!(fixture.done.1.recv(), Ok(full.clone()));
        // With nothing else to do, it is tried again by itself.
        fixture.leave.send(full).expect("it waits");
        assert_eq!(fixture.groups.recv(), Ok(1));
        assert!(voted.try_recv().is_err());
        fixture.leave.send(Ok(())).expect("it waits");
        assert_eq!(voted.recv(), Ok(Ok(())));
        assert_eq!(fixture.groups.recv(), Ok(1));
    }

    #[test]
    fn past_a_bound_a_write_is_refused_at_once() {
        let fixture = fixture();
        assert!(fixture.submit(1).is_ok());
        assert_eq!(fixture.groups.recv(), Ok(1));
        assert!(fixture.submit(MAX_WAITING_BYTES / 2).is_ok());
        assert!(fixture.submit(MAX_WAITING_BYTES / 2).is_ok());
        assert!(fixture.submit(1).is_err(), "by bytes");
        for _ in 0..2 {
            fixture.leave.send(Ok(())).expect("it waits");
        }
        assert_eq!(fixture.groups.recv(), Ok(2));
        for _ in 0..3 {
            assert_eq!(fixture.done.1.recv(), Ok(Ok(())));
        }
        assert!(fixture.submit(0).is_ok());
        assert_eq!(fixture.groups.recv(), Ok(1));
        for _ in 0..MAX_WAITING {
            assert!(fixture.submit(0).is_ok());
        }
        assert!(fixture.submit(0).is_err(), "by count");
        let vote = Submission {
            changes: Vec::new(),
            upkeep: Upkeep::Nothing,
            flag: Flag::Unconcerned,
            class: Class::Vote,
            done: Box::new(|_| ()),
        };
        assert!(fixture.commits.submit(vote).is_ok(), "a vote never waits for room");
        for _ in 0..2 {
            fixture.leave.send(Ok(())).expect("it waits");
        }
    }

    #[test]
    fn what_waits_is_written_before_the_thread_ends() {
        let Fixture { commits, groups, leave, done } = fixture();
        for _ in 0..3 {
            let sender = done.0.clone();
            let done = Box::new(move |outcome| sender.send(outcome).expect("the test listens"));
            let submission = Submission {
                changes: Vec::new(),
                upkeep: Upkeep::Nothing,
                flag: Flag::Unconcerned,
                class: Class::Data,
                done,
            };
            assert!(commits.submit(submission).is_ok());
            leave.send(Ok(())).expect("it waits");
        }
        drop(commits);
        assert_eq!(groups.iter().sum::<usize>(), 3);
        drop(done.0);
        assert_eq!(done.1.iter().count(), 3);
    }
}
