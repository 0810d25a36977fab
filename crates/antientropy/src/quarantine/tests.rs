//! Transcripts of a quarantine: inputs in, effects compared.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anello_protocol::{
    cluster::{ClusterState, Layout, Member, MemberState, Phase, Purpose, RingChange},
    id::{ClusterName, Datacenter, Epoch, KeyspaceName, NodeId, PartitionId, Rack},
    time::{HybridTime, Moment, Now},
};
use anello_ring::view::View;

use super::{
    ALARM, Effect, Input, LastAlive, Lone, Others, PATIENCE, Quarantine, QuarantineConfig, Verdict,
    verdict,
};

const DAY: Duration = Duration::from_secs(86_400);
const PARTITIONS: u32 = 4;
const TODAY: u64 = 20_000 * 86_400_000;

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a good name")
}

/// Nodes named `<datacenter>-<letter>`; up to three of a datacenter hold everything.
fn view(epoch: u64, nodes: &[&str]) -> Arc<View> {
    let member = |id: &str| Member {
        id: node(id),
        datacenter: Datacenter::new(id.split('-').next().expect("a first part")).expect("a name"),
        rack: Rack::new("r").expect("a good name"),
        weight: 1.0,
        quic: String::new(),
        http: String::new(),
        state: MemberState::Up,
    };
    let name = ClusterName::new("test").expect("a good name");
    let mut cluster = ClusterState::founded(name, PARTITIONS, member(nodes[0]));
    cluster.epoch = Epoch(epoch);
    cluster.members = nodes.iter().map(|id| (node(id), member(id))).collect();
    Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"))
}

/// A ring on its way from these nodes to those, in one phase throughout. Who is no owner any more was written
/// off, or leaves.
fn changing(epoch: u64, phase: Phase, old: &[&str], new: &[&str], gone: MemberState) -> Arc<View> {
    let all: BTreeSet<&str> = old.iter().chain(new).copied().collect();
    let mut cluster = (**view(epoch, &Vec::from_iter(all)).cluster()).clone();
    for member in cluster.members.values_mut().filter(|it| !new.contains(&it.id.as_str())) {
        member.state = gone;
    }
    let owners = old.iter().map(|id| (node(id), 1.0)).collect();
    let old = Layout { owners, ..cluster.layout() };
    let (began, purpose) = (Epoch(epoch), Purpose::Join(BTreeSet::new()));
    let phases = vec![phase; PARTITIONS as usize];
    cluster.change = Some(Box::new(RingChange { began, asked: began, purpose, old, phases }));
    Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"))
}

const FOUR: [&str; 4] = ["eu-a", "eu-b", "us-a", "us-b"];

/// The quarantine of `eu-a`.
struct Desk {
    quarantine: Quarantine,
    now: Now,
    view: Arc<View>,
}

impl Desk {
    fn start(last: Option<Duration>, was_restored: bool, nodes: &[&str]) -> Self {
        let now = Now { moment: Moment(0), wall_ms: TODAY };
        let ago = |ago: Duration| TODAY - u64::try_from(ago.as_millis()).expect("it is short");
        let last = last.map(|since| LastAlive { alive_ms: ago(since), contact_ms: ago(since) });
        let quarantine =
            Quarantine::new(now, node("eu-a"), QuarantineConfig::default(), last, was_restored);
        let mut desk = Self { quarantine, now, view: view(1, nodes) };
        desk.handle(Input::ClusterChanged(desk.view.clone()));
        desk
    }

    /// The same, while the ring changes.
    fn start_in(view: Arc<View>, last: Option<Duration>, was_restored: bool) -> Self {
        let mut desk = Self::start(last, was_restored, &["us-a"]);
        desk.view = view;
        desk.handle(Input::ClusterChanged(desk.view.clone()));
        desk
    }

    fn handle(&mut self, input: Input) {
        self.quarantine.handle(self.now, input);
    }

    fn reach(&mut self, nodes: &[&str], reachable: bool) {
        for id in nodes {
            self.handle(Input::ReachabilityChanged { node: node(id), reachable });
        }
    }

