//! A thread of the node with a single-threaded runtime, on which actors live, told what to do by
//! [`Order`]s from the control thread, one after the other.

use std::{io, thread};

use actix::{Actor, Addr, Context, Handler, Message};
use anello_antientropy::{MerkleActor, purge::PurgeActor};
use anello_replica::{coordinator::CoordinatorActor, hints::HintStoreActor, replica::ReplicaActor};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{arbiter::Order, node::StartError};

/// What lives on such a thread.
pub(crate) trait Crew: Sized + 'static {
    /// Does what it is told.
    async fn carry_out(&mut self, order: Order);
    /// Ends.
    async fn end(self);
}

/// Says that an actor has come to it in its mailbox, and so has taken in all that was sent before.
pub(crate) struct Passed(oneshot::Sender<()>);

impl Message for Passed {
    type Result = ();
}

macro_rules! passes {
    ($($actor:ty),*) => {$(
        impl Handler<Passed> for $actor {
            type Result = ();

            fn handle(&mut self, Passed(passed): Passed, _: &mut Context<Self>) {
                // Nobody waits for it if the thread ends.
                let _ = passed.send(());
            }
        }
    )*};
}

passes!(ReplicaActor, CoordinatorActor, HintStoreActor, MerkleActor, PurgeActor);

/// Resolves once an actor has taken in what it was sent before this. Not with `Addr::send`, which waits for
/// room in a mailbox and is overtaken meanwhile.
pub(crate) fn behind<A>(actor: &Addr<A>) -> oneshot::Receiver<()>
where
    A: Actor<Context = Context<A>> + Handler<Passed>,
{
    let (passed, has_passed) = oneshot::channel();
    actor.do_send(Passed(passed));
    has_passed
}

/// The thread as the control thread holds it. Dropping it stops it, and waits for that.
pub(crate) struct OrderedThread {
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    /// Closed when all that lived on the thread is gone.
    ended: oneshot::Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OrderedThread {
    /// Starts a thread of that name; `make` runs on it, and makes what lives there and what the control
    /// thread is to know of it.
    pub(crate) async fn start<C: Crew, R: Send + 'static>(
        name: String,
        make: impl FnOnce() -> io::Result<(C, R)> + Send + 'static,
    ) -> Result<(Self, R), StartError> {
        let (orders, mut incoming) = mpsc::unbounded_channel();
        let (started_in, started) = oneshot::channel();
        let (ended_in, ended) = oneshot::channel();
        let run = move || {
            let _ended: oneshot::Sender<()> = ended_in;
            actix::System::new().block_on(async move {
                match make() {
                    Ok((mut crew, refs)) => {
                        // Without anybody who waits, the orders end at once.
                        let _ = started_in.send(Ok(refs));
                        while let Some(order) = incoming.recv().await {
                            if let Order::Stop = order {
                                break;
                            }
                            crew.carry_out(order).await;
                        }
                        crew.end().await;
                    }
                    Err(error) => {
                        let _ = started_in.send(Err(error));
                    }
                }
            });
        };
        let builder = thread::Builder::new().name(name.clone());
        let thread = builder.spawn(run).map_err(StartError::Runtime)?;
        let gone = |_| StartError::Broken(format!("the thread {name} ended"));
        let refs = started.await.map_err(gone)?.map_err(StartError::Runtime)?;
        Ok((Self { orders, ended, thread: Some(thread) }, refs))
    }

    /// Tells it something; a thread that has ended needs no orders.
    pub(crate) fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Waits for its end, which it was told to come to; whether that was in time. One that is late is
    /// left to itself.
    pub(crate) async fn ended(mut self, deadline: Instant) -> bool {
        let in_time = timeout_at(deadline, &mut self.ended).await.is_ok();
        if !in_time {
            self.thread = None;
        }
        in_time
    }
}

impl Drop for OrderedThread {
    fn drop(&mut self) {
        self.tell(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported where it happened.
            let _ = thread.join();
        }
    }
}
