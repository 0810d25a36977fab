//! A phase from its beginning to its end: workers on threads of their own, measured from outside.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::SmallRng};
use tokio::{sync::watch, task::LocalSet};

use super::{
    Bench, cpu,
    http::{HttpConnection, HttpOptions},
    keys::{Chooser, Keys, Values},
    prepare::Prepared,
    report::Measured,
    stats::Stats,
    target::Target,
    worker::{self, Pace, Phase, Plan, Window},
};
use crate::{outcome::Failure, progress::Progress};

/// How often it is looked how far the workers are.
const TICK: Duration = Duration::from_millis(50);
/// Between the last worker's word that it is connected and the start of all.
const LEAD: Duration = Duration::from_millis(20);

/// What phases are made from.
pub(super) struct Setup<'a> {
    /// What was asked for.
    pub(super) command: &'a Bench,
    /// What was found.
    pub(super) prepared: &'a Prepared,
}

/// Figures at one moment.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    ended: u64,
    own_cpu: Duration,
    server_cpu: Duration,
}

impl Setup<'_> {
    /// Writes every key once.
    pub(super) fn load(&self) -> Result<Measured, Failure> {
        let count = self.command.keys;
        let what = format!(
            "{count} keys of 16 bytes, values of {} bytes; {}",
            self.command.value_bytes,
            self.how()
        );
        let (stats, from, to) =
            self.work("load", Phase::Load { count, next: AtomicU64::new(0) })?;
        let failed: u64 = stats.errors().values().sum();
        if failed > 0 {
            let error = stats.errors().keys().next().map_or("", String::as_str);
            return Err(Failure::failed(format_args!("{failed} keys were not loaded: {error}")));
        }
        Ok(self.measured("load", what, stats, from, to))
    }

    /// Runs the mix.
    pub(super) fn run(&self) -> Result<Measured, Failure> {
        let Bench { keys, value_bytes, warm_up, duration, rate, .. } = self.command;
        let mix = self.command.mix();
        let distribution = self.command.distribution();
        let pace = match rate {
            Some(rate) => format!("an open loop at {rate} a second"),
            None => "a closed loop".into(),
        };
        let what = format!(
            "{}, {} over {keys} keys of 16 bytes, values of {value_bytes} bytes; {}, {pace}, {} s",
            mix.text(),
            format!("{distribution:?}").to_lowercase(),
            self.how(),
            duration.as_secs_f64()
        );
        let window = Window { warm_up: *warm_up, end: *warm_up + *duration };
        let pace = match rate {
            Some(rate) => Pace::Open { rate: *rate, next: AtomicU64::new(0) },
            None => Pace::Closed,
        };
        let chooser = Chooser::new(distribution, *keys);
        let (stats, from, to) = self.work("run", Phase::Run { mix, chooser, window, pace })?;
        Ok(self.measured("run", what, stats, from, to))
    }

    fn how(&self) -> String {
        let Bench { clients, threads, http, .. } = self.command;
        let transport = if *http { "HTTP" } else { "client library" };
        let s = if *threads == 1 { "" } else { "s" };
        format!("{transport}, {clients} clients on {threads} thread{s}")
    }

    fn measured(
        &self,
        phase: &'static str,
        what: String,
        stats: Stats,
        from: Moment,
        to: Moment,
    ) -> Measured {
        let count = self.prepared.servers.len();
        let server_cpu = to.server_cpu.saturating_sub(from.server_cpu);
        Measured {
            phase,
            what,
            stats,
            ended: to.ended - from.ended,
            time: to.at - from.at,
            own_cpu: to.own_cpu.saturating_sub(from.own_cpu),
            servers: (count > 0).then_some((count, server_cpu)),
        }
    }

    fn moment(&self, plan: &Plan) -> Moment {
        Moment {
            at: Instant::now(),
            ended: plan.ended.load(Ordering::Relaxed),
            own_cpu: cpu::of_this_process(),
            server_cpu: cpu::of(&self.prepared.servers),
        }
    }

    /// Has the workers do it; what they measured, and the figures at both ends of the window.
    fn work(&self, name: &'static str, phase: Phase) -> Result<(Stats, Moment, Moment), Failure> {
        let Bench { keys, value_bytes, clients, threads, seed, .. } = self.command;
        let plan = Arc::new(Plan {
            phase,
            keys: Keys::new(*keys, (*clients).into()),
            values: Values::new(*value_bytes as usize, &mut SmallRng::seed_from_u64(*seed)),
            seed: *seed,
            ended: AtomicU64::new(0),
        });
        let (start, started) = watch::channel(None);
        let (connected, connections) = mpsc::channel();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..*threads)
                .map(|number| {
                    let (plan, started) = (Arc::clone(&plan), started.clone());
                    let connected = connected.clone();
                    scope.spawn(move || self.worker(plan, number, started, &connected))
                })
                .collect();
            drop(connected);
            for _ in &workers {
                // A worker that ends without a word says why when it is joined.
                if let Ok(Err(failure)) = connections.recv() {
                    drop(start);
                    return Err(failure);
                }
            }
            let start_at = Instant::now() + LEAD;
            start.send_replace(Some(start_at));
            let done = || workers.iter().all(thread::ScopedJoinHandle::is_finished);
            let (from, to) = self.watch(name, &plan, start_at, done);
            let mut stats = Stats::new();
            for worker in workers {
                match worker.join() {
                    Ok(own) => stats.merge(own?),
                    Err(_) => return Err(Failure::failed("a thread of the benchmark broke")),
                }
            }
            if let Phase::Run { pace, window, .. } = &plan.phase {
                stats.unsent = pace.unsent(*window);
            }
            Ok((stats, from, to))
        })
    }

    /// Shows how far it is until the window ends; the figures at both ends.
    fn watch(
        &self,
        name: &'static str,
        plan: &Plan,
        start: Instant,
        done: impl Fn() -> bool,
    ) -> (Moment, Moment) {
        let (parts, window) = match &plan.phase {
            Phase::Load { count, .. } => (*count, None),
            Phase::Run { window, .. } => (window.end.as_millis() as u64, Some(*window)),
        };
        let mut progress = Progress::begin(name, Some(parts), 0);
        let mut from = self.moment(plan);
        let mut warm = window.is_none();
        loop {
            let passed = Instant::now().saturating_duration_since(start);
            if !warm && window.is_some_and(|window| passed >= window.warm_up) {
                warm = true;
                from = self.moment(plan);
            }
            if done() || window.is_some_and(|window| passed >= window.end) {
                break;
            }
            let ended = plan.ended.load(Ordering::Relaxed);
            progress.at(window.map_or(ended, |_| passed.as_millis() as u64), ended);
            let next = window.map(|window| if warm { window.end } else { window.warm_up });
            let left = next.map_or(TICK, |next| next.saturating_sub(passed));
            thread::sleep(TICK.min(left.max(Duration::from_millis(1))));
        }
        let to = self.moment(plan);
        progress.end();
        (from, to)
    }

    fn worker(
        &self,
        plan: Arc<Plan>,
        number: u16,
        started: watch::Receiver<Option<Instant>>,
        connected: &mpsc::Sender<Result<(), Failure>>,
    ) -> Result<Stats, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
        LocalSet::new().block_on(&runtime, async {
            let targets = match self.targets(number).await {
                Ok(targets) => targets,
                Err(failure) => {
                    // Nobody listens only if another worker has failed before.
                    let _ = connected.send(Err(failure.clone()));
                    return Err(failure);
                }
            };
            let _ = connected.send(Ok(()));
            Ok(worker::run(plan, targets, number.into(), started).await)
        })
    }

    /// The ways to the cluster of one worker's clients.
    async fn targets(&self, number: u16) -> Result<Vec<Target>, Failure> {
        let Bench { clients, threads, keyspace, level, cluster, connections, .. } = self.command;
        let own = (*clients / *threads) + u16::from(number < *clients % *threads);
        if !self.command.http {
            let client = cluster
                .connect_with(|builder| level.apply(builder).connections(*connections))
                .await?;
            let keyspace = client.keyspace(keyspace.as_str());
            return Ok((0..own).map(|_| Target::Library(keyspace.clone())).collect());
        }
        let options =
            HttpOptions::new(keyspace.as_str(), cluster.timeout(), level.read(), level.write());
        let addresses = &self.prepared.http;
        let mut targets = Vec::new();
        for at in 0..own {
            let Some(address) = addresses.get((at + number) as usize % addresses.len().max(1))
            else {
                return Err(Failure::failed("no node can be reached over HTTP"));
            };
            let mut connection = HttpConnection::new(address.clone(), options.clone());
            connection.connect().await.map_err(Failure::failed)?;
            targets.push(Target::Http(connection));
        }
        Ok(targets)
    }
}
