//! Keys and versions for tests.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::KeyspaceName,
    key::{DataKey, Key, KeyHash},
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};

use crate::world::{KEYSPACE, WALL_MS};

pub(crate) fn key(number: u64) -> DataKey {
    let key = Key::new(format!("key-{number}").into_bytes()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    DataKey { hash, keyspace: KEYSPACE, key }
}

pub(crate) fn value(bytes: usize, fill: u8) -> Content {
    Content::Value(Value::new(vec![fill; bytes]).expect("within the bound"))
}

/// A version that has seen `past`; `number` makes it one of its own.
pub(crate) fn version(number: u64, past: Context, wall_ms: u64, content: Content) -> Version {
    let actor = ActorId { incarnation: Incarnation(number + 1), birth: 1 };
    Version {
        dot: Dot { actor, counter: 1 },
        past,
        write_id: WriteId(number.into()),
        time: HybridTime::from_wall_ms(wall_ms),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content,
    }
}

/// A key's first write.
pub(crate) fn first(number: u64, bytes: usize) -> Versions {
    version(number, Context::new(), WALL_MS - 1000, value(bytes, number as u8)).into()
}

/// What is held of each key.
pub(crate) type Contents = BTreeMap<DataKey, Arc<Versions>>;
