//! One connection as its dialler sees it: calls go out, answers come back.
//!
//! A link outlives its connections. While it is open it takes calls; while it is not, every call is
//! unreachable at once. It is opened a little early, for the first attempt to connect, so that the first
//! calls needn't be made twice.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anello_protocol::message::{Lane, Message};
use quinn::{Connection, RecvStream, SendStream};
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    CallContext, CallError, CallFuture, LinkConfig,
    close::Close,
    frame::{self, BadFrame, Frame},
    incoming::{OwnFrame, ReadFailed, read_shared},
    loopback::too_large,
    outgoing::{NotQueued, Outgoing, lane_byte},
    pending::{Pending, fail_all},
    slot::{Complete, Slot},
};

/// Deadlines that come within this much are served together.
const SWEEP: Duration = Duration::from_millis(3);

/// The calling side of a connection.
pub(crate) struct Link {
    table: Mutex<Table>,
    data: Arc<Outgoing>,
    control: Arc<Outgoing>,
    /// A call with an earlier deadline than all others has come.
    sooner: Notify,
    bytes_max: usize,
}

struct Table {
    open: bool,
    calls: Pending,
}

impl Link {
    /// A link that is not open.
    pub(crate) fn new(config: &LinkConfig) -> Arc<Self> {
        let calls = Pending::new(config.calls_max, config.bytes_max);
        Arc::new(Self {
            table: Mutex::new(Table { open: false, calls }),
            data: Arc::new(Outgoing::new(Lane::Data)),
            control: Arc::new(Outgoing::new(Lane::Control)),
            sooner: Notify::new(),
            bytes_max: config.bytes_max,
        })
    }

    /// Sends a call and gives the reply to come.
    pub(crate) fn call<M: Message>(
        &self,
        message: &M,
        context: &CallContext,
    ) -> CallFuture<M::Reply> {
        let slot = Arc::new(Slot::new());
        match self.send(message, context, slot.clone()) {
            Ok(()) => CallFuture::watched(slot),
            Err(error) => CallFuture::failed(error),
        }
    }

    /// Sends a call; after an `Err` nothing is put into `outcome`.
    pub(crate) fn send<M: Message>(
        &self,
        message: &M,
        context: &CallContext,
        outcome: Arc<dyn Complete>,
    ) -> Result<(), CallError> {
        let mut table = self.table();
        if !table.open {
            return Err(CallError::Unreachable);
        }
        let ticket = table.calls.next().ok_or(CallError::Busy)?;
        let id = ticket.id;
        let pushed = self.lane(M::LANE).push(self.bytes_max, ticket.room, |out| {
            frame::write_request(out, id, message, context);
        });
        let bytes = pushed.map_err(|refused| match refused {
            NotQueued::Full => CallError::Busy,
            NotQueued::TooLarge(bytes) => too_large(bytes),
            NotQueued::Closed => CallError::Unreachable,
        })?;
        let sooner = table.calls.insert(ticket, outcome, context.deadline, bytes);
        drop(table);
        if sooner {
            self.sooner.notify_one();
        }
        Ok(())
    }

    /// Begins to take calls.
    pub(crate) fn open(&self) {
        let mut table = self.table();
        self.data.open();
        self.control.open();
        table.open = true;
    }

    /// Stops taking calls; those in flight have failed.
    pub(crate) fn close(&self, error: &CallError) {
        let mut table = self.table();
        table.open = false;
        self.data.close();
        self.control.close();
        let calls = table.calls.drain();
        drop(table);
        fail_all(calls, error);
    }

    /// Whether there are calls in flight.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.table().calls.is_empty()
    }

    /// Fails the calls whose deadline has come, for ever.
    pub(crate) async fn watch_deadlines(self: Arc<Self>) {
        loop {
            let earliest = self.table().calls.earliest();
            match earliest {
                None => self.sooner.notified().await,
                Some(earliest) => {
                    let at = tokio::time::Instant::from_std(earliest + SWEEP);
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.sooner.notified() => {}
                    }
                }
            }
            let expired = self.table().calls.expire(Instant::now());
            fail_all(expired, &CallError::Timeout);
        }
    }

    /// Carries calls and answers over a connection until it is lost.
    pub(crate) async fn run(
        self: &Arc<Self>,
        connection: &Connection,
        (control_out, control_in): (SendStream, RecvStream),
    ) {
        let Ok((mut data_out, data_in)) = connection.open_bi().await else { return };
        // The other side learns of a stream by its first byte.
        if data_out.write_all(&[lane_byte(Lane::Data)]).await.is_err() {
            return;
        }
        let mut tasks = JoinSet::new();
        for (lane, stream) in [(&self.control, control_out), (&self.data, data_out)] {
            let (lane, connection) = (lane.clone(), connection.clone());
            tasks.spawn(lane.write_to(connection, stream));
        }
        for stream in [control_in, data_in] {
            let (link, connection) = (self.clone(), connection.clone());
            tasks.spawn(async move {
                let read = read_shared(stream, |frame| link.answer(frame)).await;
                close_if_bad(&connection, read);
            });
        }
        tasks.spawn(self.clone().read_own_streams(connection.clone()));
        connection.closed().await;
    }

    async fn read_own_streams(self: Arc<Self>, connection: Connection) {
        let mut tasks = JoinSet::new();
        while let Ok(stream) = connection.accept_uni().await {
            while tasks.try_join_next().is_some() {}
            let (link, connection) = (self.clone(), connection.clone());
            tasks.spawn(async move {
                let read = link.read_own_stream(stream).await;
                close_if_bad(&connection, read);
            });
        }
    }

    async fn read_own_stream(&self, stream: RecvStream) -> Result<(), ReadFailed> {
        let frame = OwnFrame::begin(stream).await?;
        if !self.table().calls.awaits(frame.id) {
            // The caller has given up; there is no use in reading megabytes for nobody.
            frame.decline();
            return Ok(());
        }
        Ok(self.answer(&frame.finish().await?)?)
    }

    fn answer(&self, frame: &[u8]) -> Result<(), BadFrame> {
        let take = |id| self.table().calls.take(id);
        match frame::read(frame)? {
            Frame::Reply { id, body } => {
                if let Some(call) = take(id) {
                    call.reply(body);
                }
            }
            Frame::Failure { id, error } => {
                if let Some(call) = take(id) {
                    call.fail(error);
                }
            }
            Frame::Request { .. } => return Err(BadFrame::UnknownKind(frame[0])),
        }
        Ok(())
    }

    fn lane(&self, lane: Lane) -> &Outgoing {
        match lane {
            Lane::Data => &self.data,
            Lane::Control => &self.control,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it is locked.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close(&CallError::Closed);
    }
}

/// Closes a connection whose other side speaks another language.
pub(crate) fn close_if_bad(connection: &Connection, read: Result<(), ReadFailed>) {
    if let Err(ReadFailed::Bad(bad)) = read {
        let peer = connection.remote_address();
        tracing::warn!(%peer, %bad, "closing a connection: what came over it can't be read");
        Close::Malformed.close(connection, &bad.to_string());
    }
}