    fn in_step(&mut self, partitions: std::ops::Range<u32>, peer: &str) {
        let name = KeyspaceName::default_keyspace();
        let keyspace = self.view.keyspace(&name).expect("it always exists").id;
        for partition in partitions.map(PartitionId) {
            self.handle(Input::InStep { keyspace, partition, peer: node(peer) });
        }
    }

    /// Lets time pass as a process that lives does.
    fn live(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(ALARM);
            self.pass(step);
            left -= step;
        }
    }

    /// Lets time pass at once.
    fn pass(&mut self, time: Duration) {
        self.now.moment = self.now.moment + time;
        self.now.wall_ms += u64::try_from(time.as_millis()).expect("it is short");
        self.handle(Input::TimeUp);
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.quarantine.next_effect()).collect()
    }

    /// What was told of the quarantine itself.
    fn told(&mut self) -> Vec<bool> {
        let told = |effect| match effect {
            Effect::Quarantine(is_on) => Some(is_on),
            Effect::Save(_) => None,
        };
        self.effects().into_iter().filter_map(told).collect()
    }

    fn saved(&mut self) -> Vec<LastAlive> {
        let saved = |effect| match effect {
            Effect::Save(last) => Some(last),
            Effect::Quarantine(_) => None,
        };
        self.effects().into_iter().filter_map(saved).collect()
    }
}

#[test]
fn a_fresh_store_and_a_short_absence_are_no_reason() {
    for last in [None, Some(Duration::ZERO), Some(10 * DAY)] {
        let mut desk = Desk::start(last, false, &FOUR);
        assert_eq!(desk.told(), [], "{last:?}");
        assert_eq!(desk.quarantine.reason(), None);
    }
}

/// T9: a replica returns after longer than the grace, with old live rows.
#[test]
fn t9_back_after_the_grace_it_serves_nothing_until_it_is_in_step() {
    let mut desk = Desk::start(Some(12 * DAY), false, &FOUR);
    assert_eq!(desk.effects(), [Effect::Quarantine(true)]);
    let reason = "quarantined: away for 12 d, longer than the tombstone grace of 10 d; comparing \
                  with the other replicas, 4 of 4 partitions left";
    assert_eq!(desk.quarantine.reason().as_deref(), Some(reason));
    desk.reach(&["eu-b", "us-a"], true);
    assert_eq!(desk.quarantine.waits_for(), BTreeSet::from([node("us-b")]));
    desk.in_step(0..4, "eu-b");
    assert!(desk.quarantine.is_on(), "there is another datacenter");
    desk.in_step(0..3, "us-a");
    let reason = desk.quarantine.reason().expect("it is on");
    assert!(reason.ends_with("1 of 4 partitions left"), "{reason}");
    assert_eq!(desk.effects(), [], "nothing is saved that would let another start forget");
    desk.live(Duration::from_secs(60));
    assert_eq!(desk.effects(), []);
    desk.in_step(3..4, "us-a");
    let last = LastAlive { alive_ms: desk.now.wall_ms, contact_ms: desk.now.wall_ms };
    assert_eq!(desk.effects(), [Effect::Quarantine(false), Effect::Save(last)]);
    assert_eq!(desk.quarantine.reason(), None);
}

#[test]
fn a_store_put_back_from_a_copy_is_quarantined_however_young() {
    let mut desk = Desk::start(Some(Duration::from_secs(1)), true, &FOUR);
    assert_eq!(desk.told(), [true]);
    let reason = desk.quarantine.reason().expect("it is on");
    assert!(reason.starts_with("quarantined: its store was put back from a copy;"), "{reason}");
    let mut desk = Desk::start(None, true, &FOUR);
    assert_eq!(desk.told(), [true], "with no trace of its last life as well");
}

#[test]
fn without_other_replicas_it_is_over_at_once() {
    let mut desk = Desk::start(Some(12 * DAY), true, &["eu-a"]);
    assert_eq!(desk.told(), [true, false]);
}

