//! In which order a new cluster state goes out, by threads that note what they are told.

use actix::{Actor, Context, Handler};
use anello_protocol::{cluster::Phase, id::Epoch, key::DataKey};
use anello_replica::store::Store;
use anello_transport::ActorRef;

use super::*;
use crate::rocks::tests::{
    key, open, partition_of,
    rings::{self, node},
    versions, write,
};

/// Nobody who does anything.
struct Deaf;

impl Actor for Deaf {
    type Context = Context<Self>;
}

impl Handler<Condition> for Deaf {
    type Result = ();

    fn handle(&mut self, _: Condition, _: &mut Context<Self>) {}
}

struct Bench {
    events: mpsc::UnboundedSender<MembershipEvent>,
    arbiters: Vec<mpsc::UnboundedReceiver<Order>>,
    steward: mpsc::UnboundedReceiver<Order>,
    views: watch::Receiver<Option<Arc<View>>>,
    store: Arc<RocksStore>,
    _dir: tempfile::TempDir,
}

/// Node `a`, with two arbiters.
fn bench() -> Bench {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let (first_in, first) = mpsc::unbounded_channel();
    let (second_in, second) = mpsc::unbounded_channel();
    let (steward_in, steward) = mpsc::unbounded_channel();
    let (views_in, views) = watch::channel(None);
    let (events, events_out) = mpsc::unbounded_channel();
    let (unfit_in, unfit) = mpsc::unbounded_channel();
    let conductor = Conductor {
        node: node("a"),
        arbiters: vec![first_in, second_in],
        steward: steward_in,
        peers: Vec::new(),
        store: Arc::clone(&store),
        routes: Routes::new(256, ActorRef::function(|_| Ok(()))),
        readiness: Readiness::default(),
        status: Arc::new(Status::new()),
        failure: Arc::new(watch::channel(None).0),
        views: views_in,
        known: BTreeSet::new(),
        gossip: Deaf.start().recipient(),
        is_unfit: false,
    };
    actix::spawn(async move {
        let _kept = unfit_in;
        conductor.run(events_out, unfit).await;
    });
    Bench { events, arbiters: vec![first, second], steward, views, store, _dir: dir }
}

impl Bench {
    fn change(&self, view: &View) {
        let event = MembershipEvent::ClusterChanged(Arc::clone(view.cluster()));
        self.events.send(event).expect("it listens");
    }

    /// The next order of each arbiter.
    async fn of_arbiters(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        for arbiter in &mut self.arbiters {
            orders.push(arbiter.recv().await.expect("it goes on"));
        }
        orders
    }

    /// Waits long enough for whatever might come too early.
    async fn nothing_follows(&mut self) {
        sleep(Duration::from_millis(30)).await;
        assert!(self.steward.try_recv().is_err());
        for arbiter in &mut self.arbiters {
            assert!(arbiter.try_recv().is_err());
        }
    }
}

const KEYSPACES: &[(u64, u16)] = &[(1, 1)];

fn holds_all(store: &RocksStore, keys: &[DataKey]) -> bool {
    keys.iter().all(|key| !store.read(key).expect("readable").is_empty())
}

#[test]
fn the_steward_acts_once_every_arbiter_does_and_what_is_not_held_goes_last() {
    actix::System::new().block_on(goes_out());
}

async fn goes_out() {
    let mut bench = bench();
    let view = rings::settled(6, &["a", "b"], KEYSPACES);
    let own = view.held_partitions(&node("a"));
    let keys: Vec<_> = (0..100).map(|number| key(1, number)).collect();
    for (number, key) in keys.iter().enumerate() {
        write(&bench.store, key, versions(number as u64, 10));
    }
    bench.change(&view);
    for order in bench.of_arbiters().await {
        let Order::Hold(held, done) = order else { panic!("first the vnodes are made") };
        assert_eq!(*held, own);
        bench.nothing_follows().await;
        done.send(()).expect("it waits");
    }
    let Some(Order::Judge(_, judged)) = bench.steward.recv().await else { panic!("judged") };
    bench.nothing_follows().await;
    judged.send(None).expect("it waits");
    for order in bench.of_arbiters().await {
        let Order::Act(acting, done) = order else { panic!("then they act") };
        assert_eq!(acting.epoch(), Epoch(6));
        bench.nothing_follows().await;
        assert!(bench.views.borrow().is_none());
        done.send(()).expect("it waits");
    }
    let Some(Order::Act(_, done)) = bench.steward.recv().await else { panic!("then it acts") };
    bench.nothing_follows().await;
    assert!(holds_all(&bench.store, &keys), "somebody may show it yet");
    done.send(()).expect("it waits");
    bench.views.wait_for(Option::is_some).await.expect("it goes on");
    let is_over = || {
        keys.iter().all(|key| {
            let is_own = own.contains(&partition_of(key));
            holds_all(&bench.store, std::slice::from_ref(key)) == is_own
        })
    };
    while !is_over() {
        sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn what_is_taken_in_is_cleared_before_any_vnode_is_made() {
    actix::System::new().block_on(takes_in());
}

async fn takes_in() {
    let mut bench = bench();
    let view = rings::joining(6, 6, &["b", "a"], KEYSPACES, Phase::Filling);
    let own = view.held_partitions(&node("a"));
    let taken_in = |key: &_| own.contains(&partition_of(key));
    let key = (0..).map(|number| key(1, number)).find(taken_in).expect("there is one");
    let keys = std::slice::from_ref(&key);
    write(&bench.store, &key, versions(1, 10));
    bench.change(&view);
    for order in bench.of_arbiters().await {
        let Order::End(partitions, done) = order else { panic!("first their vnodes end") };
        assert!(partitions.contains(&partition_of(&key)));
        bench.nothing_follows().await;
        assert!(holds_all(&bench.store, keys), "a vnode may build on it yet");
        done.send(()).expect("it waits");
    }
    let orders = bench.of_arbiters().await;
    assert!(orders.iter().all(|order| matches!(order, Order::Hold(..))));
    assert!(!holds_all(&bench.store, keys));
    drop(orders);
    // It arrives, and stays: another state of the same change clears nothing.
    let Some(Order::Judge(..)) = bench.steward.recv().await else { panic!("judged") };
    drop(bench.of_arbiters().await);
    let Some(Order::Act(..)) = bench.steward.recv().await else { panic!("then it acts") };
    write(&bench.store, &key, versions(2, 10));
    bench.change(&rings::joining(7, 6, &["b", "a"], KEYSPACES, Phase::Serving));
    let orders = bench.of_arbiters().await;
    assert!(orders.iter().all(|order| matches!(order, Order::Hold(..))));
    assert!(holds_all(&bench.store, keys));
}
