//! Calls to an address at which some node is, nobody knows which: how seeds are asked.
//!
//! The connection is kept while it is used, and closed when it has not been for a while.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anello_protocol::{id::NodeId, message::Message};
use quinn::Connection;
use tokio::{runtime::Handle, sync::Mutex as AsyncMutex, task::JoinSet};

use crate::{
    CallContext, CallError, LinkConfig,
    close::Close,
    dial::{DialError, Dialled, Dialler},
    link::Link,
};

/// An unused connection is closed after one to two of these.
const UNUSED: Duration = Duration::from_secs(10);
/// The most addresses that are remembered at a time.
const VISITS_MAX: usize = 1_024;

/// The connections to nodes by address.
pub(crate) struct Visits {
    dialler: Arc<Dialler>,
    runtime: Handle,
    link: LinkConfig,
    places: Mutex<HashMap<String, Arc<Place>>>,
    tasks: Mutex<JoinSet<()>>,
}

/// The connection to an address, if there is one; whoever holds the lock is connecting.
type Place = AsyncMutex<Option<Arc<Visit>>>;

struct Visit {
    node: NodeId,
    link: Arc<Link>,
    connection: Connection,
    used: AtomicBool,
}

impl Visits {
    pub(crate) fn new(dialler: Arc<Dialler>, runtime: Handle, link: LinkConfig) -> Self {
        Self { dialler, runtime, link, places: Mutex::default(), tasks: Mutex::default() }
    }

    pub(crate) async fn call<M: Message>(
        &self,
        address: &str,
        message: &M,
        context: &CallContext,
    ) -> Result<(NodeId, M::Reply), CallError> {
        let until = tokio::time::Instant::from_std(context.deadline);
        let visit = tokio::time::timeout_at(until, self.visit(address))
            .await
            .map_err(|_| CallError::Unreachable)??;
        visit.used.store(true, Ordering::Relaxed);
        let reply = visit.link.call(message, context).await?;
        Ok((visit.node.clone(), reply))
    }

    /// Closes all, and connects to nobody any more.
    pub(crate) fn close(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    async fn visit(&self, address: &str) -> Result<Arc<Visit>, CallError> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.retain(|_, place| {
                Arc::strong_count(place) > 1
                    || place.try_lock().is_ok_and(|visit| is_alive(visit.as_ref()))
            });
            if places.len() >= VISITS_MAX && !places.contains_key(address) {
                return Err(CallError::Busy);
            }
            places.entry(address.into()).or_default().clone()
        };
        let mut place = place.lock().await;
        if let Some(visit) = place.as_ref().filter(|visit| is_alive(Some(visit))) {
            return Ok(visit.clone());
        }
        // quinn drives a connection on the runtime on which it is begun.
        let (dialler, to) = (self.dialler.clone(), address.to_string());
        let dialled = self.runtime.spawn(async move { dialler.dial(&to, None).await }).await;
        let Ok(dialled) = dialled else { return Err(CallError::Unreachable) };
        let Dialled { connection, control, node } = dialled.map_err(|error| match error {
            DialError::Refused(why) => {
                tracing::warn!(%address, %why, "refused a connection, or was refused");
                CallError::Refused(why)
            }
            error => {
                tracing::debug!(%address, %error, "cannot connect");
                CallError::Unreachable
            }
        })?;
        let visit = Arc::new(Visit {
            node,
            link: Link::new(&self.link),
            connection,
            used: AtomicBool::new(true),
        });
        visit.link.open();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        let stay = stay(visit.clone(), control);
        tasks.spawn_on(stay, &self.runtime);
        *place = Some(visit.clone());
        Ok(visit)
    }
}

fn is_alive(visit: Option<&Arc<Visit>>) -> bool {
    visit.is_some_and(|visit| visit.connection.close_reason().is_none())
}

/// Uses a connection until it is lost or not used any more.
async fn stay(visit: Arc<Visit>, control: (quinn::SendStream, quinn::RecvStream)) {
    let _leaving = Leaving(visit.clone());
    let unused = async {
        while visit.used.swap(false, Ordering::Relaxed) || visit.link.is_waiting() {
            tokio::time::sleep(UNUSED).await;
        }
    };
    tokio::select! {
        () = visit.link.run(&visit.connection, control) => {}
        () = visit.link.clone().watch_deadlines() => {}
        () = unused => {}
    }
}

/// Leaves no call waiting, whichever way the connection ends.
struct Leaving(Arc<Visit>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.link.close(&CallError::Closed);
        Close::Done.close(&self.0.connection, "not needed any more");
    }
}
