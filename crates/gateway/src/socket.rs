//! A client's connection, plain or TLS, on which even the server's own refusals are JSON, and nobody is
//! waited for without end.
//!
//! The HTTP server below answers what it can't parse (a malformed head, one past its bound) by itself,
//! with an empty body, before any service sees it. The socket gives such an answer the body that every
//! error has. So that no value can pass for one, it follows what is written from answer to answer, by
//! those that the service has announced: what comes where an answer begins, and is none of those, is the
//! server's own. A line or head past its bound is refused here, and the server never sees it.
//!
//! The server below gets one request at a time: what a client sends after it stays with the socket or
//! the kernel until the answer is written. Of two requests in a row the server would frame the answer to
//! the first by the method of the second.
//!
//! The server below bounds the time of a connection's first head only, and none that it takes to write.
//! Here a client that is waited for too long ends its connection, at whatever point of a request. The
//! server reads before it writes, and not again before it is woken: so the end of an answer sets the
//! alarm, or wakes the server if there is something to read.

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::server::TlsStream;

use crate::{
    alarm::Alarm,
    exchange::Exchange,
    framing::{Framing, TooLong},
};

/// What the server writes between answers, to a client that asks before it sends.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";
const TOO_LONG: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n";

/// How long a client may be waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Until a head is whole, from its first byte or from the connection's beginning.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// Until it takes in anything of what is sent to it.
    pub(crate) stall: Duration,
    /// While what it sends after a refusal is thrown away, so that it gets to read that.
    pub(crate) linger: Duration,
}

/// A client's connection.
pub(crate) struct Socket {
    stream: Stream,
    exchange: Exchange,
    /// Whether a request's head has come whole, and its answer is not yet begun.
    under_way: bool,
    /// What is still to be written before the next answer begins.
    rest: u64,
    /// What came together with the end of the request under way.
    held: Bytes,
    /// Whether the server is to be woken at the answer's end, to read on.
    wake: bool,
    /// What is to be sent in place of a refusal, as far as it is not yet.
    instead: Bytes,
    /// What is to be sent at the end.
    last: Bytes,
    /// Until when to throw away after the end what still comes.
    linger: Option<Instant>,
    framing: Framing,
    patience: Patience,
    /// When the head at hand began, or the last answer ended.
    since: Instant,
    /// Since when the client has taken in nothing of what it is sent.
    blocked: Option<Instant>,
    alarm: Alarm,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Over plain TCP.
    pub(crate) fn plain(stream: TcpStream, patience: Patience) -> Self {
        Self::new(Stream::Plain(stream), patience)
    }

    /// Over TLS.
    pub(crate) fn tls(stream: TlsStream<TcpStream>, patience: Patience) -> Self {
        Self::new(Stream::Tls(Box::new(stream)), patience)
    }

    fn new(stream: Stream, patience: Patience) -> Self {
        Self {
            stream,
            exchange: Exchange::default(),
            under_way: false,
            rest: 0,
            held: Bytes::new(),
            wake: false,
            instead: Bytes::new(),
            last: Bytes::new(),
            linger: None,
            framing: Framing::default(),
            patience,
            since: Instant::now(),
            blocked: None,
            alarm: Alarm::default(),
        }
    }

    /// Where the service announces its answers.
    pub(crate) fn exchange(&self) -> Exchange {
        self.exchange.clone()
    }

    /// Takes what came: so much of it is of the request at hand.
    fn received(&mut self, bytes: &[u8]) -> Result<usize, TooLong> {
        let before = (self.framing.heads(), self.framing.is_in_head());
        let length = self.framing.advance(bytes)?;
        let after = (self.framing.heads(), self.framing.is_in_head());
        if after.1 && after != before {
            self.since = Instant::now();
        }
        if after.0 != before.0 {
            self.under_way = true;
            self.exchange.begin_request(self.framing.has_fragment());
        }
        Ok(length)
    }

    /// Takes no more from the client: for the server it has ended. Of what frames a body, the service
    /// makes an answer by itself.
    fn refuse(&mut self) {
        if self.framing.is_in_head() || self.framing.is_between() {
            self.last = refusal(TOO_LONG).unwrap_or_default();
        }
        self.held = Bytes::new();
        self.linger = Some(Instant::now() + self.patience.linger);
    }

    /// Whether a request is being carried out, or its answer written.
    fn is_busy(&self) -> bool {
        self.under_way || self.rest > 0
    }

    /// When to wait no longer for what the client sends. While a request is carried out it need not
    /// send anything; how long its body may take is the service's to say.
    fn read_deadline(&self) -> Option<Instant> {
        if self.is_busy() {
            return None;
        }
        let idle = self.framing.is_between() && self.framing.heads() > 0;
        Some(self.since + if idle { self.patience.idle } else { self.patience.head })
    }

