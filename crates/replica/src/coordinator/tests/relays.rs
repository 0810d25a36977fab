//! Writes between datacenters, at both ends.

use anello_protocol::{
    causality::Context,
    consistency::Consistency,
    message::replica::{
        Refusal, RelayFailure, RelayVersions, RelayedAck, StoreVersions, Stored, WriteTicket,
    },
    time::HybridTime,
    version::ConflictRule,
};

use super::bench::{
    BOTH, Bench, Sent, at, cluster, data_key, lww, minted, node, options, put, version, view,
};
use crate::coordinator::{CallFailure, CoordinatorConfig, Effect, Input, Outgoing, Reply};

fn sent_relay(bench: &mut Bench) -> (Sent, RelayVersions) {
    let sent = bench.sent();
    match sent.message.clone() {
        Outgoing::Relay(relay) => (sent, relay),
        other => panic!("expected a relay to be asked, not {other:?}"),
    }
}

fn acked(bench: &mut Bench, ticket: WriteTicket, id: &str, outcome: Result<Stored, RelayFailure>) {
    bench.input(Input::Acked(RelayedAck { ticket, replica: node(id), outcome }));
}

const STORED: Stored = Stored { lost_to: None, is_quarantined: false };

/// A write under way that has been issued: what was sent to the neighbours and to the relay.
fn write(
    bench: &mut Bench,
    level: Consistency,
) -> (crate::coordinator::Token, [Sent; 2], Sent, RelayVersions) {
    let token = bench.write(put(1, at(level)));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let neighbours = [bench.sent_store("eu-b").0, bench.sent_store("eu-c").0];
    let (sent, relay) = sent_relay(bench);
    bench.nothing();
    (token, neighbours, sent, relay)
}

#[test]
fn a_write_crosses_between_datacenters_once() {
    let mut bench = Bench::of(&BOTH);
    let (token, neighbours, sent, relay) = write(&mut bench, Consistency::EachQuorum);
    assert_eq!(
        (sent.to.as_str(), relay.others.clone()),
        ("us-a", vec![node("us-b"), node("us-c")])
    );
    assert_eq!(relay.origin, node("eu-a"));
    for sent in &neighbours {
        bench.stores(sent);
    }
    bench.nothing();
    bench.stores(&sent);
    bench.nothing();
    acked(&mut bench, relay.ticket, "us-c", Ok(STORED));
    assert!(bench.written(token).result.is_ok(), "a quorum in each");
    acked(&mut bench, relay.ticket, "us-c", Ok(STORED));
    acked(&mut bench, relay.ticket, "us-b", Ok(STORED));
    bench.idle();
}

#[test]
fn an_acknowledgement_counts_once() {
    let mut bench = Bench::of(&BOTH);
    let (_, neighbours, _, relay) = write(&mut bench, Consistency::Quorum);
    bench.stores(&neighbours[0]);
    for _ in 0..5 {
        acked(&mut bench, relay.ticket, "us-b", Ok(STORED));
    }
    acked(&mut bench, relay.ticket, "xx-b", Ok(STORED));
    let others = WriteTicket { number: relay.ticket.number + (1 << 16), ..relay.ticket };
    acked(&mut bench, others, "us-c", Ok(STORED));
    let another = WriteTicket { coordinator: 9, ..relay.ticket };
    acked(&mut bench, another, "us-c", Ok(STORED));
    bench.nothing();
}

#[test]
fn an_acknowledgement_for_a_former_life_does_not_count() {
    let tickets = [1, 2].map(|seed| {
        let mut bench = Bench::in_life(seed, "eu-a", CoordinatorConfig::default());
        bench.input(Input::ClusterChanged(view(cluster(1, &BOTH, Default::default()))));
        write(&mut bench, Consistency::Quorum).3.ticket
    });
    assert_ne!(tickets[0], tickets[1], "although each is of a life's first write");
}

#[test]
fn behind_a_silent_relay_replicas_are_written_to_directly() {
    let mut bench = Bench::of(&BOTH);
    let (token, neighbours, _, _) = write(&mut bench, Consistency::EachQuorum);
    for sent in &neighbours {
        bench.stores(sent);
    }
    bench.wait(299);
    bench.nothing();
    bench.wait(1);
    let direct = [bench.sent_store("us-b").0, bench.sent_store("us-c").0];
    for sent in &direct {
        bench.stores(sent);
    }
    assert!(bench.written(token).result.is_ok());
}

