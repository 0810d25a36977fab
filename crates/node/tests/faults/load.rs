//! Load: workers that read and write a few hundred keys through all nodes, at their own steady pace, and
//! keep account of each request.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    account::{Account, Kind, Outcome, Request},
    cluster::Cluster,
    door::{AtNode, ByClient, Door, Failure},
    ledger::{Ledger, chain_value, elements},
};

const WORKERS_PER_NODE: usize = 2;
const CHAINS_PER_WORKER: usize = 25;
const SETS: usize = 8;
/// Between a worker's requests: six nodes of a debug build share what cores there are.
const PAUSE: Duration = Duration::from_millis(40);
/// So that a failing run can be had again, as far as the machine allows it.
const SEED: u64 = 7;

/// Load that runs.
pub struct Load {
    workers: Vec<JoinHandle<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
}

impl Load {
    /// Over HTTP, some workers at every node, each at its own node only.
    pub fn at_nodes(cluster: &Cluster, level: &'static str, kind: &'static str) -> Self {
        let nodes = cluster.addresses();
        Self::start("http", &nodes, level, |_, node| AtNode { node, level, kind })
    }

    /// Through the client library, some workers for every node, in its datacenter.
    pub fn by_clients(cluster: &Cluster, level: &'static str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        let tls = cluster.fleet.authority.issue_client("load");
        let seeds: Vec<_> = cluster.fleet.nodes.iter().map(|node| node.quic.to_string()).collect();
        let client = |datacenter| {
            let client = anello_client::Client::builder()
                .seeds(&seeds)
                .datacenter(datacenter)
                .tls_files(&tls.ca, &tls.cert, &tls.key)
                .connect();
            runtime.block_on(client).expect("the cluster is up")
        };
        let (eu, us) = (client("eu"), client("us"));
        let level_of_client = level.parse().expect("a level");
        Self::start("client", &cluster.addresses(), level, |id, _| ByClient {
            runtime: Arc::clone(&runtime),
            client: if id.starts_with("eu") { eu.clone() } else { us.clone() },
            level: level_of_client,
        })
    }

    fn start<D: Door + 'static>(
        name: &'static str,
        nodes: &[(&'static str, SocketAddr)],
        level: &'static str,
        door: impl Fn(&'static str, SocketAddr) -> D,
    ) -> Self {
        println!("load: {name}, {level}, seed {SEED}");
        let (stop, ledger) = (Arc::new(AtomicBool::new(false)), Arc::new(Ledger::default()));
        let numbered = (0..nodes.len() * WORKERS_PER_NODE).zip(nodes.iter().cycle());
        let workers = numbered.map(|(number, &(node, address))| {
            let worker = Worker {
                load: name,
                number,
                node,
                all: nodes.len() * WORKERS_PER_NODE,
                chains: vec![(0, None); CHAINS_PER_WORKER],
                // What one datacenter acknowledged by itself, only that one is bound to show.
                scope: level.starts_with("local").then_some(&node[..2]),
                ledger: Arc::clone(&ledger),
                random: StdRng::seed_from_u64(SEED + number as u64),
                door: door(node, address),
                requests: Vec::new(),
            };
            let stop = Arc::clone(&stop);
            thread::spawn(move || worker.run(&stop))
        });
        Self { workers: workers.collect(), stop, ledger }
    }

    /// Lets it run for a while.
    pub fn run_for(&self, time: Duration) {
        thread::sleep(time);
    }

    /// What is acknowledged so far.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Ends it, and adds the requests up.
    pub fn stop(mut self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        let workers = std::mem::take(&mut self.workers).into_iter();
        Account::new(workers.flat_map(|worker| worker.join().expect("a worker ends")).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker<D> {
    /// Loads that run side by side have keys of their own.
    load: &'static str,
    number: usize,
    node: &'static str,
    /// How many workers there are.
    all: usize,
    /// Its own chains: the last number that was tried, and the context of the last that was
    /// acknowledged.
    chains: Vec<(u64, Option<String>)>,
    scope: Option<&'static str>,
    ledger: Arc<Ledger>,
    random: StdRng,
    door: D,
    requests: Vec<Request>,
}

impl<D: Door> Worker<D> {
    fn run(mut self, stop: &AtomicBool) -> Vec<Request> {
        while !stop.load(Ordering::Relaxed) {
            let done = match self.random.random_range(0..100) {
                0..45 => self.write(),
                45..90 => self.read(),
                _ => self.add(),
            };
            if let Err(Failure::NotTaken) = done {
                while !self.door.knock() && !stop.load(Ordering::Relaxed) {}
            }
            thread::sleep(PAUSE);
        }
        self.requests
    }

    /// The next write of an own chain.
    fn write(&mut self) -> Result<(), Failure> {
        let at = self.random.random_range(0..CHAINS_PER_WORKER);
        let key = chain_key(self.load, self.number, at);
        self.chains[at].0 += 1;
        let (number, context) = self.chains[at].clone();
        let context = self.asked(Kind::Write, |door| {
            door.put(&key, &chain_value(&key, number), context.as_deref())
        })?;
        self.chains[at].1 = Some(context);
        self.ledger.written(&key, &self.node[..2], number);
        Ok(())
    }

    /// A look at anybody's chain, which must show what was acknowledged before.
    fn read(&mut self) -> Result<(), Failure> {
        let writer = self.random.random_range(0..self.all);
        let key = chain_key(self.load, writer, self.random.random_range(0..CHAINS_PER_WORKER));
        self.look(&key).map(drop)
    }

    /// An element more in a set.
    fn add(&mut self) -> Result<(), Failure> {
        let key = format!("{}-set-{}", self.load, self.random.random_range(0..SETS));
        let found = self.look(&key)?;
        let element = format!("{}.{}", self.number, self.requests.len());
        let mut merged = elements(&found);
        merged.insert(element.clone());
        let value = merged.into_iter().collect::<Vec<_>>().join("\n");
        self.asked(Kind::Write, |door| door.put(&key, &value, found.context.as_deref()))?;
        self.ledger.added(&key, &self.node[..2], element);
        Ok(())
    }

    fn look(&mut self, key: &str) -> Result<super::door::Found, Failure> {
        let floor = self.ledger.floor(key, self.scope);
        let found = self.asked(Kind::Read, |door| door.get(key))?;
        if let Some(missing) = floor.missing(&found) {
            let last = self.requests.last_mut().expect("it was kept account of");
            last.outcome = Outcome::Stale(format!("{key}: {missing}"));
        }
        Ok(found)
    }

    fn asked<T>(
        &mut self,
        kind: Kind,
        ask: impl FnOnce(&mut D) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let result = ask(&mut self.door);
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(Failure::NotTaken) => Outcome::NotTaken,
            Err(Failure::Failed(why)) => Outcome::Failed(why.clone()),
        };
        let node = self.node;
        self.requests.push(Request { node, kind, start, end: Instant::now(), outcome });
        result
    }
}

fn chain_key(load: &str, worker: usize, at: usize) -> String {
    format!("{load}-chain-{worker}-{at}")
}
