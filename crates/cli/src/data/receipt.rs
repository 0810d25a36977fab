//! Receipts: who took part in a request, as JSON like the HTTP API's, and as a table.

use anello_protocol::message::client::{Receipt, ReplicaOutcome, Role};
use serde_json::{Value, json};

use crate::{
    output::{Palette, Tone},
    table::{Align, Cell, Table},
};

/// The document that the HTTP API answers.
pub(super) fn json(receipt: &Receipt) -> Value {
    let replicas: Vec<_> = receipt
        .replicas
        .iter()
        .map(|replica| {
            json!({
                "id": replica.id,
                "datacenter": replica.datacenter,
                "rack": replica.rack,
                "role": role(replica.role),
                "outcome": outcome(replica.outcome).1,
                "us": replica.us,
            })
        })
        .collect();
    json!({
        "epoch": receipt.epoch,
        "partition": receipt.partition,
        "coordinator": receipt.coordinator,
        "replicas": replicas,
    })
}

/// For people.
pub(super) fn table(receipt: &Receipt) -> String {
    let mut table = Table::new(&[
        ("datacenter", Align::Left),
        ("rack", Align::Left),
        ("node", Align::Left),
        ("role", Align::Left),
        ("outcome", Align::Left),
        ("ms", Align::Right),
    ]);
    for replica in &receipt.replicas {
        let (tone, outcome) = outcome(replica.outcome);
        table.row([
            replica.datacenter.as_str().into(),
            replica.rack.as_str().into(),
            replica.id.as_str().into(),
            role(replica.role).into(),
            Cell::toned(tone, outcome),
            format!("{:.2}", replica.us as f64 / 1000.0).into(),
        ]);
    }
    let Receipt { epoch, partition, coordinator, .. } = receipt;
    let table = table.render(Palette::of_stderr());
    format!("partition {partition}, coordinated by {coordinator} under epoch {epoch}\n{table}")
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Replica => "replica",
        Role::StandIn => "stand-in",
    }
}

fn outcome(outcome: ReplicaOutcome) -> (Tone, &'static str) {
    match outcome {
        ReplicaOutcome::Answered => (Tone::Good, "answered"),
        ReplicaOutcome::Stale => (Tone::Warning, "stale"),
        ReplicaOutcome::Timeout => (Tone::Bad, "timeout"),
        ReplicaOutcome::Unreachable => (Tone::Bad, "unreachable"),
        ReplicaOutcome::Refused => (Tone::Bad, "refused"),
    }
}