#[test]
fn without_a_relay_replicas_are_written_to_directly() {
    for failure in [CallFailure::Unreachable, CallFailure::Busy, CallFailure::Closed] {
        let mut bench = Bench::of(&BOTH);
        let (token, _, sent, _) = write(&mut bench, Consistency::EachQuorum);
        bench.fails(&sent, failure);
        let direct = [bench.sent_store("us-b").0, bench.sent_store("us-c").0];
        if failure != CallFailure::Busy {
            bench.sent_hint("us-a", "eu-a");
        }
        bench.nothing();
        for sent in &direct {
            bench.stores(sent);
        }
        bench.nothing();
        let _ = token;
    }
}

#[test]
fn the_relay_is_one_that_can_be_reached() {
    let mut bench = Bench::of(&BOTH);
    bench.reachable("us-a", false);
    bench.write(put(1, at(Consistency::Quorum)));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let _ = [bench.sent_store("eu-b"), bench.sent_store("eu-c")];
    let (sent, relay) = sent_relay(&mut bench);
    assert_eq!(sent.to, "us-b");
    assert_eq!(relay.others, [node("us-c"), node("us-a")], "the relay may reach it");
    bench.sent_hint("us-a", "eu-a");
    acked(&mut bench, relay.ticket, "us-a", Err(RelayFailure::Unreachable));
    acked(&mut bench, relay.ticket, "us-c", Err(RelayFailure::Busy));
    bench.nothing();
    bench.wait(20);
    let mut again = [bench.sent().to, bench.sent().to];
    again.sort();
    assert_eq!(again, ["us-a", "us-c"]);
}

#[test]
fn acknowledgements_of_a_version_that_lost_do_not_count() {
    let mut bench = Bench::at("eu-a", &BOTH, lww());
    let (token, neighbours, _, first) = write(&mut bench, Consistency::Quorum);
    let later = HybridTime::from_wall_ms(1 << 40);
    bench.stores(&neighbours[0]);
    acked(
        &mut bench,
        first.ticket,
        "us-b",
        Ok(Stored { lost_to: Some(later), is_quarantined: false }),
    );
    let (mint, message) = bench.sent_mint();
    assert_eq!(message.later_than, Some(later));
    bench.mints(&mint, &minted(version(1, 2, 1, Context::new())));
    let neighbours = [bench.sent_store("eu-b").0, bench.sent_store("eu-c").0];
    let (sent, second) = sent_relay(&mut bench);
    assert_ne!(first.ticket, second.ticket);
    acked(&mut bench, first.ticket, "us-b", Ok(STORED));
    acked(&mut bench, first.ticket, "us-c", Ok(STORED));
    bench.stores(&neighbours[0]);
    bench.nothing();
    bench.stores(&sent);
    bench.nothing();
    acked(&mut bench, second.ticket, "us-b", Ok(STORED));
    assert!(bench.written(token).result.is_ok());
}

#[test]
fn a_relay_stores_passes_on_and_tells() {
    let mut bench = Bench::at("us-a", &BOTH, Default::default());
    let token = bench.token();
    let ticket = WriteTicket { coordinator: 1, number: 7 };
    let versions = minted(version(1, 1, 1, Context::new())).versions;
    let rule = ConflictRule::Siblings;
    let store =
        StoreVersions { epoch: anello_protocol::id::Epoch(1), key: data_key(), rule, versions };
    let relay = RelayVersions {
        store: store.clone(),
        others: vec![node("us-b"), node("us-c")],
        origin: node("eu-a"),
        ticket,
        timeout_ms: options().timeout_ms,
    };
    bench.input(Input::Relay { token, relay });
    let (own, stored) = bench.sent_store("us-a");
    assert_eq!(stored, store);
    let (second, _) = bench.sent_store("us-b");
    let (third, _) = bench.sent_store("us-c");
    bench.stores(&second);
    let ack = |replica: &str, outcome| Effect::Ack {
        to: node("eu-a"),
        ack: RelayedAck { ticket, replica: node(replica), outcome },
    };
    assert_eq!(bench.next(), ack("us-b", Ok(STORED)));
    bench.refuses(&own, Refusal::Frozen);
    assert_eq!(bench.next(), Effect::Reply(token, Reply::Relay(Err(Refusal::Frozen))));
    bench.fails(&third, CallFailure::Unreachable);
    assert_eq!(bench.next(), ack("us-c", Err(RelayFailure::Unreachable)));
    bench.idle();
}
