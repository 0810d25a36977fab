//! The claim: which nodes of a datacenter hold a partition, and in what order.
//!
//! A pure function of the nodes: the same on every node, whatever the order they came in, with no
//! memory of earlier claims. What it yields for each partition is the beginning of its **walk**: the
//! order in which the datacenter's nodes hold it. The walk visits every rack before it comes back
//! to one.
//!
//! 1. **Every rack claims every partition**: each of its nodes bids with its draw, the least draws
//!    win, and no node wins more than its limit, some 9 % above its fair share ([`crate::share`]).
//!    This is rendezvous hashing with bounded loads. A rack's choice knows nothing of other racks,
//!    so a node that joins or leaves moves partitions of its own rack's claim only.
//! 2. **The racks compete**: for each partition, the first [`REFERENCE`] racks by the draws of
//!    their winners are chosen as a set, again within the nodes' limits.
//! 3. **The set is put in order**: one of it owns the partition (owned partitions are balanced
//!    too), one comes second. This moves nothing in a keyspace of that many replicas.
//! 4. **The walk goes on** position by position, each within the limits for so many replicas:
//!    further racks, then the racks' second nodes, and so on.
//!
//! In a datacenter of one rack, every node is treated as a rack of its own. Where there are more than
//! [`FEW`] racks, step 1 is left out: a rack's winner is its least draw.
//!
//! Why not one owner for each token and a walk along neighbouring tokens: a token that changes hands
//! then changes the walks of all tokens before it, and balance of tokens is not balance of what
//! walks meet. See `docs/adr/0002-claim.md` for what was measured.

use crate::{
    draw::{Draws, minus_ln_1p},
    select::{Bid, Choice, NOBODY, select},
    share::Shares,
};

/// The positions of each walk that are claimed within limits. Further ones follow the draws alone.
pub(crate) const DEPTH: usize = 8;

/// The number of replicas whose balance and movement come first: what keyspaces have by default.
pub(crate) const REFERENCE: usize = 3;

/// How far above its fair share a node may be loaded, before rounding.
const SLACK: f64 = 0.095;

/// The most that a node's load may exceed its rack's mean by.
const TOLERANCE: f64 = 0.10;

/// Below this mean, one partition more or less is beyond the tolerance.
const LEAST_MEAN: f64 = 16.0;

/// How often the limits are drawn tighter where a rack got less than its fair share.
const ROUNDS: usize = 5;

/// Up to so many bidders, be they nodes of a rack or racks, all bid for everything.
const FEW: usize = 16;

/// Bids for each partition where there are more bidders.
const MANY: f64 = 28.0;

/// A node as the claim sees it.
pub(crate) struct Node {
    /// Stands for its id.
    pub(crate) seed: u64,
    /// Its rack, counted from 0 without gaps.
    pub(crate) rack: usize,
    /// Its weight.
    pub(crate) weight: f64,
}

/// The beginning of the walk of every partition.
pub(crate) struct Walks {
    /// Positions of each walk.
    pub(crate) depth: usize,
    /// The nodes: partition after partition, `depth` of each.
    pub(crate) nodes: Vec<u16>,
}

/// Claims 2^`bits` partitions for the nodes of one datacenter.
pub(crate) fn claim(bits: u32, nodes: &[Node]) -> Walks {
    Claim::new(bits, nodes).walk()
}

/// The part of the partitions that each node should hold for so many replicas.
pub(crate) fn fair_shares(nodes: &[Node], replicas: usize) -> Vec<f64> {
    Shares::new(nodes.iter().map(|node| (node.rack, node.weight)).collect()).fair(replicas)
}

struct Claim {
    partitions: usize,
    draws: Vec<Draws>,
    /// The rack of each node.
    rack_of: Vec<usize>,
    /// The nodes of each rack.
    racks: Vec<Vec<usize>>,
    shares: Shares,
    /// Partitions of each node up to the position that is being claimed.
    load: Vec<u32>,
    walks: Walks,
    /// How far each walk is.
    claimed: usize,
}

