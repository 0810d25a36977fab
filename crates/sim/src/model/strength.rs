//! How many replicas an answer stands for, and which answers must meet.

use std::collections::BTreeMap;

use anello_protocol::id::{Datacenter, NodeId};

/// How many replicas an answer stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strength {
    /// That many of all N.
    Total {
        /// How many.
        count: usize,
        /// N.
        of: usize,
    },
    /// That many in one datacenter.
    Local {
        /// Where.
        datacenter: Datacenter,
        /// How many.
        count: usize,
        /// How many there are.
        of: usize,
    },
    /// A majority in each datacenter.
    Each {
        /// How many there are, by datacenter.
        of: BTreeMap<Datacenter, usize>,
    },
}

impl Strength {
    /// Whether every set of replicas behind the one shares a replica with every set behind the other.
    pub fn overlaps(&self, other: &Strength) -> bool {
        match (self, other) {
            (Strength::Total { count: r, of }, Strength::Total { count: w, .. }) => r + w > *of,
            (
                Strength::Local { datacenter: here, count: r, of },
                Strength::Local { datacenter: there, count: w, .. },
            ) => here == there && r + w > *of,
            (Strength::Local { count: local, .. }, Strength::Total { count, of })
            | (Strength::Total { count, of }, Strength::Local { count: local, .. }) => {
                count + local > *of
            }
            (Strength::Each { of: each }, Strength::Local { datacenter, count, of })
            | (Strength::Local { datacenter, count, of }, Strength::Each { of: each }) => {
                each.get(datacenter).is_some_and(|all| count + all / 2 + 1 > *of)
            }
            (Strength::Each { of: each }, Strength::Total { count, of })
            | (Strength::Total { count, of }, Strength::Each { of: each }) => {
                count + each.values().map(|all| all / 2 + 1).sum::<usize>() > *of
            }
            (Strength::Each { .. }, Strength::Each { .. }) => true,
        }
    }

    /// Whether these are as many as it takes.
    pub fn is_met_by(&self, holders: &BTreeMap<NodeId, Datacenter>) -> bool {
        let within = |place: &Datacenter| holders.values().filter(|at| *at == place).count();
        match self {
            Strength::Total { count, .. } => holders.len() >= *count,
            Strength::Local { datacenter, count, .. } => within(datacenter) >= *count,
            Strength::Each { of } => of.iter().all(|(at, all)| within(at) > all / 2),
        }
    }
}
