//! How suspicious a node's silence is: the phi-accrual failure detector (Hayashibara, Défago, Yared,
//! Katayama, 2004).
//!
//! Phi is -log10 of the probability that a heartbeat comes later than this, given the intervals seen so
//! far: 8 means one false alarm in 10^8. The deviation has a floor, so that a regular link is no reason
//! for nerves, and mean and deviation a ceiling, so that an irregular one can't put detection off for
//! ever. What is done about a phi is the caller's business.

use std::{collections::VecDeque, time::Duration};

use anello_protocol::time::Moment;

/// How many intervals are remembered.
const WINDOW: usize = 100;
/// Past this a phi says nothing more, and stays a number that people can read.
const PHI_MAX: f64 = 999.0;

/// What the detector takes for granted before and beside what it sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorConfig {
    /// The interval expected before any is seen.
    pub interval: Duration,
    /// The mean is never taken for more than this.
    pub mean_max: Duration,
    /// The deviation is never taken for less than this: the pause that is forgiven, about fivefold.
    pub deviation_min: Duration,
    /// The deviation is never taken for more than this.
    pub deviation_max: Duration,
    /// The phi at which a node counts as unreachable.
    pub threshold: f64,
    /// An answer to a direct ping that takes longer than this counts for nothing.
    pub answer_max: Duration,
    /// For how long a node that was given up must answer steadily before it is trusted again; doubled
    /// when it was given up before, up to fourfold.
    pub trial: Duration,
}

/// In a cluster of so many the first word of a node takes longer to reach everybody than a round or two.
const CROWD: usize = 64;

impl DetectorConfig {
    /// How long the first word of a node may take to reach all of so many members, beside the silence that would
    /// be suspicious anyway: what spreads from peer to peer takes rounds with the logarithm of their number.
    /// What comes after it is on its way all the time, and no later.
    pub(crate) fn first_word(&self, members: usize) -> Duration {
        match members {
            few if few < CROWD => Duration::ZERO,
            many => self.interval * many.ilog2(),
        }
    }
}

/// The heartbeats of one node.
#[derive(Clone, Debug)]
pub(crate) struct Detector {
    last: Moment,
    /// In microseconds, with their sum and that of their squares: a node asks for the phi of every other one
    /// in every round, so that must not cost a walk through all of them.
    intervals: VecDeque<u32>,
    sum: u64,
    squares: u128,
}

impl Detector {
    /// Begins with a heartbeat.
    pub(crate) fn new(now: Moment) -> Self {
        Self { last: now, intervals: VecDeque::new(), sum: 0, squares: 0 }
    }

    /// A heartbeat came.
    pub(crate) fn beat(&mut self, now: Moment) {
        if self.intervals.len() == WINDOW
            && let Some(oldest) = self.intervals.pop_front()
        {
            self.sum -= u64::from(oldest);
            self.squares -= u128::from(oldest).pow(2);
        }
        // More than an hour is as good as an hour.
        let interval = u32::try_from(now.since(self.last).as_micros()).unwrap_or(u32::MAX);
        self.intervals.push_back(interval);
        self.sum += u64::from(interval);
        self.squares += u128::from(interval).pow(2);
        self.last = now;
    }

    /// A heartbeat came after the node had been given up: the silence says nothing about its intervals.
    pub(crate) fn resume(&mut self, now: Moment) {
        self.last = now;
    }

    /// The observer itself stood still for that long: nobody could have been heard.
    pub(crate) fn forgive(&mut self, pause: Duration, now: Moment) {
        self.last = (self.last + pause).min(now);
    }

    /// For how long the node has been silent.
    pub(crate) fn silence(&self, now: Moment) -> Duration {
        now.since(self.last)
    }

