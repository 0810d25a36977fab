//! One keep-alive connection to a node's HTTP API.

use std::time::Duration;

use anello_client::{Bytes, Consistency};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{SendRequest, handshake},
    header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{stats::Result, target::Seen};

/// The media type of bare bytes.
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const CONTEXT: HeaderName = HeaderName::from_static("anello-context");
/// How long the node has beyond the time that it is told.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait before connecting again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How all requests are made.
#[derive(Clone, Debug)]
pub(super) struct HttpOptions {
    /// What comes before the key in a path.
    pub(super) path: String,
    /// Headers of every request: how many replicas, how long.
    pub(super) headers: HeaderMap,
    /// How long a request may take.
    pub(super) timeout: Duration,
}

impl HttpOptions {
    /// Requests of a keyspace.
    pub(super) fn new(
        keyspace: &str,
        timeout: Duration,
        read: Option<Consistency>,
        write: Option<Consistency>,
    ) -> Self {
        let mut headers = HeaderMap::new();
        let ms = timeout.as_millis().clamp(1, 60_000) as u64;
        headers.insert("anello-timeout-ms", HeaderValue::from(ms));
        for (numeric, level) in [("r", read), ("w", write)] {
            match level {
                Some(Consistency::Count(count)) => {
                    headers.insert(HeaderName::from_static(numeric), HeaderValue::from(count));
                }
                Some(level) => {
                    if let Ok(level) = HeaderValue::from_str(&level.to_string()) {
                        headers.insert("anello-consistency", level);
                    }
                }
                None => {}
            }
        }
        Self { path: format!("/keyspaces/{keyspace}/kv/"), headers, timeout }
    }
}

/// A connection to a node, made again when it breaks.
pub(super) struct HttpConnection {
    address: String,
    host: HeaderValue,
    options: HttpOptions,
    sender: Option<SendRequest<Full<Bytes>>>,
}

struct Answer {
    status: StatusCode,
    context: Option<String>,
    body: Bytes,
}

impl HttpConnection {
    /// A connection to come.
    pub(super) fn new(address: String, options: HttpOptions) -> Self {
        let host = HeaderValue::from_str(&address);
        let host = host.unwrap_or(HeaderValue::from_static("localhost"));
        Self { address, host, options, sender: None }
    }

    /// Connects, so that the first request does not pay for it.
    pub(super) async fn connect(&mut self) -> std::result::Result<(), String> {
        let unreachable = |error: &dyn std::fmt::Display| {
            format!("cannot reach {} over HTTP: {error}", self.address)
        };
        let stream = TcpStream::connect(&self.address).await.map_err(|e| unreachable(&e))?;
        stream.set_nodelay(true).map_err(|e| unreachable(&e))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
        // Its end shows in the sender.
        tokio::task::spawn_local(connection);
        self.sender = Some(sender);
        Ok(())
    }

    /// Reads a key, as bare bytes.
    pub(super) async fn get(&mut self, key: &str) -> Seen {
        let mut request = self.request(Method::GET, key, Bytes::new());
        request.headers_mut().insert(ACCEPT, BYTES);
        match self.send(request).await {
            Ok(Answer { status, context, body }) => {
                let result = match status {
                    StatusCode::OK => Result::Good,
                    StatusCode::MULTIPLE_CHOICES => Result::Siblings,
                    StatusCode::NOT_FOUND if !names_no_keyspace(&body) => Result::Missing,
                    _ => refused(status, &body),
                };
                Seen { result, context }
            }
            Err(error) => Seen { result: Result::Failed(error), context: None },
        }
    }

    /// Writes a key, as bare bytes.
    pub(super) async fn put(&mut self, key: &str, value: Bytes, context: Option<String>) -> Result {
        let mut request = self.request(Method::PUT, key, value);
        request.headers_mut().insert(CONTENT_TYPE, BYTES);
        if let Some(context) = context.and_then(|context| HeaderValue::try_from(context).ok()) {
            request.headers_mut().insert(CONTEXT, context);
        }
        match self.send(request).await {
            Ok(Answer { status: StatusCode::OK, .. }) => Result::Good,
            Ok(Answer { status, body, .. }) => refused(status, &body),
            Err(error) => Result::Failed(error),
        }
    }

    fn request(&self, method: Method, key: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        // Keys of the benchmark and names of keyspaces need no escapes.
        let path = format!("{}{key}", self.options.path);
        *request.uri_mut() = path.parse().unwrap_or_default();
        *request.headers_mut() = self.options.headers.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        request
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> std::result::Result<Answer, String> {
        let patience = self.options.timeout + GRACE;
        let sent = timeout(patience, self.exchange(request)).await;
        let answer = sent.unwrap_or_else(|_| Err("no answer in time".into()));
        if answer.is_err() {
            self.sender = None;
        }
        answer
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> std::result::Result<Answer, String> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed)
            && let Err(error) = self.connect().await
        {
            sleep(RECONNECT_PAUSE).await;
            return Err(error);
        }
        let Some(sender) = &mut self.sender else { return Err("no connection".into()) };
        let lost = |error: hyper::Error| format!("the connection broke: {error}");
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        let context = response.headers().get(CONTEXT).and_then(|value| value.to_str().ok());
        let context = context.map(str::to_owned);
        let body = response.into_body().collect().await.map_err(lost)?.to_bytes();
        Ok(Answer { status, context, body })
    }
}

fn names_no_keyspace(body: &[u8]) -> bool {
    let body: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    body.is_some_and(|body| body["error"] == "no_such_keyspace")
}

fn refused(status: StatusCode, body: &[u8]) -> Result {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body["error"].as_str().unwrap_or_default();
    Result::Failed(format!("{} {code}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_become_headers() {
        let options = HttpOptions::new(
            "bench",
            Duration::from_secs(5),
            Some(Consistency::Count(2)),
            Some(Consistency::Quorum),
        );
        assert_eq!(options.path, "/keyspaces/bench/kv/");
        assert_eq!(options.headers["r"], "2");
        assert_eq!(options.headers["anello-consistency"], "quorum");
        assert_eq!(options.headers["anello-timeout-ms"], "5000");
    }

    #[test]
    fn a_missing_keyspace_is_no_missing_key() {
        assert!(names_no_keyspace(b"{\"error\":\"no_such_keyspace\"}"));
        assert!(!names_no_keyspace(b"{\"error\":\"not_found\"}") && !names_no_keyspace(b""));
        let refused = refused(StatusCode::SERVICE_UNAVAILABLE, b"{\"error\":\"unavailable\"}");
        assert_eq!(refused, Result::Failed("503 unavailable".into()));
    }
}
