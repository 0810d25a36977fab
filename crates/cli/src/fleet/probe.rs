//! Whether a node serves requests: its own word, from `GET /readyz`.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a node that is well may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 4096;

/// A node's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It serves.
    Ready,
    /// It runs and does not serve yet, and says why.
    NotYet(String),
    /// It does not answer.
    Silent,
}

/// Asks a node.
pub(crate) async fn readiness(http: SocketAddr) -> Readiness {
    match timeout(PATIENCE, ask(http)).await {
        Ok(Ok(answer)) => read(&answer),
        Ok(Err(_)) | Err(_) => Readiness::Silent,
    }
}

async fn ask(http: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(http).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn read(answer: &str) -> Readiness {
    let mut words = answer.split_ascii_whitespace();
    let http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    match words.next() {
        Some("200") if http => Readiness::Ready,
        Some(_) if http => {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
            Readiness::NotYet(reason(body))
        }
        _ => Readiness::Silent,
    }
}

/// The sentence in an error's body, or the body if it is none of the API's.
fn reason(body: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let field = |name| parsed.as_ref()?.get(name)?.as_str().map(String::from);
    let reason = field("message").or_else(|| field("reason"));
    reason.unwrap_or_else(|| body.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\n{}"), Readiness::Ready);
        assert_eq!(
            read(
                "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":\"x\",\"message\":\"joining\"}"
            ),
            Readiness::NotYet("joining".into())
        );
        assert_eq!(
            read("HTTP/1.1 503 Service Unavailable\r\n\r\nno cluster yet"),
            Readiness::NotYet("no cluster yet".into())
        );
        assert_eq!(read("SSH-2.0-OpenSSH"), Readiness::Silent);
        assert_eq!(read(""), Readiness::Silent);
    }
}
