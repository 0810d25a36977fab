//! The memory that the bodies of requests under way may take together, on the whole node.
//!
//! Every body has a bound of its own; without this one, that bound times the connections would be the
//! node's. The first bytes of each body are outside of it, so that a small one is taken however many
//! large ones are on their way.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What each body may take outside of the budget. Times the connections, it is again no more than the
/// budget.
pub(crate) const FREE_BYTES: usize = 16 << 10;

/// So many bytes, taken and given back.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// A share, of nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), free: FREE_BYTES, bytes: 0 }
    }
}

/// What one request has taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// What it may still take outside of the budget.
    free: usize,
    bytes: usize,
}

impl Share {
    /// Takes more, if there is as much left.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let free = self.free.min(bytes);
        self.free -= free;
        let bytes = bytes - free;
        if bytes == 0 {
            return true;
        }
        let left = &self.budget.left;
        let take = |left: usize| left.checked_sub(bytes);
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.left.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let budget = Arc::new(Budget::new(10));
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.grow(FREE_BYTES) && two.grow(FREE_BYTES));
        assert!(one.grow(4) && one.grow(2) && two.grow(4));
        assert!(!two.grow(1));
        drop(one);
        assert!(two.grow(6) && !two.grow(1));
    }

    #[test]
    fn the_first_bytes_of_each_are_free() {
        let budget = Arc::new(Budget::new(1));
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.grow(FREE_BYTES + 1));
        assert!(two.grow(FREE_BYTES - 1) && two.grow(1) && !two.grow(1));
        drop(one);
        assert!(two.grow(1));
    }
}
