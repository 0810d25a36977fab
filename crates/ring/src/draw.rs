//! The draws of the claim: a number for every node and partition; the smaller, the more the node
//! wants the partition.
//!
//! This is weighted rendezvous hashing: the draw of a node of weight w is exponentially distributed
//! with rate w, so the least of several nodes' draws belongs to each with the probability of its
//! share of their weight, and a node that comes or goes changes nobody else's draws. Unlike plain
//! hashes, a node's draws are **stratified**: over all partitions they take each of Q quantiles of
//! the distribution once, in an order that is the node's own. No node is then lucky or unlucky as
//! such, which takes half to two thirds out of the variance of the loads and leaves the claim less
//! to even out.
//!
//! Every platform must draw the same numbers: floating point is limited to the operations that
//! IEEE 754 rounds exactly, so no `ln` or `exp` of the platform's library.

/// One node's draws.
#[derive(Clone, Debug)]
pub(crate) struct Draws {
    seed: u64,
    weight: f64,
    /// log2 of the number of partitions.
    bits: u32,
    /// The rounds of the permutation from quantile to partition.
    rounds: [Round; 3],
}

/// `x → x·factor + offset`, then the high half of the bits folded into the low one: a permutation
/// of the numbers of `bits` bits.
#[derive(Clone, Copy, Debug)]
struct Round {
    factor: u32,
    inverse: u32,
    offset: u32,
}

impl Draws {
    /// The draws of the node with this seed among 2^`bits` partitions.
    pub(crate) fn new(seed: u64, weight: f64, bits: u32) -> Self {
        let mut state = seed;
        let rounds = [(); 3].map(|()| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let key = mix(state);
            let factor = key as u32 | 1;
            Round { factor, inverse: inverse(factor), offset: (key >> 32) as u32 }
        });
        Self { seed, weight, bits, rounds }
    }

    /// The node's weight.
    pub(crate) fn weight(&self) -> f64 {
        self.weight
    }

    /// What else of the node should look random, from 0 to 1.
    pub(crate) fn dither(&self) -> f64 {
        unit(mix(self.seed ^ 0xD17E))
    }

    /// The draw for one partition.
    pub(crate) fn of(&self, partition: u32) -> Draw {
        self.at(self.quantile(partition), partition)
    }

    /// How many partitions the node would rather have than this one.
    pub(crate) fn quantile(&self, partition: u32) -> u32 {
        let mut quantile = partition;
        for round in self.rounds.iter().rev() {
            quantile = self.fold(quantile);
            quantile = self.mask(quantile.wrapping_sub(round.offset).wrapping_mul(round.inverse));
        }
        quantile
    }

    /// The draws of the first `count` quantiles, which are the node's least, with their partitions.
    pub(crate) fn least(&self, count: u32) -> impl Iterator<Item = (u32, Draw)> {
        (0..count).map(|quantile| {
            let mut partition = quantile;
            for round in &self.rounds {
                partition =
                    self.mask(partition.wrapping_mul(round.factor).wrapping_add(round.offset));
                partition = self.fold(partition);
            }
            (partition, self.at(quantile, partition))
        })
    }

    fn at(&self, quantile: u32, partition: u32) -> Draw {
        let within = unit(mix(self.seed ^ mix(u64::from(partition) + 1)));
        let uniform = (f64::from(quantile) + within) / (1u64 << self.bits) as f64;
        Draw::new(minus_ln_1p(uniform) / self.weight)
    }

    fn mask(&self, x: u32) -> u32 {
        x & ((1u64 << self.bits) - 1) as u32
    }

    /// Its own inverse, because it shifts by at least half of the bits.
    fn fold(&self, x: u32) -> u32 {
        x ^ (x >> self.bits.div_ceil(2).max(1))
    }
}

/// A draw, as the bits of a positive `f32`: those are ordered as the numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Draw(u32);

impl Draw {
    fn new(value: f64) -> Self {
        Self((value as f32).to_bits())
    }

    /// The draw of the same luck under another weight.
    pub(crate) fn scaled(self, factor: f32) -> Self {
        Self((f32::from_bits(self.0) * factor).to_bits())
    }

    pub(crate) fn to_bits(self) -> u32 {
        self.0
    }

    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// Spreads every bit of a number over all.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 32)
}

/// The top 53 bits as a number of [0, 1).
fn unit(x: u64) -> f64 {
    (x >> 11) as f64 / (1u64 << 53) as f64
}

/// The inverse of an odd number modulo 2^32, by Newton's iteration: each step doubles the bits.
fn inverse(odd: u32) -> u32 {
    let mut inverse = odd;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    inverse
}

/// `-ln(1 - x)` for x in [0, 1), to about 12 digits.
pub(crate) fn minus_ln_1p(x: f64) -> f64 {
    let rest = (1.0 - x).max(f64::EPSILON);
    let bits = rest.to_bits();
    let mut exponent = ((bits >> 52) & 0x7FF) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000F_FFFF_FFFF_FFFF) | 0x3FF0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)), whose series converges quickly near 1.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / odd;
    }
    -(exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series)
}

/// `1 - exp(-x)` for x ≥ 0, to about 6 digits.
pub(crate) fn one_minus_exp(x: f64) -> f64 {
    const SQUARINGS: i32 = 22;
    if x > 700.0 {
        return 1.0;
    }
    let mut power = 1.0 - x / f64::from(1 << SQUARINGS);
    for _ in 0..SQUARINGS {
        power *= power;
    }
    1.0 - power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantile_and_partition_are_inverse_permutations() {
        for bits in [0, 1, 2, 3, 8, 13, 16] {
            let draws = Draws::new(0xA5A5 + u64::from(bits), 1.5, bits);
            let mut seen = vec![false; 1 << bits];
            for (partition, draw) in draws.least(1 << bits) {
                assert!(!std::mem::replace(&mut seen[partition as usize], true));
                assert_eq!(draws.of(partition), draw);
            }
        }
    }

    #[test]
    fn least_is_in_ascending_order() {
        let draws = Draws::new(7, 0.5, 10);
        assert!(draws.least(1 << 10).map(|(_, draw)| draw).is_sorted());
    }

    #[test]
    fn approximations_are_close() {
        for x in [0.0, 1e-6, 0.1, 0.3, 0.5, 0.9, 0.999_999] {
            assert!((minus_ln_1p(x) + f64::ln_1p(-x)).abs() < 1e-9, "{x}");
        }
        for x in [0.0, 1e-3, 0.5, 1.0, 5.0, 40.0, 1e6] {
            assert!((one_minus_exp(x) + f64::exp_m1(-x)).abs() < 1e-6, "{x}");
        }
    }
}
