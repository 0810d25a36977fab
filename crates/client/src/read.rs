//! What a read brings: one version, siblings, a tombstone, or nothing, and the context that goes with
//! it.

use bytes::Bytes;

use anello_protocol::{
    message::client::{ContextToken, Found},
    version::Content,
};

/// What a reader has seen of a key.
///
/// Opaque: it comes with what was read or written, and goes with the next write of the same key, which
/// then replaces exactly those versions. It is good for its own key only, and can be kept or sent
/// elsewhere as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Context(pub(crate) ContextToken);

impl Context {
    /// The context whose text this is. Whether it is one shows when it is used.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(ContextToken(text.into()))
    }

    /// Its text, URL-safe.
    pub fn as_str(&self) -> &str {
        &self.0.0
    }
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One of several concurrent versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sibling {
    /// Somebody wrote this value.
    Value(Bytes),
    /// Somebody deleted the key.
    Deleted,
}

/// What a read found.
///
/// Siblings are a case of their own, so that a `match` can't drop them by oversight; there is no
/// method that picks one of them.
///
/// ```
/// # fn show(read: anello_client::Read) {
/// use anello_client::Read;
///
/// match read {
///     Read::One { value, .. } => println!("{} bytes", value.len()),
///     Read::Siblings { siblings, .. } => println!("{} versions to merge", siblings.len()),
///     Read::Deleted { .. } => println!("was deleted"),
///     Read::Missing => println!("was never written"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a read may have found siblings, which want merging"]
pub enum Read {
    /// One value.
    One {
        /// The value.
        value: Bytes,
        /// What has been seen with it.
        context: Context,
    },
    /// Concurrent versions, none of which replaces another.
    Siblings {
        /// The versions, in no meaningful order.
        siblings: Vec<Sibling>,
        /// Covers them all: a write that carries it settles the conflict.
        context: Context,
    },
    /// The key was deleted.
    Deleted {
        /// Covers the tombstone, so that a write that carries it is not concurrent with the delete.
        context: Context,
    },
    /// Nobody has written the key.
    Missing,
}

impl Read {
    pub(crate) fn from_found(found: Found) -> Self {
        if found.versions.is_empty() {
            return Self::Missing;
        }
        let context = Context(found.context);
        let mut siblings: Vec<_> =
            found.versions.into_iter().map(|version| Sibling::from(version.content)).collect();
        if siblings.iter().all(|sibling| *sibling == Sibling::Deleted) {
            return Self::Deleted { context };
        }
        match (siblings.len(), siblings.pop()) {
            (1, Some(Sibling::Value(value))) => Self::One { value, context },
            (_, last) => {
                siblings.extend(last);
                Self::Siblings { siblings, context }
            }
        }
    }

    /// What has been seen: what the next write of the key is to carry. None if nobody has written it.
    pub fn context(&self) -> Option<&Context> {
        match self {
            Self::One { context, .. }
            | Self::Siblings { context, .. }
            | Self::Deleted { context } => Some(context),
            Self::Missing => None,
        }
    }
}

impl From<Content> for Sibling {
    fn from(content: Content) -> Self {
        match content {
            Content::Value(value) => Self::Value(value.into_bytes()),
            Content::Tombstone => Self::Deleted,
        }
    }
}

#[cfg(test)]
mod tests {
    use anello_protocol::{message::client::FoundVersion, time::HybridTime, version::Value};

    use super::*;

    fn found(contents: &[Option<&'static str>]) -> Read {
        let versions = contents.iter().map(|content| FoundVersion {
            content: match content {
                Some(value) => Content::Value(Value::new(*value).unwrap()),
                None => Content::Tombstone,
            },
            time: HybridTime::default(),
        });
        Read::from_found(Found { versions: versions.collect(), context: ContextToken("c".into()) })
    }

    #[test]
    fn each_finding_has_its_case() {
        let context = Context::from_text("c");
        assert_eq!(found(&[]), Read::Missing);
        assert_eq!(
            found(&[Some("a")]),
            Read::One { value: Bytes::from("a"), context: context.clone() }
        );
        assert_eq!(found(&[None]), Read::Deleted { context: context.clone() });
        assert_eq!(found(&[None, None]), Read::Deleted { context: context.clone() });
        let siblings =
            vec![Sibling::Value("a".into()), Sibling::Deleted, Sibling::Value("b".into())];
        assert_eq!(found(&[Some("a"), None, Some("b")]), Read::Siblings { siblings, context });
    }
}
