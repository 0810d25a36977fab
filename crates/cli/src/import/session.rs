//! One run over the records: many under way, each tried until it is settled.

use std::{
    future::Future,
    io,
    time::{Duration, Instant},
};

use anello_client::{Error, ErrorKind, Keyspace, Read};
use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::RngExt;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep},
};
use xxhash_rust::xxh3::Xxh3Default;

use super::records::{Line, Record};

/// How often it is said how far the run is.
const TICK: Duration = Duration::from_millis(200);
/// Pauses between attempts at one record.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What is done with each record.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Where.
    pub(super) keyspace: Keyspace,
    /// Its name, which write ids are made of.
    pub(super) name: String,
    /// Whether records are compared instead of written.
    pub(super) check: bool,
    /// How long a record is tried.
    pub(super) patience: Duration,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is in the cluster.
    Good,
    /// The cluster has no such key.
    Missing,
    /// The cluster has another value.
    Different,
    /// The cluster has so many concurrent versions.
    Siblings(usize),
    /// It could not be read, written or looked at.
    Failed(String),
}

/// What happens in a run, in order.
#[derive(Debug)]
pub(super) enum Event {
    /// A line was taken up.
    Begun {
        /// Its number.
        line: u64,
        /// Where it ends.
        end: u64,
    },
    /// A line is settled.
    Settled {
        /// Its number.
        line: u64,
        /// Its key; empty if it has none.
        key: Vec<u8>,
        /// What became of it.
        finding: Finding,
    },
    /// Time went by.
    Tick,
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// Every record is settled.
    Complete,
    /// Somebody interrupted it.
    Interrupted,
    /// The input can't be read on.
    Input(io::Error),
}

/// Runs over the lines, with so many under way at a time.
pub(super) async fn run(
    task: &Task,
    mut lines: mpsc::Receiver<io::Result<Line>>,
    in_flight: usize,
    interrupt: impl Future<Output = ()>,
    mut tell: impl FnMut(Event),
) -> End {
    let mut interrupt = std::pin::pin!(interrupt);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = FuturesUnordered::new();
    let mut end = None;
    loop {
        if end.is_some() && under_way.is_empty() {
            break end.unwrap_or(End::Complete);
        }
        tokio::select! {
            () = &mut interrupt => return End::Interrupted,
            _ = ticks.tick() => tell(Event::Tick),
            Some((line, key, finding)) = under_way.next(), if !under_way.is_empty() => {
                tell(Event::Settled { line, key, finding });
            }
            line = lines.recv(), if end.is_none() && under_way.len() < in_flight => match line {
                None => end = Some(End::Complete),
                Some(Err(error)) => end = Some(End::Input(error)),
                Some(Ok(Line { number, end, record })) => {
                    tell(Event::Begun { line: number, end });
                    match record {
                        Ok(record) => under_way.push(async move {
                            let finding = settle(task, &record).await;
                            (number, record.key.as_bytes().to_vec(), finding)
                        }),
                        Err(problem) => tell(Event::Settled {
                            line: number,
                            key: Vec::new(),
                            finding: Finding::Failed(problem),
                        }),
                    }
                }
            },
        }
    }
}

/// What becomes of the first line that is a record.
pub(super) async fn first(
    task: &Task,
    mut lines: mpsc::Receiver<io::Result<Line>>,
) -> Option<Finding> {
    while let Some(Ok(line)) = lines.recv().await {
        if let Ok(record) = line.record {
            return Some(settle(task, &record).await);
        }
    }
    None
}

/// Tries a record until it is settled or patience ends.
async fn settle(task: &Task, record: &Record) -> Finding {
    let until = Instant::now() + task.patience;
    let mut pause = PAUSE_MIN;
    loop {
        let tried = if task.check { check(task, record).await } else { write(task, record).await };
        let error = match tried {
            Ok(finding) => return finding,
            Err(error) => error,
        };
        if !error.is_retryable() || Instant::now() >= until {
            return Finding::Failed(error.to_string());
        }
        let asked = match error.kind() {
            ErrorKind::Overloaded { retry_after } => *retry_after,
            _ => Duration::ZERO,
        };
        let jitter = pause.mul_f64(rand::rng().random());
        sleep(asked.min(PAUSE_MAX) + jitter).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn write(task: &Task, record: &Record) -> Result<Finding, Error> {
    let name = write_name(&task.name, record);
    let put = task.keyspace.put(record.key.as_bytes(), record.value.clone());
    put.idempotency_key(&name).await.map(|_| Finding::Good)
}

async fn check(task: &Task, record: &Record) -> Result<Finding, Error> {
    Ok(match task.keyspace.get(record.key.as_bytes()).await? {
        Read::One { value, .. } if value == record.value => Finding::Good,
        Read::One { .. } => Finding::Different,
        Read::Siblings { siblings, .. } => Finding::Siblings(siblings.len()),
        Read::Deleted { .. } | Read::Missing => Finding::Missing,
    })
}

/// A name for the write of this record: the same one whenever and wherever it is imported, so that
/// importing it twice is one event.
fn write_name(keyspace: &str, record: &Record) -> String {
    let mut hash = Xxh3Default::new();
    for part in [keyspace.as_bytes(), record.key.as_bytes(), &record.value] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("import {:032x}", hash.digest128())
}

#[cfg(test)]
mod tests {
    use anello_protocol::key::Key;

    use super::*;

    #[test]
    fn the_same_record_is_the_same_write() {
        let record = |key: &'static str, value: &'static str| Record {
            key: Key::new(key).unwrap(),
            value: value.into(),
        };
        let name = write_name("default", &record("a", "bc"));
        assert_eq!(name, write_name("default", &record("a", "bc")));
        assert!(name.len() <= 64);
        for (keyspace, record) in [
            ("default", record("ab", "c")),
            ("default", record("a", "bd")),
            ("other", record("a", "bc")),
        ] {
            assert_ne!(name, write_name(keyspace, &record));
        }
    }
}
