//! Cuts a stream into frames, wherever the chunks that arrive happen to end.
//!
//! A frame that lies within one chunk is read in place; only what straddles two is copied, into a buffer
//! that is kept, and that grows with what arrives, never with what a length promises.

use crate::frame::{BadFrame, LENGTH_BYTES};

/// Cuts one stream.
pub(crate) struct Decoder {
    /// What has arrived of a frame whose rest has not, its length included.
    partial: Vec<u8>,
    /// The longest frame that is read, beside its length.
    max: usize,
}

impl Decoder {
    /// A decoder that takes frames up to this length.
    pub(crate) fn new(max: usize) -> Self {
        Self { partial: Vec::new(), max }
    }

    /// Takes a chunk in, and passes on each frame that is whole with it, without its length.
    pub(crate) fn feed(
        &mut self,
        mut chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), BadFrame>,
    ) -> Result<(), BadFrame> {
        while !self.partial.is_empty() && !chunk.is_empty() {
            let missing = match self.frame_len(&self.partial)? {
                None => LENGTH_BYTES - self.partial.len(),
                Some(len) => LENGTH_BYTES + len - self.partial.len(),
            };
            let (taken, rest) = chunk.split_at(missing.min(chunk.len()));
            self.partial.extend_from_slice(taken);
            chunk = rest;
            if let Some(len) = self.frame_len(&self.partial)?
                && self.partial.len() == LENGTH_BYTES + len
            {
                each(&self.partial[LENGTH_BYTES..])?;
                self.partial.clear();
            }
        }
        while let Some(len) = self.frame_len(chunk)? {
            let Some((frame, rest)) = chunk[LENGTH_BYTES..].split_at_checked(len) else { break };
            each(frame)?;
            chunk = rest;
        }
        self.partial.extend_from_slice(chunk);
        Ok(())
    }

    /// The length of the frame that begins there, once enough of it is known.
    fn frame_len(&self, bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
        let Some((length, _)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*length) as usize;
        if len > self.max { Err(BadFrame::TooLong(len)) } else { Ok(Some(len)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MAX: usize = 40;

    fn cut(stream: &[u8], ends: &[prop::sample::Index]) -> Result<Vec<Vec<u8>>, BadFrame> {
        let mut ends: Vec<usize> = ends.iter().map(|end| end.index(stream.len() + 1)).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let (mut decoder, mut frames, mut start) = (Decoder::new(MAX), Vec::new(), 0);
        for end in ends {
            decoder.feed(&stream[start..end], |frame| {
                frames.push(frame.to_vec());
                Ok(())
            })?;
            start = end;
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_are_cut_alike_wherever_chunks_end(
            frames in vec(vec(any::<u8>(), 0..=MAX), 0..8),
            ends in vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                stream.extend_from_slice(&(frame.len() as u32).to_le_bytes());
                stream.extend_from_slice(frame);
            }
            prop_assert_eq!(cut(&stream, &ends).unwrap(), frames);
        }

        #[test]
        fn no_stream_makes_it_panic_or_disagree_with_itself(
            stream in vec(prop_oneof![Just(0u8), any::<u8>()], 0..200),
            ends in vec(any::<prop::sample::Index>(), 0..12),
        ) {
            prop_assert_eq!(cut(&stream, &ends), cut(&stream, &[]));
        }
    }

    #[test]
    fn a_length_past_the_bound_is_refused_before_the_rest_arrives() {
        let mut decoder = Decoder::new(MAX);
        let length = (MAX as u32 + 1).to_le_bytes();
        assert_eq!(decoder.feed(&length[..3], |_| Ok(())), Ok(()));
        assert_eq!(decoder.feed(&length[3..], |_| Ok(())), Err(BadFrame::TooLong(MAX + 1)));
        assert!(decoder.partial.capacity() <= 64);
    }
}
