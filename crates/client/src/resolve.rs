//! Making one value of several: what an [`update`](crate::Client::update) asks when it meets siblings.

use bytes::Bytes;

use crate::read::{Context, Read, Sibling};

/// Makes one value of concurrent ones.
///
/// Two clients may resolve the same siblings at the same time, and their results may be siblings
/// again. So that all end with the same value whatever the order, a resolver should be commutative
/// (the order of the values doesn't matter), associative and idempotent, as the union of sets is.
///
/// A closure is a resolver:
///
/// ```
/// use anello_client::{Bytes, Resolve};
///
/// let longest = |values: Vec<Bytes>| values.into_iter().max_by_key(Bytes::len).unwrap_or_default();
/// assert_eq!(longest.resolve(vec!["ab".into(), "abc".into()]), "abc");
/// ```
pub trait Resolve: Send + Sync {
    /// Makes one value of at least two, in no meaningful order.
    fn resolve(&self, values: Vec<Bytes>) -> Bytes;

    /// Decides when one writer deleted the key while others wrote it: `values` holds one value or
    /// more. `None` lets the delete win.
    ///
    /// Unless told otherwise, writes win over a delete that had not seen them.
    fn resolve_deleted(&self, mut values: Vec<Bytes>) -> Option<Bytes> {
        if values.len() > 1 { Some(self.resolve(values)) } else { values.pop() }
    }
}

impl<F: Fn(Vec<Bytes>) -> Bytes + Send + Sync> Resolve for F {
    fn resolve(&self, values: Vec<Bytes>) -> Bytes {
        self(values)
    }
}

/// What is there for an update to start from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) value: Option<Bytes>,
    pub(crate) context: Option<Context>,
}

/// Makes one current value of a read; without a resolver, the number of siblings that are in the way.
pub(crate) fn settle(read: Read, resolver: Option<&dyn Resolve>) -> Result<Current, usize> {
    Ok(match read {
        Read::One { value, context } => Current { value: Some(value), context: Some(context) },
        Read::Deleted { context } => Current { value: None, context: Some(context) },
        Read::Missing => Current { value: None, context: None },
        Read::Siblings { siblings, context } => {
            let resolver = resolver.ok_or(siblings.len())?;
            let deleted = siblings.contains(&Sibling::Deleted);
            let values = siblings.into_iter().filter_map(|sibling| match sibling {
                Sibling::Value(value) => Some(value),
                Sibling::Deleted => None,
            });
            let values: Vec<_> = values.collect();
            let value = if deleted {
                resolver.resolve_deleted(values)
            } else {
                Some(resolver.resolve(values))
            };
            Current { value, context: Some(context) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct DeleteWins;
    impl Resolve for DeleteWins {
        fn resolve(&self, values: Vec<Bytes>) -> Bytes {
            values.concat().into()
        }
        fn resolve_deleted(&self, _: Vec<Bytes>) -> Option<Bytes> {
            None
        }
    }

    fn siblings(values: &[Option<&'static str>]) -> Read {
        let siblings = values.iter().map(|value| match value {
            Some(value) => Sibling::Value((*value).into()),
            None => Sibling::Deleted,
        });
        Read::Siblings { siblings: siblings.collect(), context: Context::from_text("c") }
    }

    fn value(read: Read, resolver: &dyn Resolve) -> Option<Bytes> {
        settle(read, Some(resolver)).unwrap().value
    }

    #[test]
    fn siblings_need_a_resolver() {
        assert_eq!(settle(siblings(&[Some("a"), None]), None), Err(2));
        assert_eq!(settle(Read::Missing, None), Ok(Current { value: None, context: None }));
    }

    #[test]
    fn writes_win_over_a_concurrent_delete_unless_told_otherwise() {
        let concat = |values: Vec<Bytes>| Bytes::from(values.concat());
        assert_eq!(value(siblings(&[Some("a"), None]), &concat), Some("a".into()));
        assert_eq!(value(siblings(&[Some("a"), None, Some("b")]), &concat), Some("ab".into()));
        assert_eq!(value(siblings(&[Some("a"), None]), &DeleteWins), None);
        assert_eq!(value(siblings(&[Some("a"), Some("b")]), &DeleteWins), Some("ab".into()));
    }
}
