//! Changing a key: read, merge what is concurrent, change, write back.
//!
//! The write carries the context of the read, so it replaces exactly what the change has seen. Somebody
//! else's update in between isn't lost: the two results are siblings, and the next update merges them.
//! That is why there is no loop here that reads again, and no way to fail on a conflict.

use std::{sync::Arc, time::Instant};

use anello_protocol::{
    consistency::Consistency,
    version::{Content, Value},
};
use bytes::Bytes;

use super::{Delete, Get, Options, Pending, Put, options::common_setters};
use crate::{
    error::{Error, ErrorKind},
    read::{Context, Read},
    resolve::{Current, Resolve, settle},
    scope::Address,
};

/// What an update makes of a key. What converts into a value converts into this; `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key has this value.
    Put(Bytes),
    /// The key is deleted.
    Delete,
    /// Nothing is written.
    Keep,
}

macro_rules! change_from {
    ($($value:ty),*) => {$(
        impl From<$value> for Change {
            fn from(value: $value) -> Self {
                Self::Put(value.into())
            }
        }

        impl From<Option<$value>> for Change {
            fn from(value: Option<$value>) -> Self {
                value.map_or(Self::Delete, Self::from)
            }
        }
    )*};
}
change_from!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);

/// What an update has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The value that the key has with this update; none if it has none.
    pub value: Option<Bytes>,
    /// What has been seen with it. None if nobody has ever written the key.
    pub context: Option<Context>,
}

/// An update under construction; await it. Made by [`Client::update`](crate::Client::update) and
/// [`Keyspace::update`](crate::Keyspace::update).
#[must_use = "nothing happens before it is awaited"]
pub struct Update<F> {
    pub(crate) address: Address,
    pub(crate) options: Options,
    pub(crate) resolver: Option<Arc<dyn Resolve>>,
    pub(crate) change: F,
}

impl<F> Update<F> {
    common_setters!();

    /// What makes one value of siblings, for this update. Without it, the one of the
    /// [keyspace](crate::Keyspace::resolver) or of the [client](crate::ClientBuilder::resolver);
    /// without any, an update that meets siblings fails with
    /// [`Unresolved`](ErrorKind::Unresolved) and changes nothing.
    pub fn resolver(mut self, resolver: impl Resolve + 'static) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// How many replicas must answer the read.
    pub fn read_consistency(mut self, level: Consistency) -> Self {
        self.options.request.read = Some(level);
        self
    }

    /// How many replicas must acknowledge the write.
    pub fn write_consistency(mut self, level: Consistency) -> Self {
        self.options.request.write = Some(level);
        self
    }
}

impl<F, C> Update<F>
where
    F: FnOnce(Option<Bytes>) -> C,
    C: Into<Change>,
{
    /// Reads, merges, changes, writes back.
    pub async fn send(self) -> Result<Updated, Error> {
        let Self { address, mut options, resolver, change } = self;
        let deadline = options.deadline(Instant::now());
        let read = Get { address: address.clone(), options: options.clone() }.send().await?;
        let absent = matches!(read, Read::Deleted { .. } | Read::Missing);
        let Current { value, context } = settle(read, resolver.as_deref())
            .map_err(|siblings| Error::clean(ErrorKind::Unresolved { siblings }))?;
        let change = change(value.clone()).into();
        options.set_timeout(deadline.saturating_duration_since(Instant::now()));
        match change {
            Change::Keep => Ok(Updated { value, context }),
            Change::Delete if absent => Ok(Updated { value: None, context }),
            Change::Delete => {
                let delete = Delete { address, options, context, write_id: None };
                Ok(Updated { value: None, context: Some(delete.send().await?) })
            }
            Change::Put(value) => {
                let content = Value::new(value.clone()).map(Content::Value);
                let put = Put { address, options, content, context, write_id: None };
                Ok(Updated { value: Some(value), context: Some(put.send().await?) })
            }
        }
    }
}

impl<F, C> IntoFuture for Update<F>
where
    F: FnOnce(Option<Bytes>) -> C + Send + 'static,
    C: Into<Change> + 'static,
{
    type Output = Result<Updated, Error>;
    type IntoFuture = Pending<Updated>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
