//! Records: JSON Lines, a record a line, read on a thread of their own.
//!
//! `{"key": "…", "value": "…", "encoding": "utf-8" | "base64"}`; the encoding is the value's and may be
//! left out. A line that is no record is a problem of that line alone. However long a line is, no more
//! than a bound of it is held.

use std::io::{self, BufRead, Read};

use anello_client::Bytes;
use anello_protocol::{key::Key, version::MAX_VALUE_BYTES};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tokio::sync::mpsc;

/// The longest line that is read: every byte of the largest value may be escaped as `\u00XX`.
const MAX_LINE_BYTES: usize = 6 * MAX_VALUE_BYTES + 64 * 1024;
/// How many lines are read ahead.
const AHEAD: usize = 64;

/// A line, and where it ends.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Where the next line begins, in bytes.
    pub(super) end: u64,
    /// What it says.
    pub(super) record: Result<Record, String>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// The key.
    pub(super) key: Key,
    /// The value.
    pub(super) value: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRecord {
    key: String,
    value: String,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Default, Deserialize)]
enum Encoding {
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    #[serde(rename = "base64")]
    Base64,
}

/// Where in the input to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// Bytes before it.
    pub(super) offset: u64,
    /// Lines before it.
    pub(super) lines: u64,
}

/// Reads lines in the background, a few ahead. An input that can't be read is the last thing sent.
pub(super) fn read_ahead(
    input: impl Read + Send + 'static,
    start: Start,
) -> mpsc::Receiver<io::Result<Line>> {
    let (lines, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut reader = Reader::new(io::BufReader::with_capacity(256 * 1024, input), start);
        // Sending fails once nobody wants lines any more.
        while let Some(line) = reader.next().transpose() {
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

struct Reader<R> {
    input: R,
    at: Start,
    buffer: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    fn new(input: R, at: Start) -> Self {
        Self { input, at, buffer: Vec::new() }
    }

    fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            self.buffer.clear();
            let bound = MAX_LINE_BYTES as u64 + 1;
            let mut read = self.input.by_ref().take(bound).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            let too_long = self.buffer.len() > MAX_LINE_BYTES;
            if too_long && !self.buffer.ends_with(b"\n") {
                read += self.skip_line()?;
            }
            self.at.offset += read as u64;
            self.at.lines += 1;
            let text = self.buffer.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let record =
                if too_long { Err("the line is too long".into()) } else { Record::parse(text) };
            return Ok(Some(Line { number: self.at.lines, end: self.at.offset, record }));
        }
    }

    /// Reads to the end of the line without holding it.
    fn skip_line(&mut self) -> io::Result<usize> {
        let mut skipped = 0;
        loop {
            let ahead = self.input.fill_buf()?;
            let line_end = ahead.iter().position(|byte| *byte == b'\n');
            let count = line_end.map_or(ahead.len(), |at| at + 1);
            self.input.consume(count);
            skipped += count;
            if line_end.is_some() || count == 0 {
                return Ok(skipped);
            }
        }
    }
}

impl Record {
    fn parse(line: &[u8]) -> Result<Self, String> {
        let raw: RawRecord =
            serde_json::from_slice(line).map_err(|error| format!("no record: {error}"))?;
        let key = Key::new(raw.key.into_bytes()).map_err(|error| error.to_string())?;
        let value = match raw.encoding {
            Encoding::Utf8 => raw.value.into_bytes(),
            Encoding::Base64 => STANDARD
                .decode(&raw.value)
                .map_err(|error| format!("the value is no base64: {error}"))?,
        };
        if value.len() > MAX_VALUE_BYTES {
            return Err(format!(
                "a value is at most {MAX_VALUE_BYTES} bytes, this one has {}",
                value.len()
            ));
        }
        Ok(Self { key, value: value.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8], start: Start) -> Vec<Line> {
        let mut reader = Reader::new(text, start);
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    fn record(key: &'static str, value: &'static [u8]) -> Record {
        Record { key: Key::new(key).unwrap(), value: value.into() }
    }

    #[test]
    fn lines_know_where_they_end() {
        let text = b"{\"key\":\"a\",\"value\":\"1\"}\n\n{\"key\":\"b\",\"value\":\"AP8=\",\"encoding\":\"base64\"}";
        let lines = lines(text, Start::default());
        assert_eq!(lines[0], Line { number: 1, end: 24, record: Ok(record("a", b"1")) });
        assert_eq!(
            lines[1],
            Line { number: 3, end: text.len() as u64, record: Ok(record("b", b"\x00\xff")) }
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn reading_begins_where_it_ended() {
        let text = b"{\"key\":\"b\",\"value\":\"2\"}\n";
        let lines = lines(text, Start { offset: 100, lines: 7 });
        assert_eq!((lines[0].number, lines[0].end), (8, 124));
    }

    #[test]
    fn a_bad_line_is_a_problem_of_its_own() {
        let long = format!("{{\"key\":\"k\",\"value\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES));
        let large = format!("{{\"key\":\"k\",\"value\":\"{}\"}}", "x".repeat(MAX_VALUE_BYTES + 1));
        let text = format!(
            "nonsense\n{{\"key\":\"\",\"value\":\"\"}}\n{{\"key\":\"k\",\"value\":\"?\",\"encoding\":\"base64\"}}\n\
             {{\"key\":\"k\",\"value\":\"\",\"colour\":1}}\n{long}\n{large}\n{{\"key\":\"k\",\"value\":\"\"}}\n"
        );
        let lines = lines(text.as_bytes(), Start::default());
        let problems: Vec<_> = lines.iter().filter_map(|line| line.record.as_ref().err()).collect();
        let expected =
            ["no record", "1 to 1024 bytes", "no base64", "colour", "too long", "at most 1048576"];
        assert_eq!(problems.len(), expected.len());
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{problem:?} lacks {expected:?}");
        }
        assert_eq!(lines.last().unwrap().record, Ok(record("k", b"")));
        assert_eq!(lines.last().unwrap().end, text.len() as u64);
    }
}
