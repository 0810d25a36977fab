//! Virtual time: what happens next, and when.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use anello_protocol::time::Moment;

/// Events in the order of their time; those of one moment in the order in which they were put in.
#[derive(Debug)]
pub struct Schedule<E> {
    now: Moment,
    sequence: u64,
    queue: BinaryHeap<Reverse<Entry<E>>>,
}

#[derive(Debug)]
struct Entry<E> {
    at: (Moment, u64),
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl<E> Schedule<E> {
    /// An empty schedule at the beginning of time.
    pub fn new() -> Self {
        Self { now: Moment::default(), sequence: 0, queue: BinaryHeap::new() }
    }

    /// The moment of the last event that was taken.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Puts an event in, `delay` from now.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Puts an event in at a moment; one that has passed is at once.
    pub fn at(&mut self, moment: Moment, event: E) {
        self.sequence += 1;
        let at = (moment.max(self.now), self.sequence);
        self.queue.push(Reverse(Entry { at, event }));
    }

    /// When the next event is, if there is one.
    pub fn next_at(&self) -> Option<Moment> {
        self.queue.peek().map(|Reverse(entry)| entry.at.0)
    }

    /// Goes to a moment before which nothing is left.
    pub fn wait_until(&mut self, moment: Moment) {
        debug_assert!(self.next_at().is_none_or(|next| next >= moment), "an event is passed over");
        self.now = self.now.max(moment);
    }

    /// Takes the next event and goes to its moment.
    pub fn take_next(&mut self) -> Option<E> {
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.at.0;
        Some(entry.event)
    }
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_ties_keep_their_order() {
        let mut schedule = Schedule::new();
        schedule.after(Duration::from_micros(5), 'c');
        schedule.after(Duration::from_micros(2), 'a');
        schedule.after(Duration::from_micros(2), 'b');
        let order: Vec<_> = std::iter::from_fn(|| schedule.take_next()).collect();
        assert_eq!(order, ['a', 'b', 'c']);
        assert_eq!(schedule.now(), Moment(5));
    }
}
