//! What waits to be written to one lane of a connection, and the task that writes it.
//!
//! Frames are encoded in place behind each other, and whatever has gathered by the time the writer comes
//! round goes in one write. A large one is cut out, without a copy, for a stream of its own, so that it
//! doesn't hold up the small ones behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anello_protocol::{codec::MAX_MESSAGE_BYTES, message::Lane};
use bytes::{Bytes, BytesMut};
use quinn::{Connection, SendStream, WriteError};
use tokio::sync::Notify;

use crate::frame::MAX_OVERHEAD_BYTES;

/// The longest frame that shares a lane's stream; a longer one gets its own.
pub(crate) const SHARED_FRAME_BYTES: usize = 64 << 10;
/// The longest frame at all.
pub(crate) const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES + MAX_OVERHEAD_BYTES;
/// By how much the buffer grows at least.
const BUFFER_BYTES: usize = 16 << 10;

/// What a stream of a message's own begins with: the lane that it stands for.
pub(crate) fn lane_byte(lane: Lane) -> u8 {
    match lane {
        Lane::Data => 0,
        Lane::Control => 1,
    }
}

/// How urgent a lane's streams are: control goes first, always.
fn priority(lane: Lane) -> i32 {
    i32::from(lane_byte(lane))
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// More would wait than may.
    Full,
    /// It is longer than a message may be.
    TooLarge(usize),
    /// Nothing is written any more.
    Closed,
}

/// What waits to be written to one lane.
pub(crate) struct Outgoing {
    lane: Lane,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    /// Frames that share the lane's stream.
    shared: BytesMut,
    /// Frames with a stream of their own.
    own: Vec<Bytes>,
    /// Bytes that wait here or that the writer has not got rid of.
    bytes: usize,
    closed: bool,
    /// Nothing more is to come, and what is here is to arrive.
    ending: bool,
    /// A writer is at work.
    writing: bool,
    /// How often it was closed: what was taken before says nothing of the bytes that wait since.
    life: u64,
}

/// What has gathered.
struct Batch {
    shared: Bytes,
    own: Vec<Bytes>,
    life: u64,
}

impl Outgoing {
    pub(crate) fn new(lane: Lane) -> Self {
        Self { lane, queue: Mutex::default(), filled: Notify::new() }
    }

    /// Takes one frame of at most `frame_max` bytes, which `write` appends, unless more than
    /// `waiting_max` would wait with it. Returns its length.
    pub(crate) fn push(
        &self,
        waiting_max: usize,
        frame_max: usize,
        write: impl FnOnce(&mut BytesMut),
    ) -> Result<usize, NotQueued> {
        let mut queue = self.queue();
        if queue.closed || queue.ending {
            return Err(NotQueued::Closed);
        }
        if queue.bytes >= waiting_max {
            return Err(NotQueued::Full);
        }
        let idle = queue.shared.is_empty() && queue.own.is_empty();
        let start = queue.shared.len();
        if queue.shared.capacity() - start < BUFFER_BYTES / 8 {
            queue.shared.reserve(BUFFER_BYTES);
        }
        write(&mut queue.shared);
        let length = queue.shared.len() - start;
        let refused = if length > MAX_FRAME_BYTES {
            Some(NotQueued::TooLarge(length))
        } else {
            let full = length > frame_max || queue.bytes + length > waiting_max;
            full.then_some(NotQueued::Full)
        };
        if length > SHARED_FRAME_BYTES {
            let own = queue.shared.split_off(start);
            if refused.is_none() {
                queue.own.push(own.freeze());
            }
        } else if refused.is_some() {
            queue.shared.truncate(start);
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        queue.bytes += length;
        drop(queue);
        if idle {
            self.filled.notify_one();
        }
        Ok(length)
    }

    /// Forgets what waits, and takes nothing more.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.life += 1;
        queue.shared = BytesMut::new();
        queue.own.clear();
        queue.bytes = 0;
        drop(queue);
        self.filled.notify_one();
    }

    /// Takes frames again, after a [`Outgoing::close`] whose writer is gone.
    pub(crate) fn open(&self) {
        self.queue().closed = false;
    }

    /// Takes nothing more, and ends the lane once what waits has arrived.
    pub(crate) fn end(&self) {
        self.queue().ending = true;
        self.filled.notify_one();
    }

    /// Whether all has arrived.
    pub(crate) fn has_ended(&self) -> bool {
        let queue = self.queue();
        queue.bytes == 0 && !queue.writing
    }

    /// Writes what gathers, until closed or ended or until the connection is lost.
    pub(crate) async fn write_to(self: Arc<Self>, connection: Connection, stream: SendStream) {
        self.queue().writing = true;
        // A failure is the connection's, which others notice.
        let _ = self.write_all(&connection, stream).await;
        self.queue().writing = false;
    }

