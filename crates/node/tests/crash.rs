//! Promise A with real processes and a real disk: all nodes killed with signal 9 at once under write
//! load, again and again, and no acknowledged write is missing afterwards.
//!
//! `ANELLO_CRASH_ROUNDS` says how many rounds; 5 by default.

mod fleet;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use fleet::{Fleet, THREE, http, wait_until};

const WRITERS: usize = 6;

/// What was acknowledged: the value by key.
type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

fn write_until(stop: &AtomicBool, nodes: &[SocketAddr], name: &str, acknowledged: &Acknowledged) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("{name}-{number}"), format!("value of {name}-{number}"));
        let node = nodes[number % nodes.len()];
        // Any other answer, or none, says that it may not have been kept.
        if http::put(node, &format!("/kv/{key}"), value.as_bytes())
            .is_ok_and(|answer| answer.status == 200)
        {
            acknowledged.lock().expect("not poisoned").insert(key, value);
        }
        number += 1;
    }
}

/// Keys whose value isn't there, read at a quorum.
fn missing(nodes: &[SocketAddr], acknowledged: &BTreeMap<String, String>) -> Vec<String> {
    let mut missing = Vec::new();
    for (number, (key, value)) in acknowledged.iter().enumerate() {
        let get = http::get(nodes[number % nodes.len()], &format!("/kv/{key}")).expect("answered");
        if get.status != 200 || get.json()["value"] != value.as_str() {
            missing.push(format!("{key}: {} {}", get.status, get.text()));
        }
    }
    missing
}

#[test]
fn no_acknowledged_write_is_lost_when_all_are_killed_at_once() {
    let rounds = std::env::var("ANELLO_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: u32 = rounds.unwrap_or(5);
    let mut fleet = Fleet::up(&THREE);
    let nodes: Vec<_> = fleet.nodes.iter().map(|node| node.http).collect();
    let acknowledged = Acknowledged::default();
    for round in 0..rounds {
        let before = acknowledged.lock().expect("not poisoned").len();
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (stop, nodes) = (Arc::clone(&stop), nodes.clone());
                let acknowledged = Arc::clone(&acknowledged);
                let name = format!("round-{round}-writer-{writer}");
                thread::spawn(move || write_until(&stop, &nodes, &name, &acknowledged))
            })
            .collect();
        // The kill comes while requests are under way, after another number of them every round.
        let enough = before + 200 + 37 * round as usize;
        wait_until("enough writes are acknowledged", Duration::from_secs(60), || {
            acknowledged.lock().expect("not poisoned").len() >= enough
        });
        fleet.kill();
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
        fleet.start();
        fleet.wait_ready();
        let acknowledged = acknowledged.lock().expect("not poisoned").clone();
        let missing = missing(&nodes, &acknowledged);
        assert!(
            missing.is_empty(),
            "round {round}: {} of {} missing: {missing:#?}",
            missing.len(),
            acknowledged.len()
        );
    }
}