#[test]
fn all_who_are_quarantined_leave_together_once_all_are_back() {
    let mut desk = Desk::start(Some(30 * DAY), false, &FOUR);
    desk.reach(&["eu-b", "us-a"], true);
    for peer in ["eu-b", "us-a", "us-b"] {
        desk.handle(Input::PeerQuarantined(node(peer)));
    }
    assert_eq!(desk.told(), [true], "one can't be reached");
    desk.reach(&["us-b"], true);
    assert_eq!(desk.told(), [false]);
}

#[test]
fn one_that_serves_is_compared_with_even_if_the_rest_are_quarantined() {
    let mut desk = Desk::start(Some(30 * DAY), false, &FOUR);
    desk.reach(&["eu-b", "us-a", "us-b"], true);
    for peer in ["eu-b", "us-b"] {
        desk.handle(Input::PeerQuarantined(node(peer)));
    }
    assert_eq!(desk.told(), [true]);
    desk.in_step(0..4, "us-a");
    assert_eq!(desk.told(), [false]);
}

#[test]
fn who_went_away_in_quarantine_may_serve_when_it_is_back() {
    let mut desk = Desk::start(Some(30 * DAY), false, &FOUR);
    desk.reach(&["eu-b", "us-a", "us-b"], true);
    desk.handle(Input::PeerQuarantined(node("eu-b")));
    desk.reach(&["eu-b"], false);
    desk.reach(&["eu-b"], true);
    for peer in ["us-a", "us-b"] {
        desk.handle(Input::PeerQuarantined(node(peer)));
    }
    assert_eq!(desk.told(), [true], "its word is out of date");
    desk.handle(Input::PeerQuarantined(node("eu-b")));
    assert_eq!(desk.told(), [false]);
}

#[test]
fn standing_still_for_longer_than_the_grace_is_noticed() {
    let mut desk = Desk::start(None, false, &FOUR);
    desk.reach(&["eu-b", "us-a", "us-b"], true);
    desk.pass(9 * DAY);
    assert_eq!(desk.told(), []);
    desk.pass(11 * DAY);
    assert_eq!(desk.told(), [true]);
    let reason = desk.quarantine.reason().expect("it is on");
    assert!(reason.starts_with("quarantined: stood still for 11 d"), "{reason}");
}

/// Somebody sets the clocks of all nodes at once.
#[test]
fn a_wall_clock_that_jumps_is_no_absence() {
    let mut desk = Desk::start(Some(Duration::from_secs(5)), false, &FOUR);
    desk.now.wall_ms += 11 * 86_400_000;
    desk.handle(Input::TimeUp);
    desk.reach(&["eu-b"], true);
    desk.live(Duration::from_secs(60));
    desk.reach(&["eu-b"], false);
    desk.now.wall_ms += 11 * 86_400_000;
    desk.reach(&["eu-b"], true);
    assert_eq!(desk.told(), []);
}

/// A keyspace that forgets its tombstones at once would take a node from its clients at every restart.
#[test]
fn minutes_are_no_absence_however_short_the_grace_is() {
    for (away, is_on) in [(9, false), (11, true)] {
        let away = Duration::from_secs(away * 60);
        let short = |desk: &mut Desk| {
            let mut cluster = (**view(2, &FOUR).cluster()).clone();
            let default = cluster.keyspaces.get_mut(&KeyspaceName::default_keyspace());
            default.expect("it always exists").config.tombstone_grace_s = 0;
            desk.view = Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"));
            desk.handle(Input::ClusterChanged(desk.view.clone()));
        };
        let mut desk = Desk::start(Some(away), false, &["us-a"]);
        short(&mut desk);
        assert_eq!(desk.quarantine.is_on(), is_on, "a start after {away:?}");
        let mut desk = Desk::start(None, false, &FOUR);
        short(&mut desk);
        desk.reach(&["eu-b"], true);
        desk.pass(away);
        assert_eq!(desk.quarantine.is_on(), is_on, "stood still for {away:?}");
        let mut desk = Desk::start(None, false, &FOUR);
        short(&mut desk);
        desk.live(away);
        desk.reach(&["eu-b"], true);
        assert_eq!(desk.quarantine.is_on(), is_on, "cut off for {away:?}");
    }
}