impl Claim {
    fn new(bits: u32, nodes: &[Node]) -> Self {
        let draws: Vec<Draws> =
            nodes.iter().map(|node| Draws::new(node.seed, node.weight, bits)).collect();
        let rack_of: Vec<usize> = nodes.iter().map(|node| node.rack).collect();
        let mut racks = vec![Vec::new(); rack_of.iter().max().map_or(0, |rack| rack + 1)];
        for (node, rack) in rack_of.iter().enumerate() {
            racks[*rack].push(node);
        }
        let weights = rack_of.iter().zip(&draws).map(|(rack, draws)| (*rack, draws.weight()));
        let partitions = 1 << bits;
        let depth = DEPTH.min(nodes.len());
        Self {
            partitions,
            shares: Shares::new(weights.collect()),
            load: vec![0; nodes.len()],
            walks: Walks { depth, nodes: vec![NOBODY; partitions * depth] },
            claimed: 0,
            draws,
            rack_of,
            racks,
        }
    }

    fn walk(mut self) -> Walks {
        if self.walks.depth == 0 {
            return self.walks;
        }
        if self.racks.len() == 1 {
            self.walk_one_rack();
        } else {
            self.walk_racks();
        }
        self.walks
    }

    fn walk_one_rack(&mut self) {
        let all: Vec<usize> = (0..self.draws.len()).collect();
        let bids = sorted(self.bids(&all, MANY));
        let first = REFERENCE.min(self.walks.depth);
        let scaled = self.scaled(&bids, &self.shares.fair(first), first);
        self.claim_set(&scaled, &bids, first);
        while self.claimed < self.walks.depth {
            let replicas = self.claimed + 1;
            let open = bids.iter().copied().filter(|bid| !self.holds(*bid)).collect::<Vec<_>>();
            let open = self.scaled(&open, &self.shares.fair(replicas), replicas);
            self.claim_next(&open);
        }
    }

    fn walk_racks(&mut self) {
        let racks = self.racks.len();
        if racks > FEW {
            // No walk comes back to a rack within its depth, so racks needn't claim for themselves.
            let bids = self.least_of_racks();
            return self.walk_contenders(&bids);
        }
        let depth = (DEPTH + 1).saturating_sub(racks).max(1);
        let claims: Vec<_> = (0..racks).map(|rack| self.claim_rack(rack, depth)).collect();
        let firsts = claims.iter().flat_map(|claim| &claim[0]).copied();
        self.walk_contenders(&sorted(firsts.collect()));
        while self.claimed < self.walks.depth {
            let open = sorted(self.next_of_racks(&claims));
            self.claim_next(&open);
        }
    }

    /// Claims positions until every rack of the bids is in the walk.
    fn walk_contenders(&mut self, bids: &[Bid]) {
        let racks = self.racks.len();
        self.claim_set(bids, bids, REFERENCE.min(racks));
        while self.claimed < self.walks.depth.min(racks) {
            let open = bids.iter().copied().filter(|bid| !self.holds(*bid)).collect::<Vec<_>>();
            self.claim_next(&open);
        }
    }

    /// For each partition the least bids of at least [`DEPTH`] racks, where there are many.
    fn least_of_racks(&self) -> Vec<Bid> {
        let all: Vec<usize> = (0..self.draws.len()).collect();
        let mut bids = sorted(self.bids(&all, 1.5 * MANY));
        let mut seen: Vec<Vec<u16>> = vec![Vec::new(); self.partitions];
        bids.retain(|bid| {
            let (seen, rack) = (&mut seen[bid.partition()], self.rack_of[bid.node()] as u16);
            let fresh = !seen.contains(&rack);
            if fresh {
                seen.push(rack);
            }
            fresh
        });
        // A few heavy racks may have crowded out the others.
        for partition in (0..self.partitions).filter(|partition| seen[*partition].len() < DEPTH) {
            let bid = |n: &usize| Bid::new(self.draws[*n].of(partition as u32), partition, *n);
            let missing = (0..self.racks.len()).filter(|r| !seen[partition].contains(&(*r as u16)));
            bids.extend(missing.filter_map(|rack| self.racks[rack].iter().map(bid).min()));
        }
        sorted(bids)
    }

