//! Choosing nodes for partitions by their bids, no node beyond its limit.
//!
//! Bids are taken from the least draw upwards, so a choice depends on smaller draws only and a
//! change stays local. A partition that finds all of its bidders full has one of them hand another
//! partition on to a node with room (an augmenting path), as bipartite matching does.

use crate::draw::Draw;

/// No node.
pub(crate) const NOBODY: u16 = u16::MAX;

/// How many searches for a path may fail before the rest is not searched for: where the limits
/// leave too little room, every further search would look at everything in vain.
const VAIN_SEARCHES: u32 = 8;

/// A node's offer to hold a partition; ordered by draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bid(u64);

impl Bid {
    pub(crate) fn new(draw: Draw, partition: usize, node: usize) -> Self {
        debug_assert!(partition < 1 << 16 && node < 1 << 16);
        Self(u64::from(draw.to_bits()) << 32 | (partition as u64) << 16 | node as u64)
    }

    pub(crate) fn draw(self) -> Draw {
        Draw::from_bits((self.0 >> 32) as u32)
    }

    pub(crate) fn partition(self) -> usize {
        (self.0 >> 16) as usize & 0xFFFF
    }

    pub(crate) fn node(self) -> usize {
        self.0 as usize & 0xFFFF
    }
}

/// The nodes chosen: `wanted` for each partition, in the order of their draws unless handed on.
pub(crate) struct Choice {
    wanted: usize,
    nodes: Vec<u16>,
}

impl Choice {
    /// The nodes chosen for a partition.
    pub(crate) fn of(&self, partition: usize) -> &[u16] {
        let nodes = &self.nodes[partition * self.wanted..][..self.wanted];
        let chosen = nodes.iter().position(|node| *node == NOBODY).unwrap_or(self.wanted);
        &nodes[..chosen]
    }

    fn holds(&self, partition: usize, node: usize) -> bool {
        self.of(partition).contains(&(node as u16))
    }

    fn add(&mut self, partition: usize, node: usize) {
        let at = partition * self.wanted + self.of(partition).len();
        self.nodes[at] = node as u16;
    }

    fn replace(&mut self, partition: usize, from: usize, to: usize) {
        let nodes = &mut self.nodes[partition * self.wanted..][..self.wanted];
        if let Some(node) = nodes.iter_mut().find(|node| **node == from as u16) {
            *node = to as u16;
        }
    }
}

/// Chooses `wanted` nodes for each partition out of its bids, which are sorted. Adds what it
/// chooses to `load` and keeps that within `limits` wherever it can.
pub(crate) fn select(
    partitions: usize,
    bids: &[Bid],
    wanted: usize,
    load: &mut [u32],
    limits: &[u32],
) -> Choice {
    let mut choice = Choice { wanted, nodes: vec![NOBODY; partitions * wanted] };
    let mut missing = partitions * wanted;
    let mut counts = vec![0u8; partitions];
    for bid in bids {
        let (partition, node) = (bid.partition(), bid.node());
        let count = usize::from(counts[partition]);
        if count < wanted && load[node] < limits[node] {
            choice.nodes[partition * wanted + count] = node as u16;
            counts[partition] += 1;
            load[node] += 1;
            missing -= 1;
            if missing == 0 {
                return choice;
            }
        }
    }
    Rest::new(partitions, bids, choice, load, limits).place()
}

/// The partitions that the first pass left short.
struct Rest<'a> {
    choice: Choice,
    load: &'a mut [u32],
    limits: &'a [u32],
    /// The bids by partition, each partition's by draw.
    bids: Vec<Bid>,
    /// Where each partition's bids begin.
    starts: Vec<usize>,
    /// The partitions that each node was chosen for here.
    held: Vec<Vec<u32>>,
}

/// A step of a search: `node` could take `partition`, which the node of step `before` then needn't
/// hold; the first step has none before it.
struct Step {
    node: usize,
    partition: usize,
    before: Option<usize>,
}

impl<'a> Rest<'a> {
    fn new(
        partitions: usize,
        bids: &[Bid],
        choice: Choice,
        load: &'a mut [u32],
        limits: &'a [u32],
    ) -> Self {
        let mut starts = vec![0; partitions + 1];
        for bid in bids {
            starts[bid.partition() + 1] += 1;
        }
        for partition in 0..partitions {
            starts[partition + 1] += starts[partition];
        }
        let mut next = starts.clone();
        let mut sorted = bids.to_vec();
        for bid in bids {
            let at = &mut next[bid.partition()];
            sorted[*at] = *bid;
            *at += 1;
        }
        let mut held = vec![Vec::new(); load.len()];
        for partition in 0..partitions {
            for node in choice.of(partition) {
                held[usize::from(*node)].push(partition as u32);
            }
        }
        Self { choice, load, limits, bids: sorted, starts, held }
    }

