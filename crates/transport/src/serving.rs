//! One connection as its listener sees it: calls come in, answers go out.
//!
//! What a caller can make a node hold is bounded: calls under way by count and by bytes (one more is
//! `Busy`), answers that it does not read by bytes (past that the connection is closed).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anello_protocol::message::Lane;
use bytes::BytesMut;
use quinn::{Connection, RecvStream, SendStream};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    CallError, Caller, LinkConfig, Router,
    close::Close,
    frame::{self, BadFrame, Frame},
    inbound::{InboundCall, ReplySink},
    incoming::{OwnFrame, ReadFailed, read_shared},
    link::close_if_bad,
    outgoing::{NotQueued, Outgoing, lane_byte},
};

/// What failures may take up beyond the bound on waiting answers.
const FAILURES_BYTES: usize = 1 << 20;
/// How long a closing connection waits for its last answers to arrive.
const FLUSH: Duration = Duration::from_secs(2);

/// The answering side of a connection. It does not hold the connection itself: a reply that some actor
/// keeps for ever must not keep a socket open.
pub(crate) struct Serving {
    caller: Caller,
    router: Router,
    load: Load,
    bytes_max: usize,
    draining: AtomicBool,
    /// More answers wait to be read than may.
    unread: Notify,
}

/// The calls under way.
struct Load {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    calls_max: usize,
    bytes_max: usize,
    /// The last call has ended.
    idle: Notify,
}

/// One lane of a connection: where the answers to its calls go.
struct AnswerLane {
    serving: Arc<Serving>,
    out: Arc<Outgoing>,
}

impl Serving {
    pub(crate) fn new(caller: Caller, router: Router, config: &LinkConfig) -> Arc<Self> {
        let load = Load {
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            calls_max: config.calls_max,
            bytes_max: config.bytes_max,
            idle: Notify::new(),
        };
        let (bytes_max, draining) = (config.bytes_max, AtomicBool::new(false));
        Arc::new(Self { caller, router, load, bytes_max, draining, unread: Notify::new() })
    }

    /// Answers calls until the connection is lost, or until `closing`, after which those under way have
    /// the time that it comes to.
    pub(crate) async fn run(
        self: &Arc<Self>,
        connection: &Connection,
        control: (SendStream, RecvStream),
        closing: impl Future<Output = Duration>,
    ) {
        let [control_lane, data_lane] = [Lane::Control, Lane::Data].map(|lane| {
            let out = Arc::new(Outgoing::new(lane));
            Arc::new(AnswerLane { serving: self.clone(), out })
        });
        let mut tasks = JoinSet::new();
        let (control_out, control_in) = control;
        control_lane.serve(&mut tasks, connection, control_out, control_in);
        tasks.spawn(data_lane.clone().begin(connection.clone()));
        tasks.spawn(read_own_streams(connection.clone(), data_lane.clone(), control_lane.clone()));
        tokio::select! {
            _ = connection.closed() => {}
            () = self.unread.notified() => {
                let peer = connection.remote_address();
                tracing::warn!(%peer, "closing a connection: its answers are not being read");
                Close::Overloaded.close(connection, "answers are not being read");
            }
            grace = closing => {
                self.draining.store(true, Ordering::Relaxed);
                let _ = tokio::time::timeout(grace, self.load.ended()).await;
                let lanes = [&control_lane, &data_lane];
                let _ = tokio::time::timeout(FLUSH, arrival(&lanes)).await;
            }
        }
        control_lane.out.close();
        data_lane.out.close();
    }
}

async fn read_own_streams(connection: Connection, data: Arc<AnswerLane>, control: Arc<AnswerLane>) {
    let mut tasks = JoinSet::new();
    while let Ok(stream) = connection.accept_uni().await {
        while tasks.try_join_next().is_some() {}
        let (connection, data, control) = (connection.clone(), data.clone(), control.clone());
        tasks.spawn(async move {
            let read = read_own_stream(stream, &data, &control).await;
            close_if_bad(&connection, read);
        });
    }
}

