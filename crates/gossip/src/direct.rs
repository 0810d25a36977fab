//! Whether a node answers this one: direct pings, and the answers that prove both ways between the two.
//!
//! A heartbeat that others pass on says that a node lives, not that a request from here would be
//! answered. A ping does: it is a digest that asks for the sender's own heartbeat back, and which one comes
//! back dates the answer. An answer that took too long proves nothing. Whoever was given up without
//! having been started anew is on trial: it must answer steadily for a while, and for longer each time.

use std::{collections::VecDeque, time::Duration};

use anello_protocol::time::Moment;

use crate::detector::{Detector, DetectorConfig};

/// A trial is lost by a silence longer than this, or than two pings where they are rarer.
const GAP_MAX: Duration = Duration::from_millis(1_500);
/// For how long it counts against a node that it was given up.
const LAPSE_COUNTS: Duration = Duration::from_secs(600);
/// How many times a trial is doubled at most: what lasts is to be found well soon after it was mended.
const DOUBLED_MAX: u32 = 2;

/// How a node answers this one.
#[derive(Clone, Debug)]
pub(crate) struct Direct {
    /// Of its answers in time.
    answers: Detector,
    /// Pings since the last of them.
    unanswered: u32,
    /// How long the last answer took, in time or not.
    trip: Option<Duration>,
    trial: Option<Trial>,
    /// When it was given up, in this life of its.
    lapses: VecDeque<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    since: Moment,
    last: Moment,
    pings: u32,
    answers: u32,
}

impl Direct {
    /// Nothing is known of a node's answers from here on.
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            answers: Detector::new(now),
            unanswered: 0,
            trip: None,
            trial: None,
            lapses: VecDeque::new(),
        }
    }

    /// A ping is on its way.
    pub(crate) fn pinged(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
        if let Some(trial) = &mut self.trial {
            trial.pings += 1;
        }
    }

    /// An answer came to a ping of that moment; whether it came in time.
    pub(crate) fn answered(&mut self, now: Moment, made: Moment, config: &DetectorConfig) -> bool {
        let trip = now.since(made);
        self.trip = Some(trip);
        let in_time = trip <= config.answer_max;
        if !in_time && self.trial.is_some_and(|trial| trial.since <= made) {
            self.trial = None;
        }
        in_time
    }

    /// The answer in time of a node that is held reachable.
    pub(crate) fn beat(&mut self, now: Moment) {
        self.unanswered = 0;
        self.answers.beat(now);
    }

    /// The answer in time of a node that was given up; whether that is the end of its trial.
    pub(crate) fn tried(&mut self, now: Moment, every: Duration, config: &DetectorConfig) -> bool {
        self.unanswered = 0;
        self.answers.resume(now);
        let gap_max = GAP_MAX.max(every * 2);
        let Some(trial) = self.trial.as_mut().filter(|trial| now.since(trial.last) <= gap_max)
        else {
            self.trial = Some(Trial { since: now, last: now, pings: 0, answers: 0 });
            return false;
        };
        trial.last = now;
        trial.answers += 1;
        let trial = *trial;
        self.lapses.retain(|lapse| now.since(*lapse) < LAPSE_COUNTS);
        let before = u32::try_from(self.lapses.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let hold = config.trial * (1 << before.min(DOUBLED_MAX));
        if now.since(trial.since) < hold {
            return false;
        }
        self.trial = None;
        trial.answers * 4 >= trial.pings * 3
    }

    /// The node is given up.
    pub(crate) fn lapsed(&mut self, now: Moment) {
        self.trial = None;
        if self.lapses.len() > DOUBLED_MAX as usize {
            self.lapses.pop_front();
        }
        self.lapses.push_back(now);
    }

    /// The observer itself stood still for that long: nobody could have answered it.
    pub(crate) fn forgive(&mut self, pause: Duration, now: Moment) {
        self.trial = None;
        self.answers.forgive(pause, now);
    }

    /// For how long it has not answered.
    pub(crate) fn silence(&self, now: Moment) -> Duration {
        self.answers.silence(now)
    }

    /// How long ago it was given up.
    pub(crate) fn given_up(&self, now: Moment) -> Duration {
        self.lapses.back().map_or(Duration::ZERO, |lapse| now.since(*lapse))
    }

    /// How suspicious that is, of a node that is pinged every so often.
    pub(crate) fn phi(&self, now: Moment, every: Duration, config: &DetectorConfig) -> f64 {
        let config = DetectorConfig {
            interval: every,
            mean_max: config.mean_max.max(every * 3 / 2),
            ..*config
        };
        self.answers.phi(now, &config)
    }

    /// How long its last answer took.
    pub(crate) fn trip(&self) -> Option<Duration> {
        self.trip
    }

    /// How many pings it has not answered.
    pub(crate) fn unanswered(&self) -> u32 {
        self.unanswered
    }
}

/// When this node's own last heartbeats were made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Made(VecDeque<(u64, Moment)>);

impl Made {
    /// So many are remembered; an answer to an earlier one is of no use.
    const KEPT: usize = 128;

    pub(crate) fn push(&mut self, version: u64, now: Moment) {
        if self.0.len() == Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back((version, now));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn at(&self, version: u64) -> Option<Moment> {
        self.0.iter().rev().find(|(made, _)| *made == version).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timing;

    const ROUND: Duration = Duration::from_millis(250);

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    /// How long a node that answers so many of four pings, after it was given up so often, is on trial.
    fn trial_ms(answered_of_four: u64, lapses: u64) -> Option<u64> {
        let config = Timing::lan().detector;
        let mut direct = Direct::new(at(0));
        (0..lapses).for_each(|lapse| direct.lapsed(at(lapse * 1_000)));
        let begin = 100_000;
        (begin..begin + 60_000).step_by(250).enumerate().find_map(|(ping, ms)| {
            direct.pinged();
            let answers = ping as u64 % 4 < answered_of_four;
            (answers && direct.tried(at(ms), ROUND, &config)).then_some(ms - begin)
        })
    }

    #[test]
    fn a_trial_takes_longer_each_time_up_to_a_bound() {
        assert_eq!(trial_ms(4, 1), Some(1_000));
        assert_eq!(trial_ms(4, 2), Some(2_000));
        assert_eq!(trial_ms(4, 3), Some(4_000));
        assert_eq!(trial_ms(4, 30), Some(4_000));
    }

    #[test]
    fn who_answers_half_of_its_pings_stays_on_trial() {
        assert_eq!(trial_ms(2, 1), None);
        assert!(trial_ms(3, 1).is_some());
    }

    #[test]
    fn an_old_lapse_counts_no_longer() {
        let config = Timing::lan().detector;
        let mut direct = Direct::new(at(0));
        [0, 1_000, 2_000].into_iter().for_each(|ms| direct.lapsed(at(ms)));
        let late = 700_000;
        direct.lapsed(at(late));
        assert!(!direct.tried(at(late + 100), ROUND, &config));
        assert!(!direct.tried(at(late + 700), ROUND, &config));
        assert!(direct.tried(at(late + 1_100), ROUND, &config));
    }
}