    /// Ready once the client has been waited for too long: with an error if it takes in nothing, else
    /// as at the end of what it sends.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let read = self.read_deadline();
        let write = self.blocked.map(|since| since + self.patience.stall);
        let Some(deadline) = read.into_iter().chain(write).min() else { return Poll::Pending };
        ready!(self.alarm.poll(cx, deadline));
        if write == Some(deadline) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.framing.is_in_head() || self.framing.heads() == 0 {
            self.last = refusal(b"HTTP/1.1 408 Request Timeout\r\n").unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    }

    /// An answer is written: from here on the client is waited for.
    fn answered(&mut self, cx: &mut Context<'_>) {
        self.since = Instant::now();
        let passed = self.read_deadline().map(|deadline| self.alarm.poll(cx, deadline));
        if mem::take(&mut self.wake) || passed.is_some_and(|passed| passed.is_ready()) {
            cx.waker().wake_by_ref();
        }
    }

    /// What came of writing; if nothing, an error once the client has been waited for too long.
    fn poll_written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let since = *self.blocked.get_or_insert_with(Instant::now);
        ready!(self.alarm.poll(cx, since + self.patience.stall));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.poll_written(cx, written)
    }

    fn poll_send_all(
        &mut self,
        cx: &mut Context<'_>,
        bytes: fn(&mut Self) -> &mut Bytes,
    ) -> Poll<io::Result<()>> {
        loop {
            let rest = bytes(self).clone();
            if rest.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let written = ready!(self.poll_send(cx, &rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes(self).advance(written);
        }
    }

    /// Ready once the client has nothing more to send, or has been listened to for long enough.
    fn poll_linger(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let mut bytes = [0; 4096];
        while self.alarm.poll(cx, until).is_pending() {
            let mut into = ReadBuf::new(&mut bytes);
            match ready!(self.stream.poll_read(cx, &mut into)) {
                Ok(()) if !into.filled().is_empty() => {}
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send_all(cx, |socket| &mut socket.instead)
    }
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }

    /// Whether there is certainly something to read, if only the end.
    fn holds_unread(&self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx).is_ready(),
            Self::Tls(_) => false,
        }
    }

    /// Ready if there may be something to read, else once there is.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx).map(|_| ()),
            // It may have decrypted more than was read.
            Self::Tls(_) => Poll::Ready(()),
        }
    }
}

/// What begins where an answer begins.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    /// The word to go on, before the answer.
    Continue,
    /// So many bytes that are to go out as they are.
    AsIs(u64),
    /// So many bytes of the server's own refusal, and what to send instead.
    Refusal(usize, Bytes),
}

