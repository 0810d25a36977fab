//! Reading a key.

use anello_protocol::{
    consistency::Consistency,
    message::client::{Get as GetMessage, Receipt},
};

use super::{Explained, Options, Pending, options::common_setters};
use crate::{error::Error, read::Read, scope::Address};

/// A read under construction; await it. Made by [`Client::get`](crate::Client::get) and
/// [`Keyspace::get`](crate::Keyspace::get).
#[must_use = "nothing happens before it is awaited"]
pub struct Get {
    pub(crate) address: Address,
    pub(crate) options: Options,
}

impl Get {
    common_setters!();

    /// How many replicas must answer; without this, what the keyspace says.
    pub fn consistency(mut self, level: Consistency) -> Self {
        self.options.request.read = Some(level);
        self
    }

    /// Reads.
    pub async fn send(self) -> Result<Read, Error> {
        Ok(self.run().await?.0)
    }

    /// Reads, and says who took part in it.
    pub async fn explained(mut self) -> Result<Explained<Read>, Error> {
        self.options.request.explain = true;
        let (answer, receipt) = self.run().await?;
        Ok(Explained { answer, receipt })
    }

    async fn run(self) -> Result<(Read, Option<Receipt>), Error> {
        let Self { address, options } = self;
        let place = address.place()?;
        let message = |left| GetMessage {
            keyspace: place.keyspace.clone(),
            key: place.key.clone(),
            options: options.request(left),
        };
        let operation = place.operation(&options);
        let (found, receipt) = operation.run(message).await?;
        Ok((Read::from_found(found), receipt))
    }
}

impl IntoFuture for Get {
    type Output = Result<Read, Error>;
    type IntoFuture = Pending<Read>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
