//! The receipt of a request in JSON: who took part in it, and how.

use anello_protocol::message::client::{Receipt, ReplicaOutcome, ReplicaReceipt, Role};
use serde::Serialize;
use utoipa::ToSchema;

/// One line of JSON in the header `Anello-Receipt`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReceiptBody {
    /// The number of the cluster state that the request was carried out under.
    epoch: u64,
    /// The key's partition.
    partition: u32,
    /// The node that coordinated the request.
    coordinator: String,
    /// Every replica that was asked.
    replicas: Vec<ReplicaBody>,
}

/// One replica's part in a request.
#[derive(Debug, Serialize, ToSchema)]
struct ReplicaBody {
    /// The node.
    id: String,
    /// Its datacenter.
    datacenter: String,
    /// Its rack.
    rack: String,
    /// Why it was asked.
    role: RoleBody,
    /// What it did.
    outcome: OutcomeBody,
    /// Microseconds from the request to its answer, or to when it was given up.
    us: u64,
}

/// Why a node was asked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum RoleBody {
    /// It is one of the key's own replicas.
    Replica,
    /// It stands in for one that can't be reached.
    StandIn,
}

/// What a replica did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OutcomeBody {
    /// It answered.
    Answered,
    /// It answered, and lacked something that another one had.
    Stale,
    /// It did not answer in time.
    Timeout,
    /// It could not be reached.
    Unreachable,
    /// It refused.
    Refused,
}

impl From<Receipt> for ReceiptBody {
    fn from(receipt: Receipt) -> Self {
        Self {
            epoch: receipt.epoch.0,
            partition: receipt.partition.0,
            coordinator: receipt.coordinator.to_string(),
            replicas: receipt.replicas.into_iter().map(ReplicaBody::from).collect(),
        }
    }
}

impl From<ReplicaReceipt> for ReplicaBody {
    fn from(replica: ReplicaReceipt) -> Self {
        Self {
            id: replica.id.to_string(),
            datacenter: replica.datacenter.to_string(),
            rack: replica.rack.to_string(),
            role: match replica.role {
                Role::Replica => RoleBody::Replica,
                Role::StandIn => RoleBody::StandIn,
            },
            outcome: match replica.outcome {
                ReplicaOutcome::Answered => OutcomeBody::Answered,
                ReplicaOutcome::Stale => OutcomeBody::Stale,
                ReplicaOutcome::Timeout => OutcomeBody::Timeout,
                ReplicaOutcome::Unreachable => OutcomeBody::Unreachable,
                ReplicaOutcome::Refused => OutcomeBody::Refused,
            },
            us: replica.us,
        }
    }
}

#[cfg(test)]
mod tests {
    use anello_protocol::id::{Datacenter, Epoch, NodeId, PartitionId, Rack};

    use super::*;

    #[test]
    fn a_receipt_is_one_line_in_the_order_of_the_contract() {
        let replica = |role, outcome| ReplicaReceipt {
            id: NodeId::new("eu-a-1").unwrap(),
            datacenter: Datacenter::new("eu").unwrap(),
            rack: Rack::new("a").unwrap(),
            role,
            outcome,
            us: 7,
        };
        let receipt = Receipt {
            epoch: Epoch(3),
            partition: PartitionId(17),
            coordinator: NodeId::new("eu-b-1").unwrap(),
            replicas: vec![
                replica(Role::Replica, ReplicaOutcome::Answered),
                replica(Role::StandIn, ReplicaOutcome::Unreachable),
            ],
        };
        let line = serde_json::to_string(&ReceiptBody::from(receipt)).unwrap();
        let place = r#""id":"eu-a-1","datacenter":"eu","rack":"a""#;
        let expected = format!(
            r#"{{"epoch":3,"partition":17,"coordinator":"eu-b-1","replicas":[{{{place},"role":"replica","outcome":"answered","us":7}},{{{place},"role":"stand-in","outcome":"unreachable","us":7}}]}}"#
        );
        assert_eq!(line, expected);
    }
}