    fn place(mut self) -> Choice {
        let mut vain = 0;
        for partition in 0..self.starts.len() - 1 {
            while self.choice.of(partition).len() < self.choice.wanted {
                if vain < VAIN_SEARCHES {
                    if self.search(partition) {
                        continue;
                    }
                    vain += 1;
                }
                if !self.overload(partition) {
                    break; // fewer bidders than wanted: the datacenter has no more nodes
                }
            }
        }
        self.choice
    }

    /// The bidders for a partition that were not chosen for it.
    fn others(&self, partition: usize) -> impl Iterator<Item = usize> {
        self.bids[self.starts[partition]..self.starts[partition + 1]]
            .iter()
            .map(|bid| bid.node())
            .filter(move |node| !self.choice.holds(partition, *node))
    }

    /// Breadth first, so the fewest partitions change hands.
    fn search(&mut self, partition: usize) -> bool {
        let mut seen = vec![false; self.load.len()];
        let mut steps: Vec<Step> = Vec::new();
        for node in self.others(partition) {
            seen[node] = true;
            steps.push(Step { node, partition, before: None });
        }
        let mut at = 0;
        while at < steps.len() {
            let node = steps[at].node;
            if self.load[node] < self.limits[node] {
                self.hand_on(&steps, at);
                return true;
            }
            for &held in &self.held[node] {
                let held = held as usize;
                for other in self.others(held) {
                    if !std::mem::replace(&mut seen[other], true) {
                        steps.push(Step { node: other, partition: held, before: Some(at) });
                    }
                }
            }
            at += 1;
        }
        false
    }

    fn hand_on(&mut self, steps: &[Step], last: usize) {
        self.load[steps[last].node] += 1;
        let mut step = &steps[last];
        loop {
            self.held[step.node].push(step.partition as u32);
            let Some(before) = step.before else {
                self.choice.add(step.partition, step.node);
                return;
            };
            let giver = steps[before].node;
            self.held[giver].retain(|held| *held as usize != step.partition);
            self.choice.replace(step.partition, giver, step.node);
            step = &steps[before];
        }
    }

    /// Puts a partition on the bidder that is the least full for its limit.
    fn overload(&mut self, partition: usize) -> bool {
        let fullness =
            |node: usize| f64::from(self.load[node]) / f64::from(self.limits[node].max(1));
        let least = self.others(partition).min_by(|a, b| fullness(*a).total_cmp(&fullness(*b)));
        let Some(node) = least else { return false };
        self.load[node] += 1;
        self.held[node].push(partition as u32);
        self.choice.add(partition, node);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bids(list: &[(u32, usize, usize)]) -> Vec<Bid> {
        let mut bids: Vec<Bid> =
            list.iter().map(|(draw, p, n)| Bid::new(Draw::from_bits(*draw), *p, *n)).collect();
        bids.sort_unstable();
        bids
    }

    #[test]
    fn the_least_draw_wins_while_there_is_room() {
        let bids = bids(&[(1, 0, 0), (2, 1, 0), (3, 1, 1), (4, 0, 1)]);
        let mut load = [0, 0];
        let choice = select(2, &bids, 1, &mut load, &[1, 1]);
        assert_eq!((choice.of(0), choice.of(1), load), (&[0][..], &[1][..], [1, 1]));
    }

    #[test]
    fn a_full_bidder_hands_a_partition_on() {
        // Partition 1 bids at node 0 only, which partition 0 took first though node 1 would do.
        let bids = bids(&[(1, 0, 0), (2, 0, 1), (3, 1, 0)]);
        let mut load = [0, 0];
        let choice = select(2, &bids, 1, &mut load, &[1, 1]);
        assert_eq!((choice.of(0), choice.of(1), load), (&[1][..], &[0][..], [1, 1]));
    }

    #[test]
    fn without_room_the_least_full_is_overloaded() {
        let bids = bids(&[(1, 0, 0), (2, 1, 0), (3, 1, 1), (9, 0, 1)]);
        let mut load = [0, 3];
        let choice = select(2, &bids, 1, &mut load, &[1, 3]);
        assert_eq!((choice.of(0), choice.of(1), load), (&[0][..], &[0][..], [2, 3]));
    }

    #[test]
    fn fewer_bidders_than_wanted_are_all_chosen() {
        let mut load = [0];
        let choice = select(1, &bids(&[(1, 0, 0)]), 3, &mut load, &[1]);
        assert_eq!(choice.of(0), [0]);
    }
}