    /// How suspicious that is.
    pub(crate) fn phi(&self, now: Moment, config: &DetectorConfig) -> f64 {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (mean, deviation) = self.mean_and_deviation(ms(config.interval));
        let mean = mean.min(ms(config.mean_max));
        let deviation = deviation.min(ms(config.deviation_max)).max(ms(config.deviation_min));
        // The logistic approximation of the normal distribution's tail, in logarithms, so that a long
        // silence does not underflow to an infinite phi.
        let y = (ms(self.silence(now)) - mean) / deviation;
        let exponent = y * (1.5976 + 0.070566 * y * y);
        let phi = (exponent + (-exponent).exp().ln_1p()) / std::f64::consts::LN_10;
        if phi.is_finite() { phi.clamp(0.0, PHI_MAX) } else { 0.0 }
    }

    fn mean_and_deviation(&self, expected: f64) -> (f64, f64) {
        if self.intervals.is_empty() {
            return (expected, 0.0);
        }
        let count = self.intervals.len() as f64;
        // In whole numbers, which lose nothing where nearly equal ones are subtracted.
        let spread = self.squares * self.intervals.len() as u128 - u128::from(self.sum).pow(2);
        (self.sum as f64 / count / 1e3, (spread as f64).sqrt() / count / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timing;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    /// A detector that heard a heartbeat at each of these, in milliseconds.
    fn heard(beats: impl IntoIterator<Item = u64>) -> (Detector, u64) {
        let mut last = 0;
        let mut detector = Detector::new(at(0));
        for beat in beats {
            detector.beat(at(beat));
            last = beat;
        }
        (detector, last)
    }

    fn detected_after_ms(detector: &Detector, last: u64, config: &DetectorConfig) -> u64 {
        (0..60_000)
            .step_by(10)
            .find(|ms| detector.phi(at(last + ms), config) >= config.threshold)
            .expect("silence is detected some day")
    }

    #[test]
    fn silence_is_detected_within_four_seconds_however_irregular_the_past() {
        let config = Timing::lan().detector;
        let (regular, last) = heard((1..200).map(|n| n * 250));
        let after = detected_after_ms(&regular, last, &config);
        assert!((2_000..3_500).contains(&after), "{after} ms");
        let (irregular, last) =
            heard((1..200).map(|n| n * 250 + if n % 3 == 0 { 2_000 } else { 0 }));
        let after = detected_after_ms(&irregular, last, &config);
        assert!((2_000..4_000).contains(&after), "{after} ms");
        let (fresh, last) = heard([]);
        assert!(detected_after_ms(&fresh, last, &config) < 3_500);
    }

    #[test]
    fn mean_and_deviation_are_those_of_the_last_hundred_intervals() {
        let (detector, _) = heard((1..=300).map(|n| n * n));
        let intervals: Vec<f64> = (201..=300).map(|n| f64::from(2 * n - 1)).collect();
        let mean = intervals.iter().sum::<f64>() / 100.0;
        let variance = intervals.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / 100.0;
        let (is_mean, is_deviation) = detector.mean_and_deviation(0.0);
        assert!((is_mean - mean).abs() < 1e-9, "{is_mean} instead of {mean}");
        assert!((is_deviation - variance.sqrt()).abs() < 1e-9, "{is_deviation}");
    }

    #[test]
    fn a_pause_of_a_second_is_forgiven() {
        let config = Timing::lan().detector;
        let (detector, last) = heard((1..200).map(|n| n * 100));
        assert!(detector.phi(at(last + 1_300), &config) < 4.0);
    }

    #[test]
    fn phi_grows_with_silence_and_stays_a_number() {
        let config = Timing::lan().detector;
        let (detector, last) = heard((1..50).map(|n| n * 250));
        let phis: Vec<f64> = (0..100).map(|n| detector.phi(at(last + n * 100), &config)).collect();
        assert!(phis.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(phis[0] < 0.5);
        assert_eq!(detector.phi(at(last + 1_000_000_000), &config), PHI_MAX);
    }

    #[test]
    fn the_observers_own_pause_is_not_held_against_others() {
        let config = Timing::lan().detector;
        let (mut detector, last) = heard((1..50).map(|n| n * 250));
        let now = at(last + 30_100);
        detector.forgive(Duration::from_secs(30), now);
        assert!(detector.phi(now, &config) < 1.0);
    }
}
