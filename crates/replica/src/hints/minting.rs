//! Issuing a dot under this node's own name, when none of a key's replicas can be reached.
//!
//! A vnode counts on from the last dot that it holds of a key, because it holds the key for ever. Hints
//! go, and one key can have several, for several owners. So each hint has an actor of its own, whose
//! last dot it remembers, and whatever else it holds, dots of other actors of this node included, is
//! not counted on from. Once the hint is gone, nobody ever issues under its actor again.

use anello_protocol::{message::hint::MintHint, time::Now, version::Versions};

use super::{
    events::{Reply, Token},
    keeping::{Kept, Place},
    machine::HintStore,
};
use crate::replica::{self, Follows, Mint};

impl HintStore {
    pub(super) fn mint(
        &mut self,
        now: Now,
        place: &Place,
        token: Token,
        MintHint { mint, .. }: MintHint,
        bytes: usize,
    ) {
        let rule = mint.rule;
        let latest = self.open(place).latest().cloned();
        let nothing = Versions::new();
        let held = latest.as_ref().map_or(&nothing, |hint| &hint.versions);
        let last = latest.as_ref().and_then(|hint| hint.minted);
        let follows = Follows::Dot(last);
        let (kept, reply) = match replica::mint(held, mint, follows, &mut self.issuer, now.wall_ms)
        {
            Ok(Mint::Fresh(versions, minted)) => {
                let dot = minted.versions.iter().map(|version| version.dot).max();
                let record = self.issuer.record_to_commit();
                let kept = Kept { versions, rule, minted: dot.or(last), record, counts: true };
                (Some(kept), Reply::Mint(Ok(minted)))
            }
            Ok(Mint::Known(minted)) => {
                // It may have come as a hint that counted for nothing, and does from here on.
                let rests_on = self.open(place).last_commit();
                let record = rests_on.and_then(|_| self.issuer.record_to_commit());
                let counted = latest.filter(|hint| !hint.counts);
                let kept = counted.map(|hint| {
                    let versions = hint.versions.clone();
                    Kept { versions, rule, minted: last, record, counts: true }
                });
                (kept, Reply::Mint(Ok(minted)))
            }
            Err(refusal) => return self.reply(token, Reply::Mint(Err(refusal)), bytes),
        };
        self.keep(now, place, kept, (token, reply, bytes));
    }
}