    /// One rack's own claim: for each position up to `depth`, each partition's node as a bid.
    fn claim_rack(&self, rack: usize, depth: usize) -> Vec<Vec<Bid>> {
        let members = &self.racks[rack];
        let depth = depth.min(members.len());
        if members.len() == 1 {
            let draws = &self.draws[members[0]];
            let bid = |p: usize| Bid::new(draws.of(p as u32), p, members[0]);
            return vec![(0..self.partitions).map(bid).collect()];
        }
        let shares = Shares::new(members.iter().map(|n| (0, self.draws[*n].weight())).collect());
        let mut open = sorted(self.bids(members, MANY / 2.0 + 2.0 * depth as f64));
        let mut load = vec![0; self.draws.len()];
        let mut claim = Vec::new();
        for replicas in 1..=depth {
            let mut fair = vec![0.0; self.draws.len()];
            let mut limits = vec![0; self.draws.len()];
            for (node, share) in members.iter().zip(shares.fair(replicas)) {
                fair[*node] = share;
                limits[*node] = self.limit(*node, share * self.partitions as f64);
            }
            let scaled = self.scaled(&open, &fair, replicas);
            let choice = select(self.partitions, &scaled, 1, &mut load, &limits);
            let winner = |p: usize| {
                let node = choice.of(p).first().copied().map(usize::from);
                node.map(|node| Bid::new(self.draws[node].of(p as u32), p, node))
            };
            // Every partition has a winner: at least `depth` of the rack's nodes bid for it.
            claim.push((0..self.partitions).filter_map(winner).collect());
            open.retain(|bid| !choice.of(bid.partition()).contains(&(bid.node() as u16)));
        }
        claim
    }

    /// Chooses the first `wanted` of each walk by the bids as `scaled`, then puts them in order.
    fn claim_set(&mut self, scaled: &[Bid], bids: &[Bid], wanted: usize) {
        let set = self.choose(scaled, wanted);
        self.load.fill(0);
        let mut bids: Vec<Bid> = bids
            .iter()
            .copied()
            .filter(|bid| set.of(bid.partition()).contains(&(bid.node() as u16)))
            .collect();
        for _ in 0..wanted {
            self.claim_next(&bids);
            bids.retain(|bid| !self.holds(*bid));
        }
    }

    /// Chooses the next node of each walk.
    fn claim_next(&mut self, bids: &[Bid]) {
        let choice = self.choose(bids, 1);
        for partition in 0..self.partitions {
            if let Some(node) = choice.of(partition).first() {
                self.walks.nodes[partition * self.walks.depth + self.claimed] = *node;
            }
        }
        self.claimed += 1;
    }

    /// Chooses within the limits for as many replicas as the walks have then. The limits follow the
    /// fair share of each rack or, where that is less, what it really gets, so that no node is far
    /// above its rack's mean.
    fn choose(&mut self, bids: &[Bid], wanted: usize) -> Choice {
        let fair = self.shares.fair(self.claimed + wanted);
        let mut rack_fair = vec![0.0; self.racks.len()];
        let mut rack_load = vec![0.0; self.racks.len()];
        for (node, rack) in self.rack_of.iter().enumerate() {
            rack_fair[*rack] += fair[node];
            rack_load[*rack] += f64::from(self.load[node]);
        }
        let mut counts = vec![0; self.partitions];
        for bid in bids {
            let count = &mut counts[bid.partition()];
            if *count < wanted {
                *count += 1;
                rack_load[self.rack_of[bid.node()]] += 1.0;
            }
        }
        let before = self.load.clone();
        let mut round = 1;
        loop {
            let mean = |node: usize, rack_load: &[f64]| {
                let rack = self.rack_of[node];
                rack_load[rack] * fair[node] / rack_fair[rack]
            };
            let limits: Vec<u32> = (0..self.draws.len())
                .map(|node| {
                    let aim = fair[node] * self.partitions as f64;
                    let alone = self.racks[self.rack_of[node]].len() == 1;
                    self.limit(node, if alone { aim } else { aim.min(mean(node, &rack_load)) })
                })
                .collect();
            let mut load = before.clone();
            let choice = select(self.partitions, bids, wanted, &mut load, &limits);
            rack_load.fill(0.0);
            for (node, rack) in self.rack_of.iter().enumerate() {
                rack_load[*rack] += f64::from(load[node]);
            }
            let beyond = |node: usize| {
                let mean = mean(node, &rack_load);
                mean >= LEAST_MEAN && f64::from(load[node]) > (1.0 + TOLERANCE) * mean
            };
            if round == ROUNDS || !(0..load.len()).any(beyond) {
                self.load = load;
                return choice;
            }
            round += 1;
        }
    }