/// Who is quarantined says so whenever it is asked, which is more often than patience lasts.
#[test]
fn patience_is_not_begun_anew_by_every_word() {
    let mut desk = Desk::start(None, true, &["eu-a", "eu-b"]);
    desk.reach(&["eu-b"], true);
    let mut waited = Duration::ZERO;
    while desk.quarantine.is_on() {
        desk.handle(Input::PeerQuarantined(node("eu-b")));
        assert!(waited <= PATIENCE, "it waits for ever");
        desk.live(ALARM);
        waited += ALARM;
    }
    assert!(waited >= PATIENCE, "{waited:?}");
}

#[test]
fn cut_off_for_longer_than_the_grace_it_is_quarantined_once_it_meets_another() {
    let mut desk = Desk::start(None, false, &FOUR);
    desk.reach(&["eu-b"], true);
    desk.live(Duration::from_secs(60));
    desk.reach(&["eu-b"], false);
    desk.live(11 * DAY);
    assert_eq!(desk.told(), [], "it may be the only one that is left");
    desk.reach(&["us-a"], true);
    assert_eq!(desk.told(), [true]);
    let reason = desk.quarantine.reason().expect("it is on");
    assert!(reason.starts_with("quarantined: cut off for 11 d"), "{reason}");
}

#[test]
fn being_cut_off_outlives_a_restart() {
    let mut desk = Desk::start(None, false, &FOUR);
    desk.live(11 * DAY);
    let last = *desk.saved().last().expect("it saves that it is alive");
    assert_eq!((last.alive_ms, last.contact_ms), (desk.now.wall_ms, TODAY));
    let config = QuarantineConfig::default();
    let quarantine = Quarantine::new(desk.now, node("eu-a"), config, Some(last), false);
    let mut desk = Desk { quarantine, ..desk };
    desk.handle(Input::ClusterChanged(desk.view.clone()));
    assert_eq!(desk.told(), []);
    desk.reach(&["us-a"], true);
    assert_eq!(desk.told(), [true]);
}

#[test]
fn it_saves_every_few_seconds_that_it_is_alive() {
    let mut desk = Desk::start(None, false, &FOUR);
    desk.reach(&["eu-b"], true);
    assert_eq!(desk.saved().len(), 1);
    desk.live(Duration::from_secs(60));
    let saved = desk.saved();
    assert_eq!(saved.len(), 12);
    assert_eq!(saved[11], LastAlive { alive_ms: desk.now.wall_ms, contact_ms: desk.now.wall_ms });
    assert_eq!(desk.quarantine.next_wake(), desk.now.moment + ALARM);
}

#[test]
fn one_that_holds_nothing_at_first_is_judged_by_its_absence_alone() {
    for (away, is_on) in [(9 * DAY, false), (11 * DAY, true)] {
        let mut desk = Desk::start(Some(away), false, &["us-a"]);
        desk.live(3 * DAY);
        assert_eq!(desk.told(), []);
        desk.handle(Input::ClusterChanged(view(2, &FOUR)));
        assert_eq!(desk.quarantine.is_on(), is_on, "{away:?}");
    }
}

#[test]
fn what_it_holds_is_looked_up_anew_when_the_members_change() {
    let mut desk = Desk::start(Some(12 * DAY), false, &FOUR);
    desk.reach(&["eu-b", "us-a", "us-b"], true);
    desk.in_step(0..4, "eu-b");
    let next = view(2, &["eu-a", "eu-b"]);
    desk.handle(Input::ClusterChanged(next));
    assert_eq!(desk.told(), [true, false], "the other datacenter is gone");
}

