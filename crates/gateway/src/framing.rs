//! Where requests begin and end within the bytes that a client sends.
//!
//! Three things need to know, and the HTTP parser says none of them. It is given one request at a time.
//! How long a client may be waited for depends on whether it is between two requests, or within a head.
//! And a bare `#` in a target must not be overlooked: the parser cuts the target off there, so that two
//! keys would become one.
//!
//! On whatever the parser accepts the two agree to the byte; what it refuses is the last that it reads
//! of a connection, so there it doesn't matter what is made of the rest. Lines are bounded here, since
//! the parser bounds some not at all, and panics at the name of a header past 65,535 bytes.

use std::mem;

/// The longest line of a head or before a chunk, and all trailers together.
const LINE_MAX: usize = 32 << 10;
/// The longest head, with the empty lines before it.
const HEAD_MAX: usize = 128 << 10;

/// A head, or what frames a body, is longer than it may be. Nothing of it is for the parser.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    place: Place,
    /// Of the line at hand in a head, what came with earlier bytes.
    line: Vec<u8>,
    /// The bytes so far of the head, of the line before a chunk, or of the trailers.
    length: usize,
    head: Head,
    heads: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before a request's first line, or in it.
    #[default]
    FirstLine,
    HeaderLine,
    /// In a body with so many bytes to come.
    Body(u64),
    /// In the digits of a chunk's size, which come to so much yet.
    ChunkSize(u64),
    /// After them, in the same line.
    ChunkExtension(u64),
    /// In a chunk, with so many bytes to come; the line end after it is counted in.
    Chunk(u64),
    /// After the last chunk, at the start of a line or within one.
    Trailer {
        at_start: bool,
    },
    /// There, after the `\r` that ends a line, or with an empty line everything.
    TrailerEnd {
        all: bool,
    },
    /// In what has no end.
    Endless,
}

/// What the head at hand says, as far as it has been read.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    fragment: bool,
    connect: bool,
    websocket: bool,
    chunked: bool,
    length: Option<u64>,
}

impl Framing {
    /// Takes the next bytes, up to the end of the request at hand: how many these are.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, TooLong> {
        let mut taken = 0;
        while taken < bytes.len() {
            let (before, rest) = (self.place, &bytes[taken..]);
            taken += match before {
                Place::FirstLine | Place::HeaderLine => self.advance_line(rest)?,
                Place::Body(left) => self.skip(rest, left, Place::Body, Place::FirstLine),
                Place::Chunk(left) => self.skip(rest, left, Place::Chunk, Place::ChunkSize(0)),
                Place::Endless => rest.len(),
                _ => {
                    self.grow(1, LINE_MAX)?;
                    self.advance_between_chunks(rest[0]);
                    1
                }
            };
            if before != Place::FirstLine && self.place == Place::FirstLine {
                break;
            }
        }
        Ok(taken)
    }

    /// The heads that have come whole.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the target of the last of them holds a `#`, until the next begins.
    pub(crate) fn has_fragment(&self) -> bool {
        self.head.fragment
    }

    /// Whether the client is in the midst of a head.
    pub(crate) fn is_in_head(&self) -> bool {
        match self.place {
            Place::FirstLine => self.has_begun(),
            Place::HeaderLine => true,
            _ => false,
        }
    }

    /// Whether the client is between two requests, where empty lines are allowed.
    pub(crate) fn is_between(&self) -> bool {
        self.place == Place::FirstLine && !self.has_begun()
    }

    fn has_begun(&self) -> bool {
        !matches!(self.line[..], [] | [b'\r'])
    }

    fn grow(&mut self, bytes: usize, max: usize) -> Result<(), TooLong> {
        self.length += bytes;
        if self.length > max { Err(TooLong) } else { Ok(()) }
    }

    fn skip(&mut self, bytes: &[u8], left: u64, within: fn(u64) -> Place, after: Place) -> usize {
        let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - skipped as u64;
        self.place = if left > 0 { within(left) } else { after };
        skipped
    }

    fn advance_line(&mut self, bytes: &[u8]) -> Result<usize, TooLong> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        let taken = piece.len() + usize::from(end.is_some());
        self.grow(taken, HEAD_MAX)?;
        if self.line.len() + piece.len() > LINE_MAX {
            return Err(TooLong);
        }
        if end.is_none() {
            self.line.extend_from_slice(piece);
        } else if self.line.is_empty() {
            self.line_ended(piece);
        } else {
            let mut line = mem::take(&mut self.line);
            line.extend_from_slice(piece);
            self.line_ended(&line);
        }
        Ok(taken)
    }

    fn line_ended(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.place {
            Place::FirstLine if line.is_empty() => {}
            Place::FirstLine => {
                self.head = Head {
                    fragment: line.contains(&b'#'),
                    connect: line.starts_with(b"CONNECT "),
                    ..Head::default()
                };
                self.place = Place::HeaderLine;
            }
            _ if line.is_empty() => {
                self.heads += 1;
                self.length = 0;
                self.place = self.head.body();
            }
            _ => self.head.header(line),
        }
    }

    fn advance_between_chunks(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (Place::ChunkSize(size) | Place::ChunkExtension(size), b'\n') => {
                self.length = 0;
                match size {
                    0 => Place::Trailer { at_start: true },
                    _ => Place::Chunk(size.saturating_add(2)),
                }
            }
            (Place::ChunkSize(size), _) => match char::from(byte).to_digit(16) {
                Some(digit) => Place::ChunkSize(size.saturating_mul(16) | u64::from(digit)),
                None => Place::ChunkExtension(size),
            },
            (Place::Trailer { at_start }, b'\r') => Place::TrailerEnd { all: at_start },
            (Place::Trailer { .. }, _) => Place::Trailer { at_start: false },
            (Place::TrailerEnd { all: false }, _) => Place::Trailer { at_start: true },
            (Place::TrailerEnd { all: true }, _) => {
                self.length = 0;
                Place::FirstLine
            }
            (place, _) => place,
        };
    }
}

