//! One HTTP worker: serves connections on the runtime that it is started on, and nowhere else.
//!
//! actix-web's own server brings threads of its own. Here connections live on the arbiters, beside the
//! coordinators and vnodes, so that a request wakes as few other threads as it can: the worker drives
//! the same HTTP service by itself, one task a connection. HTTP/1.1 only: what a client may have under
//! way is bounded by its connections.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use actix_http::{HttpService, KeepAlive, Protocol, Request, Response, error::DispatchError};
use actix_service::{Service as _, ServiceFactory, fn_service};
use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::{Method, StatusCode},
    rt,
};
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::{
    acceptor::{Acceptor, Connection},
    backend::Backend,
    body,
    exchange::Exchange,
    service::{Service, admit},
    socket::{Patience, Socket},
};

/// How long the head of a request, or a TLS handshake, may take.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// How long clients are waited for.
const PATIENCE: Patience = Patience {
    head: HEAD_MAX,
    idle: Duration::from_secs(75),
    stall: Duration::from_secs(30),
    linger: LINGER_MAX,
};
/// How much of an answer the kernel may hold, which doubles this. It lets a writer go on only once a
/// third of that is free: left to grow to megabytes, a client that reads steadily, at tens of kilobytes
/// a second, would look as if it took in nothing.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// How long what a client still sends is thrown away after an early answer, so that the client gets to
/// read the answer instead of a reset.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// A worker that runs.
///
/// Dropping it stops the worker as [`GatewayHandle::stop`] does, without waiting for the end.
#[derive(Debug)]
pub struct GatewayHandle {
    stop: watch::Sender<bool>,
    /// Closed once nothing of the worker is left.
    ended: mpsc::Receiver<()>,
}

impl GatewayHandle {
    /// Takes no further connection and no further request, and returns when those under way have ended.
    /// How long that may take is the caller's to bound.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = self.ended.recv().await;
    }
}

/// Starts a worker on the current arbiter.
///
/// With a TLS configuration it serves HTTPS, and nothing else.
pub fn start_worker(
    acceptor: Acceptor,
    backend: Backend,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> io::Result<GatewayHandle> {
    let (stop, stopping) = watch::channel(false);
    let (alive, ended) = mpsc::channel(1);
    let service = Rc::new(Service { backend, shared: Arc::clone(&acceptor.shared) });
    let mut intake = acceptor.start()?;
    let tls = tls.map(tls_acceptor);
    rt::spawn(async move {
        let Ok(http) = http_service(service, stopping.clone()).new_service(()).await else {
            return;
        };
        let http = Rc::new(http);
        let mut stopped = stopping.clone();
        loop {
            let next = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => break,
                next = intake.next() => next,
            };
            let Some(connection) = next else { break };
            let (http, tls, alive) = (Rc::clone(&http), tls.clone(), alive.clone());
            let mut stopped = stopping.clone();
            rt::spawn(async move {
                let Connection { stream, place } = connection;
                let opened = tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => None,
                    opened = open(stream, tls) => opened,
                };
                if let Some((socket, peer)) = opened
                    && let Err(error) = http.call((socket, Protocol::Http1, Some(peer))).await
                {
                    debug!(%peer, %error, "an HTTP connection ended early");
                }
                drop((place, alive));
            });
        }
    });
    Ok(GatewayHandle { stop, ended })
}

async fn open(
    stream: std::net::TcpStream,
    tls: Option<TlsAcceptor>,
) -> Option<(Socket, SocketAddr)> {
    SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES).ok()?;
    let stream = TcpStream::from_std(stream).ok()?;
    let peer = stream.peer_addr().ok()?;
    let Some(tls) = tls else {
        return Some((Socket::plain(stream, PATIENCE), peer));
    };
    match timeout(HEAD_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some((Socket::tls(stream, PATIENCE), peer)),
        Ok(Err(error)) => {
            debug!(%peer, %error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            debug!(%peer, "a TLS handshake took too long");
            None
        }
    }
}

