//! A gateway to speak to, what stands behind it, and a client that sends bytes as they are.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    panic, process,
    sync::{Arc, Mutex, MutexGuard, Once, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anello_gateway::{Acceptor, Backend, Limits, start_worker};
use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    id::{ClusterName, Datacenter, Epoch, NodeId, PartitionId, Rack},
    message::{
        Message,
        admin::{
            AlterError, AlterKeyspace, AlterRing, ClusterView, HintStatus, NodeStatus, NodeView,
            QueueStatus, RepairStarted, RepairStatus, TombstoneStatus,
        },
        client::{
            Answer, ContextToken, Found, FoundVersion, Get, KeyLocation, LocateKey, Place,
            RequestError, Write, Written,
        },
    },
    time::HybridTime,
    version::{Content, Value},
};
use anello_transport::{ActorRef, Call, CallContext, CallError, ReplyTo};
use serde_json::Value as Json;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const GATEWAY_THREAD: &str = "gateway";

/// A task that panics would only close its connection, and no test would notice. In the daemon it ends
/// the process, and so it does here.
fn abort_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            print(info);
            if thread::current().name() == Some(GATEWAY_THREAD) {
                process::abort();
            }
        }));
    });
}

/// Waits until something holds.
pub(crate) fn eventually(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "it did not come about");
        thread::yield_now();
    }
}

/// What stands behind the gateway.
pub(crate) struct State {
    pub(crate) gets: Vec<(Get, CallContext)>,
    pub(crate) writes: Vec<(Write, CallContext)>,
    pub(crate) located: Vec<LocateKey>,
    pub(crate) altered: Vec<AlterKeyspace>,
    pub(crate) ring_altered: Vec<AlterRing>,
    /// What reads find, and writes come to.
    pub(crate) found: Result<Answer<Found>, CallError>,
    pub(crate) written: Result<Answer<Written>, CallError>,
    /// Writes that are kept waiting, while they are to be.
    pub(crate) hold_writes: bool,
    pub(crate) held: Vec<ReplyTo<Answer<Written>>>,
    pub(crate) location: Result<KeyLocation, RequestError>,
    pub(crate) view: Result<ClusterView, CallError>,
    pub(crate) cluster: Option<ClusterState>,
    pub(crate) alter: Result<Epoch, AlterError>,
    pub(crate) status: NodeStatus,
}

#[derive(Clone)]
pub(crate) struct Backstage(Arc<Mutex<State>>);

pub(crate) fn token(text: &str) -> ContextToken {
    ContextToken(text.into())
}

pub(crate) fn value(bytes: &[u8]) -> Content {
    Content::Value(Value::new(bytes.to_vec()).unwrap())
}

/// A read that found this.
pub(crate) fn found(contents: &[Content]) -> Answer<Found> {
    let versions = contents.iter().cloned();
    let versions = versions.map(|content| FoundVersion { content, time: HybridTime::default() });
    Ok(Found { versions: versions.collect(), context: token("ctx") }).into()
}

fn member() -> Member {
    Member {
        id: NodeId::new("eu-a-1").unwrap(),
        datacenter: Datacenter::new("eu").unwrap(),
        rack: Rack::new("a").unwrap(),
        weight: 1.0,
        quic: "127.0.0.1:7400".into(),
        http: "127.0.0.1:7480".into(),
        state: MemberState::Up,
    }
}