impl Head {
    fn header(&mut self, line: &[u8]) {
        // Every header passes here, and hardly one is meant.
        if !matches!(line[0], b'c' | b'C' | b't' | b'T' | b'u' | b'U') {
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked |= value.eq_ignore_ascii_case(b"chunked");
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.websocket |= value.eq_ignore_ascii_case(b"websocket");
        }
    }

    /// Where the client is once the head has ended.
    fn body(self) -> Place {
        match self.length {
            _ if self.chunked => Place::ChunkSize(0),
            _ if self.websocket => Place::Endless,
            Some(length) if length > 0 => Place::Body(length),
            _ if self.connect => Place::Endless,
            _ => Place::FirstLine,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The requests with a `#` in their targets, by their numbers, up to what is too long; and what
    /// became of the framing.
    fn followed(pieces: &[&[u8]]) -> (Vec<u64>, Framing) {
        let (mut framing, mut fragments) = (Framing::default(), vec![]);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let heads = framing.heads();
                let Ok(taken) = framing.advance(rest) else { return (fragments, framing) };
                assert!((1..=rest.len()).contains(&taken));
                assert!(taken == rest.len() || framing.is_between());
                assert!(framing.heads() <= heads + 1);
                if framing.heads() > heads && framing.has_fragment() {
                    fragments.push(heads);
                }
                rest = &rest[taken..];
            }
        }
        (fragments, framing)
    }

    #[test]
    fn each_request_is_taken_for_itself() {
        for text in PLAIN {
            let (mut framing, both) = (Framing::default(), [text, FRAGMENT].concat());
            assert_eq!(framing.advance(both.as_bytes()), Ok(text.len()), "{text}");
            assert_eq!((framing.heads(), framing.has_fragment()), (1, false), "{text}");
        }
    }

