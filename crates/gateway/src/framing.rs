//! Where requests begin and end within the bytes that a client sends.
//!
//! Two things need to know, and the HTTP parser says neither. How long a client may be waited for
//! depends on whether it is between two requests, or within a head. And a bare `#` in a target must not
//! be overlooked: the parser cuts the target off there, so that two keys would become one.
//!
//! On whatever the parser accepts the two agree to the byte; what it refuses is the last that it reads
//! of a connection, so there it doesn't matter what is made of the rest.

use std::mem;

/// No line of a head that the parser accepts is longer.
const LINE_MAX: usize = 128 << 10;

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    place: Place,
    /// Of the line at hand, what came with earlier bytes.
    line: Vec<u8>,
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
    ChunkSize,
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
    /// Takes the next bytes. `fragment` is called for each request whose target holds a `#`, with its
    /// number: the connection's first is 0.
    pub(crate) fn advance(&mut self, mut bytes: &[u8], mut fragment: impl FnMut(u64)) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::FirstLine | Place::HeaderLine | Place::ChunkSize => {
                    self.advance_line(bytes, &mut fragment)
                }
                Place::Body(left) => self.skip(bytes, left, Place::Body, Place::FirstLine),
                Place::Chunk(left) => self.skip(bytes, left, Place::Chunk, Place::ChunkSize),
                Place::Trailer { .. } | Place::TrailerEnd { .. } => {
                    self.advance_trailer(bytes[0]);
                    &bytes[1..]
                }
                Place::Endless => return,
            };
        }
    }

    /// The heads that have come whole.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
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

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        within: fn(u64) -> Place,
        after: Place,
    ) -> &'a [u8] {
        let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - skipped as u64;
        self.place = if left > 0 { within(left) } else { after };
        &bytes[skipped..]
    }

    fn advance_line<'a>(&mut self, bytes: &'a [u8], fragment: &mut impl FnMut(u64)) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let piece = &bytes[..end.unwrap_or(bytes.len())];
        if self.line.len() + piece.len() > LINE_MAX {
            self.line = Vec::new();
            self.place = Place::Endless;
            return &[];
        }
        let Some(end) = end else {
            self.line.extend_from_slice(piece);
            return &[];
        };
        if self.line.is_empty() {
            self.line_ended(piece, fragment);
        } else {
            let mut line = mem::take(&mut self.line);
            line.extend_from_slice(piece);
            self.line_ended(&line, fragment);
        }
        &bytes[end + 1..]
    }

    fn line_ended(&mut self, line: &[u8], fragment: &mut impl FnMut(u64)) {
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
            Place::HeaderLine if line.is_empty() => {
                if self.head.fragment {
                    fragment(self.heads);
                }
                self.heads += 1;
                self.place = self.head.body();
            }
            Place::HeaderLine => self.head.header(line),
            _ => self.place = chunk(line),
        }
    }

    fn advance_trailer(&mut self, byte: u8) {
        self.place = match self.place {
            Place::TrailerEnd { all: true } => Place::FirstLine,
            Place::TrailerEnd { all: false } => Place::Trailer { at_start: true },
            Place::Trailer { at_start } if byte == b'\r' => Place::TrailerEnd { all: at_start },
            _ => Place::Trailer { at_start: false },
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
            _ if self.chunked => Place::ChunkSize,
            _ if self.websocket => Place::Endless,
            Some(length) if length > 0 => Place::Body(length),
            _ if self.connect => Place::Endless,
            _ => Place::FirstLine,
        }
    }
}

/// Where the client is after the line that begins a chunk.
fn chunk(line: &[u8]) -> Place {
    let digits = line.iter().map_while(|byte| char::from(*byte).to_digit(16));
    let size = digits.fold(0_u64, |size, digit| size.saturating_mul(16) | u64::from(digit));
    match size {
        0 => Place::Trailer { at_start: true },
        _ => Place::Chunk(size.saturating_add(2)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The requests with a `#` in their targets; and what became of the framing.
    fn followed(pieces: &[&[u8]]) -> (Vec<u64>, Framing) {
        let (mut framing, mut fragments) = (Framing::default(), vec![]);
        for piece in pieces {
            framing.advance(piece, |number| fragments.push(number));
        }
        (fragments, framing)
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
            &format!("GET /{}\r\n", "a".repeat(LINE_MAX)),
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