fn begun(bytes: &[u8], exchange: &Exchange) -> Begun {
    if bytes.starts_with(CONTINUE) {
        return Begun::Continue;
    }
    // The server writes a head in one go, so it is all there.
    let end = bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END);
    let head = end.map_or(bytes.len(), |end| end + HEAD_END.len());
    match exchange.begin_answer() {
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

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_busy() && self.framing.is_between() {
            self.wake = !self.held.is_empty() || self.stream.poll_readable(cx).is_ready();
            return self.poll_patience(cx);
        }
        if !self.held.is_empty() {
            let held = self.held.clone();
            let offered = &held[..held.len().min(into.remaining())];
            match self.received(offered) {
                Ok(length) => {
                    into.put_slice(&offered[..length]);
                    self.held.advance(length);
                }
                Err(TooLong) => self.refuse(),
            }
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let read = self.stream.poll_read(cx, into);
        if read.is_pending() {
            return self.poll_patience(cx);
        }
        let arrived = &into.filled()[before..];
        let taken = match self.received(arrived) {
            Ok(length) => {
                self.held = Bytes::copy_from_slice(&arrived[length..]);
                length
            }
            Err(TooLong) => {
                self.refuse();
                0
            }
        };
        into.set_filled(before + taken);
        read
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
            match begun(bytes, &self.exchange) {
                Begun::Continue => self.rest = CONTINUE.len() as u64,
                Begun::AsIs(length) => {
                    self.rest = length;
                    self.under_way = false;
                }
                // The service has answered already: a body broke off after that.
                Begun::Refusal(length, _) if !self.under_way && !self.framing.is_in_head() => {
                    return Poll::Ready(Ok(length));
                }
                Begun::Refusal(length, answer) => {
                    self.instead = answer;
                    return Poll::Ready(Ok(length));
                }
            }
        }
        let length = usize::try_from(self.rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
        let written = ready!(self.poll_send(cx, &bytes[..length]))?;
        self.rest -= written as u64;
        if self.rest == 0 {
            self.answered(cx);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        let flushed = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.poll_written(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        ready!(self.poll_send_all(cx, |socket| &mut socket.last))?;
        let shut = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        ready!(self.poll_written(cx, shut))?;
        // What is left unread would make a reset of the end, which may overtake the last answer.
        if self.linger.is_none() && (!self.held.is_empty() || self.stream.holds_unread(cx)) {
            self.linger = Some(Instant::now() + self.patience.linger);
        }
        match self.linger {
            Some(until) => self.poll_linger(cx, until).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read, Write},
    };

    use futures_util::FutureExt;

    use super::*;

    const REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: x\r\n\r\n";

    #[test]
    fn the_servers_own_refusal_is_replaced() {
        let bytes = [REFUSAL, b"rest"].concat();
        let Begun::Refusal(length, answer) = begun(&bytes, &Exchange::default()) else {
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
        let exchange = Exchange::default();
        exchange.announce(REFUSAL.len() as u64);
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 56\r\n\r\n";
        let bytes = [head, REFUSAL, REFUSAL].concat();
        let Begun::AsIs(length) = begun(&bytes, &exchange) else { panic!("replaced") };
        assert_eq!(length as usize, head.len() + REFUSAL.len());
        assert!(matches!(begun(&bytes[length as usize..], &exchange), Begun::Refusal(..)));
    }

    #[test]
    fn going_on_is_no_answer() {
        let exchange = Exchange::default();
        exchange.announce(2);
        let bytes = [CONTINUE, b"HTTP/1.1 200 OK\r\n\r\nhi"].concat();
        assert_eq!(begun(&bytes, &exchange), Begun::Continue);
        assert_eq!(begun(&bytes[CONTINUE.len()..], &exchange), Begun::AsIs(21));
    }

    const PATIENCE: Patience = Patience {
        head: Duration::from_millis(100),
        idle: Duration::from_millis(50),
        stall: Duration::from_millis(20),
        linger: Duration::from_millis(20),
    };
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

    /// A socket, and the client at its other end.
    async fn pair() -> (Socket, std::net::TcpStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (Socket::plain(stream, PATIENCE), client)
    }

    async fn read(socket: &mut Socket) -> io::Result<usize> {
        let mut bytes = [0; 100];
        let mut into = ReadBuf::new(&mut bytes);
        poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, &mut into)).await?;
        Ok(into.filled().len())
    }

    async fn write(socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *socket).poll_write(cx, bytes)).await
    }

    /// What the client has been sent once the socket is shut.
    async fn shut(mut socket: Socket, mut client: std::net::TcpStream) -> String {
        poll_fn(|cx| Pin::new(&mut socket).poll_shutdown(cx)).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_is_answered() {
        for begun in [&b""[..], b"GE", b"GET / HTTP/1.1\r\nHost: a\r\n"] {
            let (mut socket, mut client) = pair().await;
            client.write_all(begun).unwrap();
            while read(&mut socket).await.unwrap() > 0 {}
            let text = shut(socket, client).await;
            assert!(text.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{text}");
            assert!(text.ends_with('}'), "{text}");
        }
    }

    #[tokio::test]
    async fn a_client_may_idle_between_requests_for_a_while() {
        let (mut socket, mut client) = pair().await;
        client.write_all(REQUEST).unwrap();
        assert_eq!(read(&mut socket).await.unwrap(), REQUEST.len());
        // While it is answered, nothing is expected.
        let served = tokio::time::timeout(2 * PATIENCE.head, read(&mut socket)).await;
        assert!(served.is_err());
        socket.exchange().announce(0);
        let answered = Instant::now();
        assert_eq!(write(&mut socket, ANSWER).await.unwrap(), ANSWER.len());
        // An empty line is nothing either.
        client.write_all(b"\r\n").unwrap();
        assert_eq!(read(&mut socket).await.unwrap(), 2);
        assert_eq!(read(&mut socket).await.unwrap(), 0);
        assert!(answered.elapsed() >= PATIENCE.idle);
        assert_eq!(shut(socket, client).await.as_bytes(), ANSWER);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_in_is_cut_off() {
        let (mut socket, client) = pair().await;
        let bytes = [ANSWER, &[b'x'; 1 << 16]].concat();
        socket.exchange().announce(u64::from(u32::MAX));
        while let Some(written) = write(&mut socket, &bytes).now_or_never() {
            written.unwrap();
        }
        // Whichever half is waited for.
        assert_eq!(read(&mut socket).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(write(&mut socket, &bytes).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(client);
    }
}
