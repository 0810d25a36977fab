//! An HTTP/1.1 client of one request a connection: enough for tests, and nothing to go wrong in it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than any request of the API may take.
const TIMEOUT: Duration = Duration::from_secs(70);

/// What a node answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; names in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// `GET`.
pub fn get(node: SocketAddr, path: &str) -> io::Result<Answer> {
    request(node, "GET", path, &[], b"")
}

/// `PUT` of bytes.
pub fn put(node: SocketAddr, path: &str, body: &[u8]) -> io::Result<Answer> {
    request(node, "PUT", path, &[("Content-Type", "application/octet-stream")], body)
}

/// `DELETE`.
pub fn delete(node: SocketAddr, path: &str) -> io::Result<Answer> {
    request(node, "DELETE", path, &[], b"")
}

/// Any request.
pub fn request(
    node: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&node, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    request_over(stream, method, path, headers, body)
}

/// Any request, over a connection that is there already and as patient as that is.
pub fn request_over(
    mut stream: TcpStream,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    stream.set_nodelay(true)?;
    let node = stream.peer_addr()?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "PUT" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other("the answer broke off"))
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.into(), value.trim().into()))
        .collect();
    let answer = Answer { status, headers, body: bytes[end + 4..].to_vec() };
    if answer.header("transfer-encoding").is_some() {
        return Some(Answer { body: unchunk(&answer.body)?, ..answer });
    }
    match answer.header("content-length").map(str::parse::<usize>) {
        Some(Ok(length)) if length != answer.body.len() => None,
        _ => Some(answer),
    }
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size =
            usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?.trim(), 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}
