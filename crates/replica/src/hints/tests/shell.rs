//! The shell, with real mailboxes, timers and threads: a hint is kept, told of, delivered and gone.

use std::time::Instant;

use actix::Actor;
use anello_transport::{ActorRef, CallContext};
use tokio::sync::mpsc;

use super::*;
use crate::hints::{
    ClusterChanged, DescribeHints, Freeze, HintPeers, HintStoreActor, HintStoreParts,
    ReachabilityChanged, Stop, Thaw,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_hint_goes_all_the_way() {
    actix::System::new().block_on(async {
        let (delivered, mut deliveries) = mpsc::unbounded_channel();
        let shelf = Arc::new(MemoryShelf::new());
        let parts = HintStoreParts {
            node: own(),
            config: HintStoreConfig::default(),
            seed: 1,
            shelved: shelf.load().expect("memory reads"),
            shelf,
            own: ActorRef::function(|_| panic!("nothing is for this node")),
            others: Box::new(move |id| {
                let (id, delivered) = (id.clone(), delivered.clone());
                HintPeers {
                    store: ActorRef::function(move |call| {
                        // The test may be over.
                        let _ = delivered.send((id.clone(), call.message));
                        call.reply.send(Ok(Stored { lost_to: None, is_quarantined: false }));
                        Ok(())
                    }),
                    credit: ActorRef::function(|call| {
                        call.reply.send(Credit { bytes: 1 << 20, retry_ms: 0 });
                        Ok(())
                    }),
                    mark: ActorRef::function(|_| panic!("nothing is dropped")),
                }
            }),
        };
        let actor = HintStoreActor::new(parts).start();
        let until = || CallContext::within(PATIENCE);
        let key = keys_of("a", 1).remove(0);
        actor.send(ClusterChanged(view(1))).await.expect("it lives");
        let away = |reachable| ReachabilityChanged { node: node("a"), reachable };
        actor.send(away(false)).await.expect("it lives");

        let Request::Store(hint) = store("a", &key, version(1, &[], b"v")) else {
            panic!("it is a store")
        };
        let to_store = ActorRef::mailbox(actor.clone().recipient());
        let reply = to_store.call(hint, until()).await;
        assert_eq!(reply, Ok(Ok(Stored { lost_to: None, is_quarantined: false })));
        let Request::Read(read) = read(&key) else { panic!("it is a read") };
        let to_read = ActorRef::mailbox(actor.clone().recipient());
        let found = to_read.call(read, until()).await;
        assert_eq!(found, Ok(Ok(Held::Full(version(1, &[], b"v")))));
        let figures = actor.send(DescribeHints).await.expect("it lives");
        assert_eq!(figures.owners[&node("a")].count, 1);

        let (quiet, is_quiet) = tokio::sync::oneshot::channel();
        let frozen = Box::new(move || quiet.send(()).expect("it is awaited"));
        actor.send(Freeze(frozen)).await.expect("it lives");
        is_quiet.await.expect("nothing is under way");
        actor.send(Thaw).await.expect("it lives");

        actor.send(away(true)).await.expect("it lives");
        let delivery = tokio::time::timeout(PATIENCE, deliveries.recv()).await;
        let (to, message) = delivery.expect("in time").expect("it is open");
        assert_eq!((to, message.versions), (node("a"), version(1, &[], b"v")));
        let to_check = ActorRef::mailbox(actor.clone().recipient());
        let start = Instant::now();
        loop {
            let keys = vec![key.clone()];
            let found = to_check.call(CheckHints { keys }, until()).await;
            if found == Ok(Ok(vec![false])) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "it is removed: {found:?}");
        }
        actor.send(Stop).await.expect("it lives");
    });
}
