//! What one call of 1 KiB over QUIC costs: CPU time of both ends, and how many fit into a second.
//!
//! `cargo bench -p anello-transport [-- SECONDS]`. Two threads, a runtime each, as two nodes have it; TLS
//! and all. Absolute times are the machine's; the CPU time per call is what to compare.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a bench may panic")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use anello_protocol::message::{Lane, Message};
use anello_transport::{ActorRef, Peers, Router};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use support::{anywhere, authority::Authority, dial, id, listen, node, patient, run};

/// A value on its way to be stored.
#[derive(Serialize, Deserialize)]
struct Put {
    value: Bytes,
}

impl Message for Put {
    type Reply = [u64; 4];
    const TAG: u16 = 60_100;
    const LANE: Lane = Lane::Data;
    const FOR_CLIENTS: bool = false;
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(3);
    let time = Duration::from_secs(seconds);
    let authority = Authority::new();
    let (send, sent) = std::sync::mpsc::channel();
    let identity = node(&authority, "b");
    thread::spawn(move || {
        run(async {
            let store = ActorRef::<Put>::function(|call| {
                call.reply.send([u64::MAX; 4]);
                Ok(())
            });
            let router = Router::builder().serve(store).build();
            let listener = listen(anywhere(), identity, router);
            send.send(listener.local_address()).unwrap();
            std::future::pending().await
        });
    });
    let address = sent.recv().unwrap();
    run(async {
        let peers = dial(node(&authority, "a"));
        peers.know(&id("b"), &address.to_string());
        println!("   in flight     bytes     calls/s    CPU us/call");
        for (in_flight, bytes) in [(1, 1024), (16, 1024), (64, 1024), (256, 1024), (8, 1 << 20)] {
            measure(&peers, in_flight, bytes, time).await;
        }
    });
}

async fn measure(peers: &Peers, in_flight: usize, bytes: usize, time: Duration) {
    let actor = ActorRef::<Put>::peer(peers, id("b"));
    let value = Bytes::from(vec![7; bytes]);
    let call = || actor.call(Put { value: value.clone() }, patient());
    let mut calls: FuturesUnordered<_> = (0..in_flight).map(|_| call()).collect();
    let (mut done, began, cpu) = (0u64, Instant::now(), cpu_time());
    while began.elapsed() < time {
        calls.next().await.unwrap().unwrap();
        calls.push(call());
        done += 1;
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
    let (rate, each) = (done as f64 / took, cpu * 1e6 / done as f64);
    println!("{in_flight:12} {bytes:9} {rate:11.0} {each:14.2}");
    while calls.next().await.is_some() {}
}

/// The CPU time that this process has used.
fn cpu_time() -> Duration {
    // Fields 14 and 15 after the name, which may hold spaces, in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
