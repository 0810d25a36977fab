//! Reading frames from a connection's streams: those that many frames share, and those of one frame.
//!
//! Whoever sends them has shown a certificate of the cluster, and is not trusted beyond that: lengths are
//! checked before anything is kept, and buffers grow with what arrives.

use anello_protocol::message::Lane;
use bytes::Bytes;
use quinn::{ReadError, RecvStream};
use thiserror::Error;

use crate::{
    decoder::Decoder,
    frame::{BadFrame, LENGTH_BYTES},
    outgoing::{MAX_FRAME_BYTES, SHARED_FRAME_BYTES, lane_byte},
};

/// Chunks that are taken from a stream at a time.
const CHUNKS: usize = 32;
/// A frame's kind and number.
const HEAD_BYTES: usize = 9;

/// Why nothing more is read from a stream.
#[derive(Debug, Error)]
pub(crate) enum ReadFailed {
    /// The connection is lost, or the other side gave the stream up.
    #[error(transparent)]
    Lost(#[from] ReadError),
    /// What was read is no frame.
    #[error(transparent)]
    Bad(#[from] BadFrame),
}

/// Reads a stream that many frames share, to its end.
pub(crate) async fn read_shared(
    mut stream: RecvStream,
    mut each: impl FnMut(&[u8]) -> Result<(), BadFrame>,
) -> Result<(), ReadFailed> {
    let mut decoder = Decoder::new(SHARED_FRAME_BYTES);
    let mut chunks: [Bytes; CHUNKS] = Default::default();
    while let Some(count) = stream.read_chunks(&mut chunks).await? {
        for chunk in &mut chunks[..count] {
            decoder.feed(&std::mem::take(chunk), &mut each)?;
        }
    }
    Ok(())
}

/// A frame with a stream of its own, of which the beginning has arrived.
pub(crate) struct OwnFrame {
    stream: RecvStream,
    /// The lane that the stream stands for.
    pub(crate) lane: Lane,
    /// The number of the call that it belongs to.
    pub(crate) id: u64,
    /// Its length, as promised and within the bound.
    pub(crate) length: usize,
    /// What has arrived, without its length.
    arrived: Vec<u8>,
}

impl OwnFrame {
    /// Reads the beginning.
    pub(crate) async fn begin(mut stream: RecvStream) -> Result<Self, ReadFailed> {
        let mut head = [0; 1 + LENGTH_BYTES + HEAD_BYTES];
        stream.read_exact(&mut head).await.map_err(|error| match error {
            quinn::ReadExactError::FinishedEarly(_) => ReadFailed::Bad(BadFrame::TooShort),
            quinn::ReadExactError::ReadError(error) => ReadFailed::Lost(error),
        })?;
        let [lane, rest @ ..] = head;
        let lane = [Lane::Data, Lane::Control].into_iter().find(|&known| lane_byte(known) == lane);
        let lane = lane.ok_or(BadFrame::UnknownKind(head[0]))?;
        let (length, begun) = rest.split_at(LENGTH_BYTES);
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(BadFrame::TooLong(length).into());
        }
        let id = u64::from_le_bytes(begun[1..].try_into().expect("eight bytes"));
        Ok(Self { stream, lane, id, length, arrived: begun.to_vec() })
    }

    /// Reads the rest, and gives the whole frame without its length.
    pub(crate) async fn finish(mut self) -> Result<Vec<u8>, ReadFailed> {
        let mut chunks: [Bytes; CHUNKS] = Default::default();
        while self.arrived.len() < self.length {
            let Some(count) = self.stream.read_chunks(&mut chunks).await? else { break };
            for chunk in &mut chunks[..count] {
                self.arrived.extend_from_slice(&std::mem::take(chunk));
            }
            if self.arrived.len() > self.length {
                return Err(BadFrame::TooLong(self.arrived.len()).into());
            }
        }
        if self.arrived.len() < self.length {
            return Err(BadFrame::TooShort.into());
        }
        Ok(self.arrived)
    }

    /// Reads nothing more of it.
    pub(crate) fn decline(mut self) {
        // An error means that the stream is over already.
        let _ = self.stream.stop(quinn::VarInt::from_u32(0));
    }
}