async fn read_own_stream(
    stream: RecvStream,
    data: &Arc<AnswerLane>,
    control: &Arc<AnswerLane>,
) -> Result<(), ReadFailed> {
    let frame = OwnFrame::begin(stream).await?;
    let lane = match frame.lane {
        Lane::Data => data,
        Lane::Control => control,
    };
    let Some(call) = lane.admit(frame.id, frame.length) else {
        frame.decline();
        return Ok(());
    };
    let frame = match frame.finish().await {
        Ok(frame) => frame,
        Err(error) => {
            call.fail(&CallError::Closed);
            return Err(error);
        }
    };
    Ok(lane.dispatch(&frame, |_| Some(call))?)
}

impl AnswerLane {
    /// Reads calls from a stream, and writes their answers back.
    fn serve(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        connection: &Connection,
        out: SendStream,
        calls: RecvStream,
    ) {
        let connection = connection.clone();
        tasks.spawn(self.out.clone().write_to(connection.clone(), out));
        let lane = self.clone();
        tasks.spawn(async move {
            let read =
                read_shared(calls, |frame| lane.dispatch(frame, |id| lane.admit(id, frame.len())));
            close_if_bad(&connection, read.await);
        });
    }

    /// Waits for the data lane's stream, and serves it.
    async fn begin(self: Arc<Self>, connection: Connection) {
        let Ok((out, mut calls)) = connection.accept_bi().await else { return };
        let mut first = [0];
        if calls.read_exact(&mut first).await.is_err() {
            return;
        }
        if first != [lane_byte(Lane::Data)] {
            let bad = ReadFailed::Bad(BadFrame::UnknownKind(first[0]));
            return close_if_bad(&connection, Err(bad));
        }
        let mut tasks = JoinSet::new();
        self.serve(&mut tasks, &connection, out, calls);
        while tasks.join_next().await.is_some() {}
    }

    /// Takes a call in, or tells its caller that there is no room for it.
    fn admit(self: &Arc<Self>, id: u64, bytes: usize) -> Option<Arc<InboundCall>> {
        let serving = &self.serving;
        if serving.draining.load(Ordering::Relaxed) || !serving.load.take(bytes) {
            self.fail(id, &CallError::Busy);
            return None;
        }
        Some(InboundCall::new(self.clone(), id, bytes))
    }

    fn dispatch(
        &self,
        frame: &[u8],
        call: impl FnOnce(u64) -> Option<Arc<InboundCall>>,
    ) -> Result<(), BadFrame> {
        let Frame::Request { id, request } = frame::read(frame)? else {
            return Err(BadFrame::UnknownKind(frame[0]));
        };
        if let Some(call) = call(id) {
            self.serving.router.dispatch(&request, self.serving.caller.clone(), call);
        }
        Ok(())
    }
}

impl ReplySink for AnswerLane {
    fn reply(&self, id: u64, encode: &dyn Fn(&mut BytesMut)) {
        let pushed = self.out.push(self.serving.bytes_max, usize::MAX, |out| {
            frame::write_reply(out, id, encode);
        });
        match pushed {
            Ok(_) | Err(NotQueued::Closed) => {}
            Err(NotQueued::TooLarge(bytes)) => {
                tracing::warn!(bytes, "a reply is larger than a message may be");
                self.fail(id, &CallError::Closed);
            }
            // It has been handled, so it is not Busy.
            Err(NotQueued::Full) => self.fail(id, &CallError::Closed),
        }
    }

    fn fail(&self, id: u64, error: &CallError) {
        let waiting_max = self.serving.bytes_max + FAILURES_BYTES;
        let pushed = self.out.push(waiting_max, usize::MAX, |out| {
            frame::write_failure(out, id, error);
        });
        if pushed == Err(NotQueued::Full) {
            self.serving.unread.notify_one();
        }
    }

    fn release(&self, bytes: usize) {
        self.serving.load.give_back(bytes);
    }
}

impl Load {
    fn take(&self, bytes: usize) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if calls < self.calls_max && before + bytes <= self.bytes_max {
            return true;
        }
        self.give_back(bytes);
        false
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if self.calls.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle.notify_one();
        }
    }

    /// Waits until no call is under way.
    async fn ended(&self) {
        while self.calls.load(Ordering::Relaxed) > 0 {
            self.idle.notified().await;
        }
    }
}

/// Waits until the answers have arrived.
async fn arrival(lanes: &[&Arc<AnswerLane>]) {
    lanes.iter().for_each(|lane| lane.out.end());
    while !lanes.iter().all(|lane| lane.out.has_ended()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
