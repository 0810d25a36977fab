//! The network between simulated nodes: delay, loss, duplicates, reordering, links cut one way or
//! both.
//!
//! It decides when copies of a packet arrive, and nothing else. Reordering comes of delays that
//! differ from packet to packet.

use std::{collections::BTreeSet, time::Duration};

use anello_protocol::id::NodeId;

use crate::rng::Rng;

/// How bad the links are.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The least time a packet takes within a datacenter, in microseconds.
    pub near_us: u64,
    /// The least time a packet takes between datacenters, in microseconds.
    pub far_us: u64,
    /// By how much single packets are later than that, at most, in microseconds.
    pub jitter_us: u64,
    /// How many of a thousand packets take a hundred times the jitter.
    pub stragglers_per_mille: u64,
    /// How many of a thousand packets are lost.
    pub loss_per_mille: u64,
    /// How many of a thousand packets arrive twice.
    pub duplicates_per_mille: u64,
}

impl Weather {
    /// Draws how a run's links are, from calm to awful.
    pub fn draw(rng: &mut Rng) -> Self {
        let bad = rng.within(0..4);
        Self {
            near_us: rng.within(50..500),
            far_us: rng.within(1_000..80_000),
            jitter_us: rng.within(10..2_000),
            stragglers_per_mille: bad * 5,
            loss_per_mille: bad * 10,
            duplicates_per_mille: bad * 10,
        }
    }
}

/// The links of a fleet.
#[derive(Debug)]
pub struct Network {
    weather: Weather,
    /// From whom to whom nothing gets through.
    cut: BTreeSet<(NodeId, NodeId)>,
    rng: Rng,
}

impl Network {
    /// A network without cuts.
    pub fn new(weather: Weather, rng: Rng) -> Self {
        Self { weather, cut: BTreeSet::new(), rng }
    }

    /// Cuts the link from one node to another, that way only.
    pub fn cut(&mut self, from: &NodeId, to: &NodeId) {
        self.cut.insert((from.clone(), to.clone()));
    }

    /// Mends every link.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Whether packets from one node reach another.
    pub fn connects(&self, from: &NodeId, to: &NodeId) -> bool {
        !self.cut.contains(&(from.clone(), to.clone()))
    }

    /// After how long each copy of a packet arrives: none if it is lost.
    pub fn deliveries(&mut self, from: &NodeId, to: &NodeId, far: bool) -> Vec<Duration> {
        if !self.connects(from, to) || self.rng.chance(self.weather.loss_per_mille) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.rng.chance(self.weather.duplicates_per_mille));
        (0..copies).map(|_| self.delay(far)).collect()
    }

    fn delay(&mut self, far: bool) -> Duration {
        let base = if far { self.weather.far_us } else { self.weather.near_us };
        let straggles = self.rng.chance(self.weather.stragglers_per_mille);
        let jitter = self.weather.jitter_us * if straggles { 100 } else { 1 };
        Duration::from_micros(base + self.rng.within(0..jitter + 1))
    }
}
