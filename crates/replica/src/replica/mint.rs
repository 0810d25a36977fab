//! Issuing a dot: what a client's write becomes, given what the vnode holds of the key.
//!
//! Invariants: a dot is above every one that this incarnation is known to have issued for the key; the
//! version replaces what its context covers and nothing else; a write that is known already issues
//! nothing.

use anello_protocol::{
    causality::{ActorId, Context, Dot},
    message::replica::{MintVersion, Minted, Refusal},
    time::HybridTime,
    version::{ConflictRule, Content, Version, Versions, WriteId},
};

use super::issuer::Issuer;

/// The most concurrent versions that clients' writes can leave on a key.
pub(super) const MAX_SIBLINGS: usize = 1024;
/// The most bytes of values that concurrent versions can have together, for clients' writes: far below
/// what one message can hold, because replicas that don't see each other can each come this far.
pub(super) const MAX_SIBLING_BYTES: usize = 8 << 20;

/// What a write comes to.
pub(crate) enum Mint {
    /// A new version: what the vnode is to keep, and the answer once it is kept.
    Fresh(Versions, Minted),
    /// It is here already: the answer, once all that it shows is durable.
    Known(Minted),
}

/// Which dot the next one follows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Follows {
    /// The last one that is held: whoever issues keeps all that it ever issued for the key, or what
    /// followed it.
    Held,
    /// This one; none means that it begins under a birth of its own.
    Dot(Option<Dot>),
}

/// Decides what a write becomes. `held` includes what is not durable yet.
pub(crate) fn mint(
    held: &Versions,
    write: MintVersion,
    follows: Follows,
    issuer: &mut Issuer,
    wall_ms: u64,
) -> Result<Mint, Refusal> {
    // What was issued elsewhere for the same write, and has come here since it was lost to, will do.
    let is_late_enough = write.later_than.is_none_or(|than| {
        held.iter().any(|version| version.write_id == write.write_id && version.time >= than)
    });
    if is_late_enough && held.knows(write.write_id) {
        let seen = match write.rule {
            ConflictRule::Siblings => write.context,
            ConflictRule::Lww => Context::new(),
        };
        let context = context_of_known(held, write.write_id, seen);
        return Ok(Mint::Known(Minted { versions: held.clone(), context }));
    }
    let (dot, past) = match write.rule {
        ConflictRule::Siblings => {
            let dot = next_dot(held, &write, follows, issuer)?;
            room_for_sibling(held, &write)?;
            (dot, write.context)
        }
        ConflictRule::Lww => {
            let incarnation = issuer.incarnation(write.ruled_since);
            let actor = ActorId { incarnation, birth: issuer.birth() };
            (Dot { actor, counter: 1 }, Context::new())
        }
    };
    let mut absorbed = match write.rule {
        ConflictRule::Siblings => held.absorbed_by(&past),
        // The later write replaces all that is there, whether its writer had seen it or not.
        ConflictRule::Lww => held.absorbed_by(&held.context()),
    };
    absorbed.retain(|id| *id != write.write_id);
    // Under last-write-wins the pasts are empty, so a context that grew along with a chain of writes
    // would have nothing to say: the writer has seen the one version that there is.
    let mut context = past.clone();
    context.insert(dot);
    let version = Version {
        dot,
        past,
        write_id: write.write_id,
        time: HybridTime::after(held.latest().max(write.later_than.unwrap_or_default()), wall_ms),
        expires_ms: None,
        trace_id: write.trace_id,
        absorbed,
        content: write.content,
    };
    let versions = Versions::from(version);
    let mut joined = held.clone();
    let is_new = joined.merge(versions.clone(), write.rule);
    debug_assert!(is_new, "a fresh dot is in nobody's past");
    Ok(Mint::Fresh(joined, Minted { versions, context }))
}

/// The dot after the last one of this incarnation on the key.
fn next_dot(
    held: &Versions,
    write: &MintVersion,
    follows: Follows,
    issuer: &mut Issuer,
) -> Result<Dot, Refusal> {
    let incarnation = issuer.incarnation(write.ruled_since);
    let last = match follows {
        Follows::Held => held.issued_by(incarnation),
        Follows::Dot(dot) => dot
            .filter(|dot| dot.actor.incarnation == incarnation)
            .map(|dot| (dot.actor, dot.counter)),
    };
    // A context that claims a dot which is yet to be issued would make that write vanish.
    let forged = |actor: ActorId| {
        let beyond =
            last.is_some_and(|(own, count)| own == actor && write.context.highest(actor) > count);
        actor.incarnation == incarnation && (beyond || !issuer.has_given(actor.birth))
    };
    if write.context.actors().any(forged) {
        return Err(Refusal::ForgedContext);
    }
    let next = last.and_then(|(actor, count)| Some(Dot { actor, counter: count.checked_add(1)? }));
    Ok(next.unwrap_or_else(|| Dot {
        actor: ActorId { incarnation, birth: issuer.birth() },
        counter: 1,
    }))
}

/// Whether a key can take one more version beside those that the write doesn't replace.
fn room_for_sibling(held: &Versions, write: &MintVersion) -> Result<(), Refusal> {
    if held.len() < MAX_SIBLINGS && held.value_bytes() < MAX_SIBLING_BYTES {
        return Ok(());
    }
    let mut siblings = 0;
    let mut bytes = 0;
    for version in held.iter().filter(|version| !write.context.covers(version.dot)) {
        siblings += 1;
        bytes += match &version.content {
            Content::Value(value) => value.bytes().len(),
            Content::Tombstone => 0,
        };
    }
    if siblings >= MAX_SIBLINGS || bytes >= MAX_SIBLING_BYTES {
        return Err(Refusal::TooManySiblings(siblings as u32));
    }
    Ok(())
}

/// What the writer of a known write has seen with it: no more than what it had `seen` before and its own
/// dots, although there may be more by the time of a retry.
pub(crate) fn context_of_known(held: &Versions, write_id: WriteId, seen: Context) -> Context {
    let mut context = seen;
    for version in held.iter().filter(|version| version.write_id == write_id) {
        context.merge(&version.past);
        context.insert(version.dot);
    }
    context
}
