//! Nothing that a stranger sends panics or allocates beyond proportion: random bytes, mutated
//! encodings, forged tokens.

use anello_protocol::{
    causality::{ActorId, BadToken, Context, Dot, Incarnation, token_decode, token_encode},
    codec,
    id::{KeyspaceId, KeyspaceName},
    key::{DataKey, Key, KeyHash},
    message::{admin, client, gossip, hint, repair, replica},
    version::Versions,
};
use proptest::prelude::*;

fn data_key(keyspace: u64, key: &str) -> DataKey {
    let key = Key::new(key.as_bytes().to_vec()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    DataKey { hash, keyspace: KeyspaceId(keyspace), key }
}

fn context(dots: &[(u64, u64)]) -> Context {
    let actor = |birth| ActorId { incarnation: Incarnation(0x1234), birth };
    dots.iter().map(|&(birth, counter)| Dot { actor: actor(birth), counter }).collect()
}

/// Decodes as everything that arrives from outside.
fn decode_all(bytes: &[u8]) {
    let _ = codec::decode::<replica::ReadVersions>(bytes);
    let _ = codec::decode::<replica::StoreVersions>(bytes);
    let _ = codec::decode::<replica::MintVersion>(bytes);
    let _ = codec::decode::<replica::RelayVersions>(bytes);
    let _ = codec::decode::<replica::RelayedAck>(bytes);
    let _ = codec::decode::<replica::ForwardWrite>(bytes);
    let _ = codec::decode::<Result<replica::Held, replica::Refusal>>(bytes);
    let _ = codec::decode::<hint::StoreHint>(bytes);
    let _ = codec::decode::<hint::MintHint>(bytes);
    let _ = codec::decode::<hint::ReadHints>(bytes);
    let _ = codec::decode::<hint::MarkForRepair>(bytes);
    let _ = codec::decode::<hint::CheckHints>(bytes);
    let _ = codec::decode::<repair::CompareRoots>(bytes);
    let _ = codec::decode::<repair::CompareRanges>(bytes);
    let _ = codec::decode::<repair::CompareKeys>(bytes);
    let _ = codec::decode::<Result<repair::KeysDiffer, replica::Refusal>>(bytes);
    let _ = codec::decode::<repair::PurgeVersions>(bytes);
    let _ = codec::decode::<client::Get>(bytes);
    let _ = codec::decode::<client::Write>(bytes);
    let _ = codec::decode::<client::Answer<client::Found>>(bytes);
    let _ = codec::decode::<client::LocateKey>(bytes);
    let _ = codec::decode::<admin::AlterKeyspace>(bytes);
    let _ = codec::decode::<admin::ClusterView>(bytes);
    let _ = codec::decode::<Option<anello_protocol::cluster::ClusterState>>(bytes);
    let _ = codec::decode::<gossip::GossipPacket>(bytes);
    let _ = codec::decode_stored::<Versions>(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
    }

    #[test]
    fn a_length_that_lies_allocates_nothing(prefix in proptest::collection::vec(any::<u8>(), 0..12)) {
        // A varint of four gigabytes wherever a length may stand.
        let mut bytes = prefix;
        bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        decode_all(&bytes);
    }

    #[test]
    fn a_token_reads_back(dots in proptest::collection::vec((0..4u64, 1..9u64), 0..20)) {
        let (key, context) = (data_key(1, "k"), context(&dots));
        let token = token_encode(&key, &context);
        prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        prop_assert_eq!(token_decode(&key, &token), Ok(context));
    }

    #[test]
    fn a_damaged_token_is_refused(
        dots in proptest::collection::vec((0..4u64, 1..9u64), 0..20),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let key = data_key(1, "k");
        let mut token = token_encode(&key, &context(&dots)).into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != byte);
        token[at] = byte;
        // Base64 has bits to spare in its last character, so two spellings may mean the same bytes.
        if let Ok(text) = String::from_utf8(token) && let Ok(read) = token_decode(&key, &text) {
            prop_assert_eq!(read, context(&dots));
        }
    }

    #[test]
    fn random_tokens_are_refused(token in "[A-Za-z0-9_-]{0,200}") {
        prop_assert!(token_decode(&data_key(1, "k"), &token).is_err());
    }
}

#[test]
fn a_token_is_good_for_its_own_key_only() {
    let token = token_encode(&data_key(1, "k"), &context(&[(0, 1)]));
    assert_eq!(token_decode(&data_key(1, "l"), &token), Err(BadToken::Mismatch));
    assert_eq!(token_decode(&data_key(2, "k"), &token), Err(BadToken::Mismatch));
    assert_eq!(token_decode(&data_key(1, "k"), &"A".repeat(4097)), Err(BadToken::TooLong));
    assert_eq!(token_decode(&data_key(1, "k"), ""), Err(BadToken::Damaged));
}

/// What `docs/consistency.md` says of the length of contexts.
#[test]
fn two_hundred_actors_and_gaps_fit_a_token() {
    let actor = |n| ActorId { incarnation: Incarnation(u64::MAX - n), birth: 1 << 20 };
    let vector = (0..100).map(|n| Dot { actor: actor(n), counter: 1 });
    let gaps = |count| (0..count).map(|n| Dot { actor: actor(0), counter: (1 << 20) + 2 * n });
    let key = data_key(1, "k");
    let context: Context = vector.chain(gaps(100)).collect();
    assert_eq!(token_decode(&key, &token_encode(&key, &context)), Ok(context));
    let context: Context = gaps(1_000).collect();
    assert_eq!(token_decode(&key, &token_encode(&key, &context)), Err(BadToken::TooLong));
}
