//! A timer for deadlines that are nearly always moved on before they pass.
//!
//! To arm a timer anew for each request costs more than to parse it. This one is left to go off at an
//! old deadline, and only then set to the one that counts.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes a task at the deadline that it was last asked for, or before.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() == deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_deadline_that_was_asked_for_last_counts() {
        let mut alarm = Alarm::default();
        let now = Instant::now();
        let (soon, later) = (now + Duration::from_millis(20), now + Duration::from_millis(60));
        assert!(poll_fn(|cx| alarm.poll(cx, later)).now_or_never().is_none());
        // An earlier one.
        poll_fn(|cx| alarm.poll(cx, soon)).await;
        assert!(soon <= Instant::now());
        // A later one, after the timer has gone off.
        poll_fn(|cx| alarm.poll(cx, later)).await;
        assert!(later <= Instant::now());
    }
}
