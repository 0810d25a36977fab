//! A client's connection, plain or TLS, on which even the server's own refusals are JSON.
//!
//! The HTTP server below answers what it can't parse (a malformed head, one past its bound, one that
//! takes too long) by itself, with an empty body, before any service sees it. The socket gives such an
//! answer the body that every error has. So that no value can pass for one, it follows what is written
//! from answer to answer, by the [`Answers`] that the service has announced: what comes where an answer
//! begins, and is none of those, is the server's own.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// What the server writes between answers, to a client that asks before it sends.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The service's answers on one connection that are still to be written: the lengths of their bodies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Rc<RefCell<VecDeque<u64>>>);

impl Answers {
    /// The next answer will have a body of so many bytes on the wire.
    pub(crate) fn announce(&self, body: u64) {
        self.0.borrow_mut().push_back(body);
    }

    fn next(&self) -> Option<u64> {
        self.0.borrow_mut().pop_front()
    }
}

/// A client's connection.
pub(crate) struct Socket {
    stream: Stream,
    answers: Answers,
    /// What is still to be written before the next answer begins.
    rest: u64,
    /// What is to be sent in place of a refusal, as far as it is not yet.
    instead: Bytes,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Over plain TCP.
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self::new(Stream::Plain(stream))
    }

    /// Over TLS.
    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::new(Stream::Tls(Box::new(stream)))
    }

    fn new(stream: Stream) -> Self {
        Self { stream, answers: Answers::default(), rest: 0, instead: Bytes::new() }
    }

    /// Where the service announces its answers.
    pub(crate) fn answers(&self) -> Answers {
        self.answers.clone()
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            let written = ready!(self.stream.poll_write(cx, &self.instead))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// What begins where an answer begins.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    /// So many bytes that are to go out as they are.
    AsIs(u64),
    /// So many bytes of the server's own refusal, and what to send instead.
    Refusal(usize, Bytes),
}

fn begun(bytes: &[u8], answers: &Answers) -> Begun {
    if bytes.starts_with(CONTINUE) {
        return Begun::AsIs(CONTINUE.len() as u64);
    }
    // The server writes a head in one go, so it is all there.
    let end = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END);
    let head = end.map_or(bytes.len(), |end| end + HEAD_END.len());
    match answers.next() {
        Some(body) => Begun::AsIs(head as u64 + body),
        None => match refusal(&bytes[..head]) {
            Some(answer) => Begun::Refusal(head, answer),
            None => Begun::AsIs(bytes.len() as u64),
        },
    }
}

fn refusal(head: &[u8]) -> Option<Bytes> {
    let line = head.strip_prefix(b"HTTP/1.")?.get(2..)?.split(|byte| *byte == b'\r').next()?;
    let status = std::str::from_utf8(line).ok()?;
    let message = match status.get(..3)? {
        "400" => {
            "this is no HTTP/1.1 request that the node understands: its first line, path, headers or \
             framing are malformed"
        }
        "408" => "the request did not arrive in time",
        "431" => "the path and headers are longer than the node reads",
        _ => return None,
    };
    let body = format!(r#"{{"error":"bad_request","message":"{message}"}}"#);
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\
         content-type: application/json\r\n\r\n{body}",
        body.len()
    );
    Some(answer.into())
}

impl Stream {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if self.rest == 0 && !bytes.is_empty() {
            match begun(bytes, &self.answers) {
                Begun::AsIs(length) => self.rest = length,
                Begun::Refusal(length, answer) => {
                    self.instead = answer;
                    return Poll::Ready(Ok(length));
                }
            }
        }
        let length = usize::try_from(self.rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
        let written = ready!(self.stream.poll_write(cx, &bytes[..length]))?;
        self.rest -= written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: x\r\n\r\n";

    #[test]
    fn the_servers_own_refusal_is_replaced() {
        let bytes = [REFUSAL, b"rest"].concat();
        let Begun::Refusal(length, answer) = begun(&bytes, &Answers::default()) else {
            panic!("not known as a refusal");
        };
        assert_eq!(length, REFUSAL.len());
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"], "bad_request");
    }

    #[test]
    fn nothing_within_an_announced_answer_is_touched() {
        let answers = Answers::default();
        answers.announce(REFUSAL.len() as u64);
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 56\r\n\r\n";
        let bytes = [head, REFUSAL, REFUSAL].concat();
        let Begun::AsIs(length) = begun(&bytes, &answers) else { panic!("replaced") };
        assert_eq!(length as usize, head.len() + REFUSAL.len());
        assert!(matches!(begun(&bytes[length as usize..], &answers), Begun::Refusal(..)));
    }

    #[test]
    fn going_on_is_no_answer() {
        let answers = Answers::default();
        answers.announce(2);
        let bytes = [CONTINUE, b"HTTP/1.1 200 OK\r\n\r\nhi"].concat();
        assert_eq!(begun(&bytes, &answers), Begun::AsIs(CONTINUE.len() as u64));
        assert_eq!(begun(&bytes[CONTINUE.len()..], &answers), Begun::AsIs(21));
    }
}
