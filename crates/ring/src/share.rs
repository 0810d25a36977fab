//! The fair share of every node of a datacenter: which part of the partitions it should hold when
//! each has `replicas` of them there. What the claim aims at and what its balance is measured by.
//!
//! - One replica: by weight.
//! - More, up to the number of racks: a partition's racks are those that come first in a race in
//!   which each has the rate of its weight. With as many replicas as racks, every rack holds every
//!   partition, whatever its weight. In between, a heavier rack holds more, but less than in
//!   proportion, for a rack can't hold a partition twice. Within a rack: by weight.
//! - More replicas than racks: all nodes race, but the best of each rack is in, whenever it comes.
//!   Within a rack: by weight, but no node holds a partition twice.
//! - A single rack: by weight, but no node holds one twice.

use crate::draw::one_minus_exp;

/// Bisection steps: enough for the last bit of what the level can be.
const STEPS: u32 = 64;

/// Weights by node and by rack.
pub(crate) struct Shares {
    /// Of each node: its rack and its weight.
    nodes: Vec<(usize, f64)>,
    /// Of each rack, the sum of its nodes' weights.
    racks: Vec<f64>,
}

impl Shares {
    pub(crate) fn new(nodes: Vec<(usize, f64)>) -> Self {
        let count = nodes.iter().map(|(rack, _)| rack + 1).max().unwrap_or(0);
        let mut racks = vec![0.0; count];
        for &(rack, weight) in &nodes {
            racks[rack] += weight;
        }
        Self { nodes, racks }
    }

    /// The fair share of each node, from 0 to 1, for this many replicas.
    pub(crate) fn fair(&self, replicas: usize) -> Vec<f64> {
        let replicas = replicas.min(self.nodes.len());
        let racks = self.racks.len();
        if replicas == self.nodes.len() {
            vec![1.0; replicas]
        } else if replicas <= 1 {
            let total: f64 = self.racks.iter().sum();
            self.nodes.iter().map(|(_, weight)| replicas as f64 * weight / total).collect()
        } else if replicas < racks {
            let race = |level: f64| self.racks.iter().map(|w| one_minus_exp(level * w)).collect();
            self.within_racks(&level(replicas as f64, race))
        } else if replicas == racks {
            self.within_racks(&vec![1.0; racks])
        } else {
            self.beyond_racks(replicas)
        }
    }

    /// Hands each rack's share on to its nodes, by weight.
    fn within_racks(&self, shares: &[f64]) -> Vec<f64> {
        self.nodes.iter().map(|&(rack, weight)| shares[rack] * weight / self.racks[rack]).collect()
    }

    fn beyond_racks(&self, replicas: usize) -> Vec<f64> {
        if self.racks.len() == 1 {
            let all: Vec<usize> = (0..self.nodes.len()).collect();
            return self.filled(&all, replicas as f64);
        }
        let raced = level(replicas as f64, |level| {
            let share = |&(rack, weight): &(usize, f64)| {
                let raced = one_minus_exp(level * weight);
                let none_raced = 1.0 - one_minus_exp(level * self.racks[rack]);
                raced + none_raced * weight / self.racks[rack]
            };
            self.nodes.iter().map(share).collect()
        });
        let mut members = vec![Vec::new(); self.racks.len()];
        let mut sums = vec![0.0; self.racks.len()];
        for (node, (rack, _)) in self.nodes.iter().enumerate() {
            members[*rack].push(node);
            sums[*rack] += raced[node];
        }
        let mut shares = vec![0.0; self.nodes.len()];
        for (members, sum) in members.iter().zip(sums) {
            for (node, share) in members.iter().zip(self.filled(members, sum)) {
                shares[*node] = share;
            }
        }
        shares
    }

    /// A sum handed out to these nodes by weight, to none more than 1.
    fn filled(&self, nodes: &[usize], sum: f64) -> Vec<f64> {
        level(sum, |level| nodes.iter().map(|n| (level * self.nodes[*n].1).min(1.0)).collect())
    }
}

/// What `shares` yields at the level at which it sums up to `target`.
fn level(target: f64, shares: impl Fn(f64) -> Vec<f64>) -> Vec<f64> {
    let sum = |level: f64| shares(level).iter().sum::<f64>();
    let mut high = 1.0;
    while sum(high) < target && high < 1e12 {
        high *= 2.0;
    }
    let mut low = 0.0;
    for _ in 0..STEPS {
        let middle = (low + high) / 2.0;
        if sum(middle) < target {
            low = middle;
        } else {
            high = middle;
        }
    }
    shares(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(shares: &[f64]) -> f64 {
        shares.iter().sum()
    }

    #[test]
    fn shares_add_up_to_the_replicas() {
        let nodes = vec![(0, 1.0), (0, 2.0), (1, 0.5), (2, 4.0), (2, 1.0), (3, 1.0)];
        let shares = Shares::new(nodes);
        for replicas in 0..=6 {
            let fair = shares.fair(replicas);
            assert!((sum(&fair) - replicas as f64).abs() < 1e-5, "{replicas}: {fair:?}");
            assert!(fair.iter().all(|share| (0.0..=1.0 + 1e-9).contains(share)));
        }
    }

    #[test]
    fn as_many_replicas_as_racks_fill_every_rack() {
        let fair = Shares::new(vec![(0, 1.0), (1, 1.0), (1, 3.0)]).fair(2);
        assert_eq!(fair, [1.0, 0.25, 0.75]);
    }

    #[test]
    fn a_light_rack_still_holds_everything_once() {
        let fair = Shares::new(vec![(0, 1.0), (1, 5.0), (1, 5.0), (1, 5.0), (1, 5.0)]).fair(3);
        assert!((fair[0] - 1.0).abs() < 1e-6);
        assert!((fair[1] - 0.5).abs() < 1e-6);
    }
}