    #[test]
    fn lines_and_heads_are_bounded() {
        let (long, line) = ("a".repeat(LINE_MAX), "a".repeat(LINE_MAX / 2));
        let chunked = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (text, lines) in [
            (format!("GET /{line} HTTP/1.1\r\nX: {line}\r\n\r\n"), Ok(())),
            (long.clone(), Ok(())),
            (format!("{long}a"), Err(TooLong)),
            (format!("GET / HTTP/1.1\r\nX: {long}"), Err(TooLong)),
            (format!("GET / HTTP/1.1\r\n{}", format!("{line}\r\n").repeat(8)), Err(TooLong)),
            ("\r\n".repeat(HEAD_MAX / 2), Ok(())),
            ("\r\n".repeat(HEAD_MAX / 2 + 1), Err(TooLong)),
            (format!("{chunked}1;{line}\r\na\r\n1;{line}{line}"), Err(TooLong)),
            (format!("{chunked}{}", format!("1;{line}\r\na\r\n").repeat(8)), Ok(())),
            (format!("{chunked}0\r\n{}", "A: b\r\n".repeat(LINE_MAX / 6)), Ok(())),
            (format!("{chunked}0\r\n{}", "A: b\r\n".repeat(LINE_MAX / 6 + 1)), Err(TooLong)),
        ] {
            for size in [usize::MAX, 1000] {
                let mut framing = Framing::default();
                let mut pieces = text.as_bytes().chunks(size.min(text.len()));
                let taken = pieces.try_for_each(|piece| {
                    framing.advance(piece).map(|taken| assert_eq!(taken, piece.len()))
                });
                assert_eq!(taken, lines, "{text:.60}");
            }
        }
    }

    /// Requests of every framing, each with a `#` where it means nothing.
    const PLAIN: [&str; 7] = [
        "GET /kv/a HTTP/1.1\r\nHost: a#b\r\n\r\n",
        "\r\n\nGET /kv/a HTTP/1.1\nX: #\n\n",
        "PUT /kv/a HTTP/1.1\r\ncontent-length:\t 28 \r\n\r\nGET /kv/a#b HTTP/1.1\r\n\r\n####",
        "PUT /kv/a HTTP/1.1\r\nContent-Length: 0\r\nUpgrade: h2c\r\n\r\n",
        "PUT /kv/a HTTP/1.1\r\nTRANSFER-ENCODING: Chunked\r\n\r\n3\r\n#\r\n\r\n0C;a=#\r\nGET # HTTP/\n\r\n0\r\n\r\n",
        "PUT /kv/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n00\r\nA: #\nGET /# HTTP/1.1\r\nB: #\r\n\r\n",
        "POST /kv/a HTTP/1.0\r\nContent-Length: 1\r\n\r\n#",
    ];
    const FRAGMENT: &str = "PUT /kv/ks/a#b HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn only_targets_are_looked_at() {
        for text in PLAIN {
            let (fragments, framing) = followed(&[text.as_bytes(), FRAGMENT.as_bytes()]);
            assert_eq!(fragments, [1], "{text}");
            assert!(framing.heads() == 2 && framing.is_between(), "{text}");
        }
    }

    #[test]
    fn the_client_is_within_a_head_or_not() {
        let text = "\r\nGET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
        for end in 0..=text.len() {
            let (_, framing) = followed(&[&text.as_bytes()[..end]]);
            assert_eq!(framing.is_in_head(), (3..text.len() - 2).contains(&end), "{end}");
            assert_eq!(framing.is_between(), end < 3 || end == text.len(), "{end}");
        }
    }

    #[test]
    fn what_has_no_end_is_not_searched() {
        for head in [
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n",
            "CONNECT / HTTP/1.1\r\n\r\n",
        ] {
            let (fragments, framing) = followed(&[head.as_bytes(), FRAGMENT.as_bytes()]);
            assert!(fragments.is_empty() && !framing.is_between());
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            requests in prop::collection::vec(prop::sample::select(&PLAIN[..]), 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let requests: Vec<_> = requests.into_iter().flat_map(|text| [text, FRAGMENT]).collect();
            let (text, count) = (requests.concat(), requests.len() as u64);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let (fragments, framing) = followed(&pieces);
            prop_assert_eq!(fragments, (0..count).filter(|number| number % 2 == 1).collect::<Vec<_>>());
            prop_assert!(framing.heads() == count && framing.is_between());
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            followed(&[b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes]);
            followed(&[&bytes]);
        }
    }
}