    /// The most partitions that a node may get where this many are fair. Rounding differs from node
    /// to node, so that not all limits change at once when one more node makes the fair share a
    /// little smaller.
    fn limit(&self, node: usize, fair: f64) -> u32 {
        let limit = (fair * (1.0 + SLACK) - 1.0).max(fair + 1.0) + self.draws[node].dither();
        limit.min(self.partitions as f64) as u32
    }

    /// Bids of these nodes: all, or the least, about `each` for every partition.
    fn bids(&self, nodes: &[usize], each: f64) -> Vec<Bid> {
        let weight: f64 = nodes.iter().map(|node| self.draws[*node].weight()).sum();
        let few = nodes.len() <= FEW;
        let count_of = |node: usize| match few {
            true => self.partitions as u32,
            false => {
                let part = (each * self.draws[node].weight() / weight).min(1.0);
                (part * self.partitions as f64) as u32
            }
        };
        let mut bids = Vec::new();
        let mut counts = vec![0; self.partitions];
        for &node in nodes {
            for (partition, draw) in self.draws[node].least(count_of(node)) {
                counts[partition as usize] += 1;
                bids.push(Bid::new(draw, partition as usize, node));
            }
        }
        // The partitions with too few to choose from get everybody's.
        let enough = nodes.len().min((each / 2.0) as usize);
        for partition in (0..self.partitions).filter(|partition| counts[*partition] < enough) {
            for &node in nodes {
                let draws = &self.draws[node];
                if draws.quantile(partition as u32) >= count_of(node) {
                    bids.push(Bid::new(draws.of(partition as u32), partition, node));
                }
            }
        }
        bids
    }

    /// The bids with draws scaled so that the first `replicas` of each partition take every node in
    /// proportion to its share. In a plain race of several places a heavy node gains less than that,
    /// since it can't take two; the rate `-ln(1 - share)` makes up for it (Rosén's order sampling).
    fn scaled(&self, bids: &[Bid], shares: &[f64], replicas: usize) -> Vec<Bid> {
        let factors: Vec<f32> = (0..self.draws.len())
            .map(|node| match (replicas, shares[node]) {
                (..=1, _) | (_, 0.0) => 1.0,
                (_, share) => {
                    (self.draws[node].weight() / minus_ln_1p(share.min(1.0 - 1e-6))) as f32
                }
            })
            .collect();
        let mut bidders = bids.iter().map(|bid| factors[bid.node()]);
        let first = bidders.next();
        if bidders.all(|factor| Some(factor) == first) {
            return bids.to_vec();
        }
        let scale = |bid: &Bid| {
            Bid::new(bid.draw().scaled(factors[bid.node()]), bid.partition(), bid.node())
        };
        sorted(bids.iter().map(scale).collect())
    }

    /// For each partition and rack, the bid of the next node that the rack's claim has for it.
    fn next_of_racks(&self, claims: &[Vec<Vec<Bid>>]) -> Vec<Bid> {
        let mut bids = Vec::new();
        for partition in 0..self.partitions {
            for claim in claims {
                let mut walk = claim.iter().filter_map(|position| position.get(partition));
                bids.extend(walk.find(|bid| !self.holds(**bid)));
            }
        }
        bids
    }

    /// Whether the bidder is in the partition's walk.
    fn holds(&self, bid: Bid) -> bool {
        let walk = &self.walks.nodes[bid.partition() * self.walks.depth..][..self.claimed];
        walk.contains(&(bid.node() as u16))
    }
}

fn sorted(mut bids: Vec<Bid>) -> Vec<Bid> {
    bids.sort_unstable();
    bids
}