fn tls_acceptor(config: Arc<rustls::ServerConfig>) -> TlsAcceptor {
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn http_service(
    service: Rc<Service>,
    stopping: watch::Receiver<bool>,
) -> impl ServiceFactory<
    (Socket, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
> {
    let answer = fn_service(move |mut request: Request| {
        let service = Rc::clone(&service);
        async move {
            let payload = request.take_payload();
            let fragment = has_fragment(&request);
            let response = service.answer(request.head(), fragment, payload).await;
            Ok::<_, Response<BoxBody>>(announced(&request, response))
        }
    });
    let expect = fn_service(|mut request: Request| async move {
        match admit(request.head(), has_fragment(&request)) {
            Ok(()) => Ok(request),
            Err(failure) => {
                let payload = request.take_payload();
                let response = body::leave_to(failure.response(), payload);
                Err::<Request, _>(announced(&request, response))
            }
        }
    });
    HttpService::build()
        // The socket has its own patience, with every head and not just the first.
        .client_request_timeout(Duration::ZERO)
        .keep_alive(KeepAlive::Os)
        .client_disconnect_timeout(LINGER_MAX)
        .graceful_shutdown_signal(move || {
            let mut stopping = stopping.clone();
            async move {
                // An error means that the handle is gone, which stops the worker as well.
                let _ = stopping.wait_for(|stop| *stop).await;
            }
        })
        .on_connect_ext(|socket: &Socket, connection| {
            connection.insert(socket.exchange());
        })
        .expect(expect)
        .finish(answer)
}

/// Tells the connection of an answer, which is about to be written to it.
fn announced(request: &Request, response: HttpResponse) -> Response<BoxBody> {
    let bodiless = request.head().method == Method::HEAD
        || matches!(response.status(), StatusCode::NO_CONTENT);
    let body = match response.body().size() {
        BodySize::Sized(length) if !bodiless => length,
        _ => 0,
    };
    if let Some(exchange) = request.conn_data::<Exchange>() {
        exchange.announce(body);
    }
    response.into()
}

/// Whether a request's target holds a `#`, of which its head says nothing.
fn has_fragment(request: &Request) -> bool {
    request.conn_data::<Exchange>().is_some_and(Exchange::has_fragment)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use anello_transport::ActorRef;

    use super::*;
    use crate::acceptor::Limits;

    const BRIEF: Patience = Patience {
        head: Duration::from_millis(50),
        idle: Duration::from_millis(100),
        stall: Duration::from_secs(5),
        linger: Duration::ZERO,
    };

    /// Gets no answer from anyone, and from its coordinator only after a while.
    fn backend() -> Backend {
        Backend {
            node: "eu-a-1".parse().unwrap(),
            get: ActorRef::function(|call| {
                rt::spawn(async move {
                    tokio::time::sleep(3 * BRIEF.head).await;
                    drop(call);
                });
                Ok(())
            }),
            write: ActorRef::function(|_| Ok(())),
            locate: ActorRef::function(|_| Ok(())),
            cluster: ActorRef::function(|_| Ok(())),
            fetch: ActorRef::function(|_| Ok(())),
            alter: ActorRef::function(|_| Ok(())),
            alter_ring: ActorRef::function(|_| Ok(())),
            status: ActorRef::function(|_| Ok(())),
            repair: ActorRef::function(|_| Ok(())),
        }
    }

    /// What a client gets that sends this and then nothing, until the server ends the connection.
    /// The first part is there before the connection is first looked at.
    fn heard(first: &'static [u8], second: &'static [u8]) -> String {
        rt::System::new().block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let (stream, peer) = listener.accept().unwrap();
            let acceptor = Acceptor::split(listener, 1, Limits::default()).unwrap().pop().unwrap();
            let service = Rc::new(Service { backend: backend(), shared: acceptor.shared });
            let (_stop, stopping) = watch::channel(false);
            let http = http_service(service, stopping).new_service(()).await.unwrap();

            stream.set_nonblocking(true).unwrap();
            let stream = TcpStream::from_std(stream).unwrap();
            client.write_all(first).unwrap();
            if !first.is_empty() {
                stream.readable().await.unwrap();
            }
            let client = std::thread::spawn(move || {
                let mut text = String::new();
                client.write_all(second).unwrap();
                client.read_to_string(&mut text).unwrap();
                text
            });
            let socket = Socket::plain(stream, BRIEF);
            // A task of its own is polled only when it is woken.
            let served =
                rt::spawn(async move { http.call((socket, Protocol::Http1, Some(peer))).await });
            let ended = timeout(Duration::from_secs(10), served).await;
            ended.expect("the client is waited for without end").unwrap().unwrap();
            client.join().unwrap()
        })
    }

    fn statuses(text: &str) -> Vec<&str> {
        text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
    }

    #[test]
    fn a_client_is_not_waited_for_without_end_after_an_answer() {
        let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
        for (first, second) in [(&request[..], &b""[..]), (b"", request)] {
            assert_eq!(statuses(&heard(first, second)), ["200"]);
        }
    }

    #[test]
    fn nor_after_a_request_that_took_longer_than_it_might_idle() {
        let request = b"GET /kv/k HTTP/1.1\r\nHost: a\r\n\r\n";
        for (first, second) in [(&request[..], &b""[..]), (b"", request)] {
            assert_eq!(statuses(&heard(first, second)).len(), 1);
        }
    }

    #[test]
    fn nor_for_the_rest_of_a_head_that_came_with_a_request() {
        let both = b"PUT /kv/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nvGET /kv/";
        for (first, second) in [(&both[..], &b""[..]), (b"", both)] {
            let text = heard(first, second);
            assert!(matches!(statuses(&text)[..], [_, "408"]), "{text}");
        }
    }

    #[test]
    fn little_of_an_answer_is_in_the_kernel() {
        rt::System::new().block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let same = stream.try_clone().unwrap();
            stream.set_nonblocking(true).unwrap();
            let _opened = open(stream, None).await.unwrap();
            let bytes = SockRef::from(&same).send_buffer_size().unwrap();
            assert!((SEND_BUFFER_BYTES..=2 * SEND_BUFFER_BYTES).contains(&bytes), "{bytes}");
        });
    }
}