impl Backstage {
    fn new() -> Self {
        let Member { id, datacenter, rack, quic, http, state, .. } = member();
        let name = ClusterName::new("demo").unwrap();
        let place = Place { id: id.clone(), datacenter: datacenter.clone(), rack: rack.clone() };
        Self(Arc::new(Mutex::new(State {
            gets: vec![],
            writes: vec![],
            located: vec![],
            altered: vec![],
            ring_altered: vec![],
            found: Ok(found(&[value(b"v")])),
            written: Ok(Ok(Written { context: token("ctx") }).into()),
            hold_writes: false,
            held: vec![],
            location: Ok(KeyLocation {
                partition: PartitionId(17),
                replicas: vec![place],
                fallbacks: vec![NodeId::new("eu-b-1").unwrap()],
            }),
            view: Ok(ClusterView {
                name: name.clone(),
                epoch: Epoch(1),
                partitions: 256,
                not_ready: None,
                nodes: vec![NodeView {
                    id: id.clone(),
                    datacenter,
                    rack,
                    quic,
                    http,
                    state,
                    reachable: true,
                    phi: f64::INFINITY,
                    verdict: "heard of 0.2 s ago".into(),
                    partitions: 256,
                    version: "0.1.0".into(),
                }],
            }),
            cluster: Some(ClusterState::founded(name, 256, member())),
            alter: Ok(Epoch(2)),
            status: NodeStatus {
                id,
                version: "0.1.0".into(),
                uptime_s: 5,
                epoch: Epoch(1),
                vnodes: 256,
                storage_bytes: 1024,
                keys_estimate: 3,
                requests_in_flight: 1,
                requests_total: 9,
                queues: QueueStatus::default(),
                hints: BTreeMap::from([(
                    NodeId::new("us-b-1").unwrap(),
                    HintStatus { count: 2, bytes: 300, oldest_s: 4 },
                )]),
                hints_delivered: 0,
                hints_dropped: 0,
                repair: RepairStatus { rounds: 3, partitions_in_sync: 255, ..Default::default() },
                tombstones: TombstoneStatus::default(),
                quarantine: None,
                read_only: None,
                transfers: None,
            },
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn actor<M: Message>(
        &self,
        play: impl Fn(&mut State, Call<M>) -> Result<(), CallError> + Send + Sync + 'static,
    ) -> ActorRef<M> {
        let state = Arc::clone(&self.0);
        ActorRef::function(move |call| play(&mut state.lock().unwrap(), call))
    }

    fn backend(&self) -> Backend {
        Backend {
            node: member().id,
            get: self.actor(|state, call| {
                state.gets.push((call.message, call.context));
                state.found.clone().map(|answer| call.reply.send(answer))
            }),
            write: self.actor(|state, call| {
                state.writes.push((call.message, call.context));
                if state.hold_writes {
                    state.held.push(call.reply);
                    return Ok(());
                }
                state.written.clone().map(|answer| call.reply.send(answer))
            }),
            locate: self.actor(|state, call| {
                state.located.push(call.message);
                call.reply.send(state.location.clone());
                Ok(())
            }),
            cluster: self.actor(|state, call| state.view.clone().map(|view| call.reply.send(view))),
            fetch: self.actor(|state, call| {
                call.reply.send(state.cluster.clone());
                Ok(())
            }),
            alter: self.actor(|state, call| {
                state.altered.push(call.message);
                call.reply.send(state.alter.clone());
                Ok(())
            }),
            alter_ring: self.actor(|state, call| {
                state.ring_altered.push(call.message);
                call.reply.send(state.alter.clone());
                Ok(())
            }),
            repair: self.actor(|_, call| {
                call.reply.send(RepairStarted { round: 4 });
                Ok(())
            }),
            status: self.actor(|state, call| {
                call.reply.send(state.status.clone());
                Ok(())
            }),
        }
    }
}

/// A gateway that runs, until it is dropped.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    backstage: Backstage,
    stop: tokio::sync::mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Self::start_with(Limits::default(), None)
    }

    pub(crate) fn start_with(limits: Limits, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let backstage = Backstage::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, mut stopping) = tokio::sync::mpsc::channel(1);
        let backend = backstage.backend();
        let (started, starting) = mpsc::channel();
        abort_on_panic();
        let thread = thread::Builder::new().name(GATEWAY_THREAD.into()).spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let acceptor = Acceptor::split(listener, 1, limits).unwrap().pop().unwrap();
                let handle = start_worker(acceptor, backend, tls).unwrap();
                started.send(()).unwrap();
                stopping.recv().await;
                handle.stop().await;
            });
        });
        starting.recv_timeout(PATIENCE).unwrap();
        Self { address, backstage, stop, thread: Some(thread.unwrap()) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.backstage.state()
    }

    /// Begins to stop.
    pub(crate) fn stop(&self) {
        let _ = self.stop.try_send(());
    }

    /// Waits until it has stopped.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.connect().ask(line, headers, body)
    }

    /// One request without headers or body.
    pub(crate) fn get(&self, path: &str) -> Response {
        self.ask(&format!("GET {path}"), &[], b"")
    }

    pub(crate) fn put_json(&self, path: &str, body: &str) -> Response {
        let json = [("Content-Type", "application/json")];
        self.ask(&format!("PUT {path}"), &json, body.as_bytes())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
        self.state().held.clear();
        self.join();
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Json {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and code of an error, which always comes with a sentence.
    pub(crate) fn error(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["message"].as_str().is_some_and(|message| message.len() > 5), "{json}");
        (self.status, json["error"].as_str().unwrap().to_owned())
    }
}

/// A connection that is open.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    pub(crate) fn ask(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(&request(line, headers, body)).unwrap();
        self.receive(line.starts_with("HEAD"))
    }

    /// Reads one answer; the one to a `HEAD` has no body.
    pub(crate) fn receive(&mut self, headless: bool) -> Response {
        self.try_receive(headless).expect("an answer")
    }

    /// Reads one answer, if one comes before the connection ends; of one to a `HEAD` nothing follows
    /// the headers, or the next answer.
    pub(crate) fn try_receive_any(&mut self) -> Option<Response> {
        let mut answer = self.try_receive(true)?;
        let bodiless = matches!(self.stream.fill_buf(), Ok(b"") | Err(_))
            || self.stream.buffer().starts_with(b"HTTP/1.1 ");
        if !bodiless {
            self.receive_body(&mut answer)?;
        }
        Some(answer)
    }

    /// Reads one answer, if one comes before the connection ends.
    pub(crate) fn try_receive(&mut self, headless: bool) -> Option<Response> {
        let status = self.line()?;
        let status = status.split(' ').nth(1)?.parse().unwrap();
        let mut headers = vec![];
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut response = Response { status, headers, body: vec![] };
        if !headless && status != 100 {
            self.receive_body(&mut response)?;
        }
        Some(response)
    }

    fn receive_body(&mut self, response: &mut Response) -> Option<()> {
        let length = response.header("content-length").map_or(0, |text| text.parse().unwrap());
        response.body = vec![0; length];
        self.stream.read_exact(&mut response.body).ok()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = vec![];
        self.stream.read_until(b'\n', &mut line).ok()?;
        let line = String::from_utf8(line).unwrap();
        line.strip_suffix("\r\n").map(str::to_owned)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish(&self) {
        let _ = self.stream.get_ref().shutdown(std::net::Shutdown::Write);
    }

    /// Whether the server ends the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = vec![];
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A request as it goes over the wire; a body brings its length along, unless the headers say otherwise.
pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nHost: test\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let framed = headers.iter().any(|(name, _)| *name == "Transfer-Encoding");
    if !body.is_empty() && !framed {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    [text.as_bytes(), b"\r\n", body].concat()
}
