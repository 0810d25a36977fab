//! A worker: one thread with a share of the clients, each one operation at a time.
//!
//! In a closed loop a client begins its next operation when the one before has ended. In an open loop
//! operations are due at a fixed rate whatever the cluster does, and one that no client was free for in
//! time counts from when it was due; otherwise a slow cluster would be asked less while it is slow, and
//! its worst times left out ("coordinated omission").

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::{
    keys::{self, Chooser, Keys, Values},
    stats::{Result, Stats},
    target::Target,
    workload::{Kind, Mix},
};

/// How often a record is tried in the load phase, where each one must be there in the end.
const LOAD_ATTEMPTS: u32 = 30;
const LOAD_PAUSE: Duration = Duration::from_millis(200);

/// What all workers share.
pub(super) struct Plan {
    /// What is to be done.
    pub(super) phase: Phase,
    /// The keys there are.
    pub(super) keys: Keys,
    /// What is written.
    pub(super) values: Values,
    /// What all randomness comes from.
    pub(super) seed: u64,
    /// Operations that have ended.
    pub(super) ended: AtomicU64,
}

/// What is to be done.
pub(super) enum Phase {
    /// Every key is written once.
    Load {
        /// How many there are.
        count: u64,
        /// The next one.
        next: AtomicU64,
    },
    /// A mix of operations, for some time.
    Run {
        /// Which.
        mix: Mix,
        /// On which keys.
        chooser: Chooser,
        /// When it is measured.
        window: Window,
        /// At which pace.
        pace: Pace,
    },
}

/// How long operations go on, and from when they count; from the workers' common start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// From then on operations count.
    pub(super) warm_up: Duration,
    /// Then no more are begun.
    pub(super) end: Duration,
}

/// When operations begin.
pub(super) enum Pace {
    /// When the one before has ended.
    Closed,
    /// At a rate.
    Open {
        /// Operations a second.
        rate: f64,
        /// The number of the next one.
        next: AtomicU64,
    },
}

/// Runs a share of the clients to the end of the phase. To be called within a `LocalSet`.
pub(super) async fn run(
    plan: Arc<Plan>,
    targets: Vec<Target>,
    number: u64,
    start: watch::Receiver<Option<Instant>>,
) -> Stats {
    let stats = Rc::new(RefCell::new(Stats::new()));
    let mut running = JoinSet::new();
    for (at, target) in targets.into_iter().enumerate() {
        let seed = plan.seed ^ (number << 32 | at as u64);
        let mut client = Client {
            plan: Arc::clone(&plan),
            target,
            random: SmallRng::seed_from_u64(seed),
            stats: Rc::clone(&stats),
        };
        let mut start = start.clone();
        running.spawn_local(async move {
            // The sender goes away unset only when the benchmark is given up.
            let Ok(Some(start)) = start.wait_for(Option::is_some).await.map(|start| *start) else {
                return;
            };
            client.run(start).await;
        });
    }
    while running.join_next().await.is_some() {}
    Rc::try_unwrap(stats).map_or_else(|stats| stats.borrow().clone(), RefCell::into_inner)
}

struct Client {
    plan: Arc<Plan>,
    target: Target,
    random: SmallRng,
    stats: Rc<RefCell<Stats>>,
}

impl Client {
    async fn run(&mut self, start: Instant) {
        let plan = Arc::clone(&self.plan);
        match &plan.phase {
            Phase::Load { count, next } => self.load(*count, next).await,
            Phase::Run { mix, chooser, window, pace } => {
                let counts_from = start + window.warm_up;
                let end = start + window.end;
                while let Some(due) = pace.wait(start, end).await {
                    // Not by when it was due: past its limit a cluster works off what was due long ago.
                    let counts = Instant::now() >= counts_from;
                    let (kind, result) = self.operate(mix, chooser).await;
                    plan.ended.fetch_add(1, Ordering::Relaxed);
                    if counts {
                        self.stats.borrow_mut().add(kind, due.elapsed(), result);
                    }
                }
            }
        }
    }

    async fn load(&mut self, count: u64, next: &AtomicU64) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let key = keys::name(number);
            let began = Instant::now();
            let mut attempt = 0;
            let result = loop {
                let value = self.plan.values.next(&mut self.random);
                let result = self.target.write(&key, value, None).await;
                attempt += 1;
                if !matches!(result, Result::Failed(_)) || attempt == LOAD_ATTEMPTS {
                    break result;
                }
                sleep(LOAD_PAUSE).await;
            };
            self.plan.ended.fetch_add(1, Ordering::Relaxed);
            self.stats.borrow_mut().add(Kind::Insert, began.elapsed(), result);
        }
    }

    async fn operate(&mut self, mix: &Mix, chooser: &Chooser) -> (Kind, Result) {
        let kind = mix.kind(self.random.random());
        let number = match kind {
            Kind::Insert => self.plan.keys.insert(),
            _ => chooser.next(&self.plan.keys, &mut self.random),
        };
        let key = keys::name(number);
        let result = match kind {
            Kind::Read => self.target.read(&key).await.result,
            Kind::Update | Kind::Insert => {
                let value = self.plan.values.next(&mut self.random);
                self.target.write(&key, value, None).await
            }
            Kind::ReadModifyWrite => {
                let seen = self.target.read(&key).await;
                match seen.result {
                    failed @ Result::Failed(_) => failed,
                    found => {
                        let value = self.plan.values.next(&mut self.random);
                        match self.target.write(&key, value, seen.context).await {
                            Result::Good => found,
                            failed => failed,
                        }
                    }
                }
            }
        };
        (kind, result)
    }
}

impl Pace {
    /// Waits until an operation may begin; from when its time counts, or nothing if it is over.
    async fn wait(&self, start: Instant, end: Instant) -> Option<Instant> {
        let now = Instant::now();
        let Pace::Open { rate, next } = self else { return (now < end).then_some(now) };
        if now >= end {
            return None;
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        let due = start + Duration::from_secs_f64(number as f64 / rate);
        if due >= end {
            return None;
        }
        if due <= now {
            return Some(due);
        }
        sleep_until(due.into()).await;
        // The timer is late by up to a millisecond, which is no fault of the cluster.
        Some(Instant::now())
    }

    /// Operations that were due before the end and never began.
    pub(super) fn unsent(&self, window: Window) -> u64 {
        match self {
            Pace::Closed => 0,
            Pace::Open { rate, next } => {
                let due = (window.end.as_secs_f64() * rate) as u64;
                due.saturating_sub(next.load(Ordering::Relaxed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(rate: f64) -> Pace {
        Pace::Open { rate, next: AtomicU64::new(0) }
    }

    #[tokio::test]
    async fn in_an_open_loop_what_is_late_counts_from_when_it_was_due() {
        let start = Instant::now() - Duration::from_secs(5);
        let end = start + Duration::from_secs(60);
        let pace = open(1.0);
        for second in 0..5 {
            assert_eq!(pace.wait(start, end).await, Some(start + Duration::from_secs(second)));
        }
    }

    #[tokio::test]
    async fn it_ends_in_time_and_says_what_never_began() {
        let start = Instant::now() - Duration::from_secs(10);
        let window = Window { warm_up: Duration::ZERO, end: Duration::from_secs(10) };
        let pace = open(100.0);
        assert_eq!(pace.wait(start, start + window.end).await, None);
        assert_eq!(pace.unsent(window), 1000);
        assert_eq!(Pace::Closed.wait(start, start + window.end).await, None);
        assert_eq!(Pace::Closed.unsent(window), 0);
    }
}