#[test]
fn only_a_copy_may_hold_what_was_deleted_and_forgotten() {
    let lone = |was_restored, age: Duration, others| Lone {
        was_restored,
        latest: HybridTime::from_wall_ms(TODAY - u64::try_from(age.as_millis()).expect("short")),
        wall_ms: TODAY,
        grace: 10 * DAY,
        others,
    };
    for others in [Others::AllNothing, Others::SomeUnknown, Others::Something] {
        assert_eq!(verdict(&lone(false, 30 * DAY, others)), Verdict::Push, "it was merely away");
        assert_eq!(verdict(&lone(true, 9 * DAY, others)), Verdict::Push, "it is too young");
    }
    assert_eq!(verdict(&lone(true, 11 * DAY, Others::AllNothing)), Verdict::Drop);
    assert_eq!(verdict(&lone(true, 11 * DAY, Others::SomeUnknown)), Verdict::Keep);
    assert_eq!(verdict(&lone(true, 11 * DAY, Others::Something)), Verdict::Push);
}

const OLD: [&str; 3] = ["eu-a", "eu-b", "eu-c"];
const NEW: [&str; 3] = ["eu-a", "eu-b", "eu-d"];

#[test]
fn a_new_owner_that_is_filled_is_waited_for_by_nobody_and_its_word_is_worth_nothing() {
    for was_restored in [true, false] {
        let view = changing(2, Phase::Filling, &OLD, &NEW, MemberState::Leaving);
        let mut desk = Desk::start_in(view, Some(12 * DAY), was_restored);
        assert_eq!(desk.told(), [true]);
        assert_eq!(desk.quarantine.waits_for(), ["eu-b", "eu-c"].map(node).into());
        desk.reach(&["eu-b", "eu-c", "eu-d"], true);
        desk.in_step(0..4, "eu-d");
        assert_eq!(desk.told(), [], "it may have nothing yet");
        desk.in_step(0..4, "eu-b");
        assert_eq!(
            desk.told().is_empty(),
            was_restored,
            "one that serves is enough, or all of them are"
        );
        desk.in_step(0..4, "eu-c");
        assert!(!desk.quarantine.is_on());
    }
}

#[test]
fn once_they_are_read_new_owners_count_like_the_old_ones() {
    let view = changing(2, Phase::Serving, &OLD, &NEW, MemberState::Leaving);
    let mut desk = Desk::start_in(view.clone(), Some(12 * DAY), false);
    desk.in_step(0..4, "eu-d");
    assert_eq!(desk.told(), [true, false]);
    let mut desk = Desk::start_in(view, Some(12 * DAY), true);
    for peer in ["eu-b", "eu-c"] {
        desk.in_step(0..4, peer);
    }
    assert_eq!(desk.told(), [true], "a quorum of the new ones may have what was acknowledged");
    desk.in_step(0..4, "eu-d");
    assert_eq!(desk.told(), [false]);
}

#[test]
fn who_is_only_filled_has_nothing_to_be_quarantined_for_unless_it_has_lost_it() {
    let view =
        changing(2, Phase::Filling, &["eu-b", "eu-c"], &["eu-a", "eu-b"], MemberState::Leaving);
    let mut desk = Desk::start_in(view.clone(), Some(12 * DAY), false);
    assert_eq!(desk.told(), [true, false]);
    let mut desk = Desk::start_in(view, None, false);
    assert_eq!(desk.told(), []);
    desk.handle(Input::Lost);
    desk.in_step(0..4, "eu-b");
    assert_eq!(desk.told(), [true], "it may have said that it holds everything");
    desk.in_step(0..4, "eu-c");
    assert_eq!(desk.told(), [false]);
}

#[test]
fn who_is_written_off_is_waited_for_no_more() {
    for phase in [Phase::Filling, Phase::Serving] {
        let view = changing(2, phase, &OLD, &["eu-a", "eu-b"], MemberState::Leaving);
        let mut desk = Desk::start_in(view, Some(12 * DAY), true);
        desk.in_step(0..4, "eu-b");
        assert_eq!(desk.told(), [true], "it waits for one that leaves");
        let next = changing(3, phase, &OLD, &["eu-a", "eu-b"], MemberState::Removed);
        desk.handle(Input::ClusterChanged(next));
        assert_eq!(desk.told(), [false]);
    }
}