    async fn write_all(
        self: &Arc<Self>,
        connection: &Connection,
        mut stream: SendStream,
    ) -> Result<(), WriteError> {
        // The stream has just been opened, so it takes a priority; and it would do without.
        let _ = stream.set_priority(priority(self.lane));
        while let Some(batch) = self.gathered().await {
            for frame in batch.own {
                tokio::spawn(self.clone().write_own(connection.clone(), frame, batch.life));
            }
            let length = batch.shared.len();
            if length > 0 {
                stream.write_chunk(batch.shared).await?;
                self.written(length, batch.life);
            }
        }
        arrival(stream).await;
        Ok(())
    }

    /// Writes one frame to a stream of its own. A failure is the connection's, which others notice.
    /// What has not arrived counts as waiting.
    async fn write_own(self: Arc<Self>, connection: Connection, frame: Bytes, life: u64) {
        let length = frame.len();
        if let Ok(mut stream) = connection.open_uni().await {
            let _ = stream.set_priority(priority(self.lane));
            let lane = Bytes::copy_from_slice(&[lane_byte(self.lane)]);
            if stream.write_all_chunks(&mut [lane, frame]).await.is_ok() {
                arrival(stream).await;
            }
        }
        self.written(length, life);
    }

    async fn gathered(&self) -> Option<Batch> {
        loop {
            {
                let mut queue = self.queue();
                if queue.closed {
                    return None;
                }
                if queue.ending && queue.shared.is_empty() && queue.own.is_empty() {
                    return None;
                }
                if !queue.shared.is_empty() || !queue.own.is_empty() {
                    let own = std::mem::take(&mut queue.own);
                    let shared = queue.shared.split().freeze();
                    return Some(Batch { shared, own, life: queue.life });
                }
            }
            self.filled.notified().await;
        }
    }

    fn written(&self, bytes: usize, life: u64) {
        let mut queue = self.queue();
        if queue.life == life {
            queue.bytes -= bytes;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Encoding plain data doesn't panic, and nothing else that is done under the lock does.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a stream, and waits until all of it has arrived, or the other side wants no more of it.
async fn arrival(mut stream: SendStream) {
    // Errors are the connection's, or say that it has ended already.
    let _ = stream.finish();
    let _ = stream.stopped().await;
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use futures_util::FutureExt;

    use super::*;

    fn push(outgoing: &Outgoing, room: usize, len: usize) -> Result<usize, NotQueued> {
        outgoing.push(room, usize::MAX, |out| out.put_bytes(7, len))
    }

    fn gathered(outgoing: &Outgoing) -> Option<Option<Batch>> {
        outgoing.gathered().now_or_never()
    }

    #[test]
    fn what_gathers_goes_in_one_batch() {
        let outgoing = Outgoing::new(Lane::Data);
        assert!(gathered(&outgoing).is_none());
        for _ in 0..3 {
            assert_eq!(push(&outgoing, 1_000, 10), Ok(10));
        }
        let batch = gathered(&outgoing).unwrap().unwrap();
        assert_eq!((batch.shared.len(), batch.own.len()), (30, 0));
        assert!(gathered(&outgoing).is_none());
    }

    #[test]
    fn a_large_frame_is_cut_out() {
        let outgoing = Outgoing::new(Lane::Data);
        for len in [10, SHARED_FRAME_BYTES + 1, 20] {
            assert_eq!(push(&outgoing, 1 << 20, len), Ok(len));
        }
        let batch = gathered(&outgoing).unwrap().unwrap();
        assert_eq!(batch.shared.len(), 30);
        assert_eq!(batch.own[0].len(), SHARED_FRAME_BYTES + 1);
    }

    #[test]
    fn no_more_waits_than_may_and_what_is_refused_leaves_no_trace() {
        let outgoing = Outgoing::new(Lane::Data);
        assert_eq!(push(&outgoing, 100, 60), Ok(60));
        assert_eq!(push(&outgoing, 100, 41), Err(NotQueued::Full));
        assert_eq!(
            push(&outgoing, 1 << 30, MAX_FRAME_BYTES + 1),
            Err(NotQueued::TooLarge(MAX_FRAME_BYTES + 1))
        );
        assert_eq!(push(&outgoing, 100, 40), Ok(40));
        assert_eq!(gathered(&outgoing).unwrap().unwrap().shared.len(), 100);
        // Until it is written it counts.
        assert_eq!(push(&outgoing, 100, 1), Err(NotQueued::Full));
        outgoing.written(100, 0);
        assert_eq!(push(&outgoing, 100, 1), Ok(1));
    }

    #[test]
    fn after_closing_nothing_is_taken_until_it_opens_again() {
        let outgoing = Outgoing::new(Lane::Data);
        assert_eq!(push(&outgoing, 100, 60), Ok(60));
        outgoing.close();
        assert_eq!(push(&outgoing, 100, 1), Err(NotQueued::Closed));
        assert!(gathered(&outgoing).unwrap().is_none());
        outgoing.open();
        assert_eq!(push(&outgoing, 100, 1), Ok(1));
    }
}
