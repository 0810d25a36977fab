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
const PATIENCE: Patience =
    Patience { head: HEAD_MAX, idle: Duration::from_secs(75), stall: Duration::from_secs(30) };
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
