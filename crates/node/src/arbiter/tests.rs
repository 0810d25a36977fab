//! Vnodes that begin, hand over, and begin again, as those see it who ask for them.

use std::time::{Duration, Instant};

use anello_protocol::{
    id::{ClusterName, Epoch},
    key::DataKey,
    message::replica::{Refusal, StoreVersions, Stored},
    version::ConflictRule,
};
use anello_transport::{CallContext, CallError, TlsFiles};

use super::*;
use crate::rocks::tests::{
    key, open, partition_of,
    rings::{self, node},
    versions,
};

#[path = "../../tests/fleet/certificates.rs"]
#[allow(dead_code, unreachable_pub)]
mod certificates;

const KEYSPACES: &[(u64, u16)] = &[(1, 1)];
/// Nothing here is waited for that long.
const DEADLINE: Duration = Duration::from_secs(60);

/// The only arbiter of node `a`.
fn share(dir: &tempfile::TempDir) -> Share {
    let files = certificates::Authority::create(dir.path()).issue_node("a");
    let files = TlsFiles { ca: files.ca, cert: files.cert, key: files.key };
    let cluster = ClusterName::new("c").expect("a name");
    let parts = ArbiterParts {
        arbiters: 1,
        node: node("a"),
        datacenter: Datacenter::new("dc").expect("a name"),
        identity: Identity::load_node(cluster, node("a"), &files).expect("an identity"),
        store: open(dir),
        routes: Routes::new(256, ActorRef::function(|_| Ok(()))),
        requests: Arc::default(),
    };
    Share::start(0, parts).expect("it starts")
}

impl Share {
    async fn adopt(&mut self, view: &Arc<View>) {
        let held = Arc::new(view.held_partitions(&node("a")));
        let (done, is_done) = oneshot::channel();
        self.carry_out(Order::Hold(held, done)).await;
        is_done.await.expect("told");
        self.parts.routes.set_epoch(view.epoch());
        let (done, is_done) = oneshot::channel();
        self.carry_out(Order::Act(Arc::clone(view), done)).await;
        is_done.await.expect("told");
    }

    fn write(
        &self,
        epoch: u64,
        key: &DataKey,
        number: u64,
    ) -> impl Future<Output = Result<Result<Stored, Refusal>, CallError>> + use<> {
        let message = StoreVersions {
            epoch: Epoch(epoch),
            key: key.clone(),
            rule: ConflictRule::Siblings,
            versions: versions(number, 10),
        };
        self.parts.routes.store().call(message, CallContext::within(DEADLINE))
    }
}

/// T24.
#[test]
fn who_comes_to_a_vnode_that_has_just_handed_over_is_told_so_at_once() {
    actix::System::new().block_on(async {
        let dir = tempfile::tempdir().expect("a directory");
        let mut share = share(&dir);
        let alone = rings::settled(5, &["a"], KEYSPACES);
        let two = rings::settled(6, &["a", "b"], KEYSPACES);
        let other = two.held_partitions(&node("b"));
        let given = |key: &_| other.contains(&partition_of(key));
        let given = (0..).map(|number| key(1, number)).find(given).expect("there is one");
        let began = Instant::now();
        assert_eq!(share.write(5, &given, 1).await, Ok(Err(Refusal::Behind(Epoch(0)))));
        share.adopt(&alone).await;
        assert!(matches!(share.write(5, &given, 2).await, Ok(Ok(_))));

        // It came while the vnode still was one, and is answered once it is durable: as done, or as overtaken by
        // the newer state.
        let under_way: Vec<_> = (3..20).map(|number| share.write(5, &given, number)).collect();
        let former = share.vnodes[&partition_of(&given)].clone();
        share.adopt(&two).await;
        assert_eq!(share.write(5, &given, 20).await, Ok(Err(Refusal::StaleEpoch(Epoch(6)))));
        assert_eq!(share.write(6, &given, 20).await, Ok(Err(Refusal::NotOwner)));
        assert_eq!(share.write(7, &given, 20).await, Ok(Err(Refusal::Behind(Epoch(6)))));
        for write in under_way {
            let answer = write.await;
            let is_overtaken = answer == Ok(Err(Refusal::StaleEpoch(Epoch(6))));
            assert!(is_overtaken || matches!(answer, Ok(Ok(_))), "{answer:?}");
        }
        share.ended(partition_of(&given)).await;
        while former.connected() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(share.vnodes.len(), two.held_partitions(&node("a")).len());

        share.adopt(&rings::settled(7, &["a"], KEYSPACES)).await;
        assert!(matches!(share.write(7, &given, 21).await, Ok(Ok(_))));
        assert!(began.elapsed() < DEADLINE / 2, "nobody waited for a deadline");
        share.end().await;
    });
}

/// One that is to take something in begins anew, and not before all that its former self gave in is through.
#[test]
fn a_vnode_that_was_ended_is_made_anew_once_nothing_of_it_is_under_way() {
    actix::System::new().block_on(async {
        let dir = tempfile::tempdir().expect("a directory");
        let mut share = share(&dir);
        let view = rings::settled(5, &["a"], KEYSPACES);
        share.adopt(&view).await;
        let key = key(1, 1);
        let under_way: Vec<_> = (3..20).map(|number| share.write(5, &key, number)).collect();
        let former = share.vnodes[&partition_of(&key)].clone();
        let (done, is_done) = oneshot::channel();
        let some = Arc::new(BTreeSet::from([partition_of(&key)]));
        share.carry_out(Order::End(some, done)).await;
        is_done.await.expect("told");
        assert_eq!(share.write(5, &key, 20).await, Ok(Err(Refusal::NotOwner)));
        for write in under_way {
            assert!(matches!(write.await, Ok(Ok(_))));
        }
        share.adopt(&view).await;
        assert!(share.vnodes[&partition_of(&key)] != former);
        assert!(matches!(share.write(5, &key, 21).await, Ok(Ok(_))));
        share.end().await;
    });
}
