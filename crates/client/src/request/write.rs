//! Writing a key, and deleting it.

use anello_protocol::{
    consistency::Consistency,
    message::client::{Receipt, Write},
    version::{Content, ValueTooLarge, WriteId},
};

use super::{Explained, Options, Pending, options::common_setters};
use crate::{error::Error, read::Context, scope::Address};

/// The longest idempotency key, in characters.
const MAX_IDEMPOTENCY_KEY: usize = 64;

/// A write under construction; await it. Made by [`Client::put`](crate::Client::put) and
/// [`Keyspace::put`](crate::Keyspace::put).
///
/// Its answer is the context of what was written: a write that carries it replaces this one.
#[must_use = "nothing happens before it is awaited"]
pub struct Put {
    pub(crate) address: Address,
    pub(crate) options: Options,
    pub(crate) content: Result<Content, ValueTooLarge>,
    pub(crate) context: Option<Context>,
    pub(crate) write_id: Option<Result<WriteId, Error>>,
}

/// A delete under construction; await it. Made by [`Client::delete`](crate::Client::delete) and
/// [`Keyspace::delete`](crate::Keyspace::delete).
///
/// Its answer is the context of the tombstone: a write that carries it comes after the delete.
#[must_use = "nothing happens before it is awaited"]
pub struct Delete {
    pub(crate) address: Address,
    pub(crate) options: Options,
    pub(crate) context: Option<Context>,
    pub(crate) write_id: Option<Result<WriteId, Error>>,
}

/// The setters that puts and deletes have.
macro_rules! write_setters {
    () => {
        common_setters!();

        /// How many replicas must acknowledge it; without this, what the keyspace says. All replicas
        /// get it, whatever the level.
        pub fn consistency(mut self, level: Consistency) -> Self {
            self.options.request.write = Some(level);
            self
        }

        /// Names the write: another one of the same key that carries the same name is the same
        /// event, even from another process, and never a sibling. 1 to 64 printable characters.
        ///
        /// Within one operation this is done for you; it is for retries of your own.
        pub fn idempotency_key(mut self, key: &str) -> Self {
            self.write_id = Some(named(key));
            self
        }
    };
}

impl Put {
    write_setters!();

    /// What the writer has seen: exactly those versions are replaced. A context comes from a read or
    /// from an earlier write of the same key; without one, the write is concurrent with all that is
    /// there.
    pub fn context(mut self, context: impl Into<Option<Context>>) -> Self {
        self.context = context.into();
        self
    }

    /// Writes.
    pub async fn send(self) -> Result<Context, Error> {
        Ok(self.run().await?.0)
    }

    /// Writes, and says who took part in it.
    pub async fn explained(mut self) -> Result<Explained<Context>, Error> {
        self.options.request.explain = true;
        let (answer, receipt) = self.run().await?;
        Ok(Explained { answer, receipt })
    }

    async fn run(self) -> Result<(Context, Option<Receipt>), Error> {
        let content = self.content.map_err(Error::invalid)?;
        write(self.address, self.options, content, self.context, self.write_id).await
    }
}

impl Delete {
    write_setters!();

    /// What the deleter has seen: exactly those versions are deleted. Without a context, it is what
    /// the coordinator's read quorum shows at that moment.
    pub fn context(mut self, context: impl Into<Option<Context>>) -> Self {
        self.context = context.into();
        self
    }

    /// Deletes. That there is nothing to delete is no error.
    pub async fn send(self) -> Result<Context, Error> {
        Ok(self.run().await?.0)
    }

    /// Deletes, and says who took part in it.
    pub async fn explained(mut self) -> Result<Explained<Context>, Error> {
        self.options.request.explain = true;
        let (answer, receipt) = self.run().await?;
        Ok(Explained { answer, receipt })
    }

    async fn run(self) -> Result<(Context, Option<Receipt>), Error> {
        write(self.address, self.options, Content::Tombstone, self.context, self.write_id).await
    }
}

impl IntoFuture for Put {
    type Output = Result<Context, Error>;
    type IntoFuture = Pending<Context>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl IntoFuture for Delete {
    type Output = Result<Context, Error>;
    type IntoFuture = Pending<Context>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// One write in as many attempts as it takes; all carry the same id, so all are the same event.
async fn write(
    address: Address,
    options: Options,
    content: Content,
    context: Option<Context>,
    write_id: Option<Result<WriteId, Error>>,
) -> Result<(Context, Option<Receipt>), Error> {
    let place = address.place()?;
    let name = write_id.transpose()?;
    let write_id = name.unwrap_or_else(|| WriteId(rand::random()));
    let message = |left| Write {
        keyspace: place.keyspace.clone(),
        key: place.key.clone(),
        content: content.clone(),
        context: context.clone().map(|context| context.0),
        write_id,
        is_named: name.is_some(),
        options: options.request(left),
    };
    let (written, receipt) = place.operation(&options).writing().run(message).await?;
    Ok((Context(written.context), receipt))
}

fn named(key: &str) -> Result<WriteId, Error> {
    let printable = key.bytes().all(|b| matches!(b, b' '..=b'~'));
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY || !printable {
        let why = format!("an idempotency key is 1 to {MAX_IDEMPOTENCY_KEY} printable characters");
        return Err(Error::invalid(why));
    }
    Ok(WriteId::of_idempotency_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_keys_are_within_their_bounds() {
        assert_eq!(named("order 7").unwrap(), WriteId::of_idempotency_key("order 7"));
        assert_ne!(named("order 7").unwrap(), named("order 8").unwrap());
        for bad in ["", "tab\t", "ü", &"x".repeat(65)] {
            assert!(named(bad).is_err(), "{bad:?}");
        }
    }
}
