//! What the service and the socket of one connection tell each other.
//!
//! Between them is the HTTP server, which passes on neither. Both count the connection's requests, and
//! the server answers these in their order, so a number says which is meant.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

/// The requests of one connection, as far as both sides need to know of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange(Rc<RefCell<Requests>>);

#[derive(Debug, Default)]
struct Requests {
    /// The answers that are still to be written: the lengths of their bodies.
    answers: VecDeque<u64>,
    announced: u64,
    begun: u64,
    /// The requests still to be answered whose targets hold a `#`: their numbers.
    fragments: VecDeque<u64>,
}

impl Exchange {
    /// The target of the request with this number holds a `#`.
    pub(crate) fn note_fragment(&self, number: u64) {
        self.0.borrow_mut().fragments.push_back(number);
    }

    /// Whether the target of the request that is to be answered next holds a `#`.
    pub(crate) fn has_fragment(&self) -> bool {
        let requests = self.0.borrow();
        requests.fragments.front() == Some(&requests.announced)
    }

    /// The next answer will have a body of so many bytes on the wire.
    pub(crate) fn announce(&self, body: u64) {
        let mut requests = self.0.borrow_mut();
        if requests.fragments.front() == Some(&requests.announced) {
            requests.fragments.pop_front();
        }
        requests.announced += 1;
        requests.answers.push_back(body);
    }

    /// The next answer begins to be written, if one was announced: the length of its body.
    pub(crate) fn begin_answer(&self) -> Option<u64> {
        let mut requests = self.0.borrow_mut();
        let body = requests.answers.pop_front()?;
        requests.begun += 1;
        Some(body)
    }

    /// How many answers have begun to be written.
    pub(crate) fn answers_begun(&self) -> u64 {
        self.0.borrow().begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_known_of_its_own_request_only() {
        let exchange = Exchange::default();
        exchange.note_fragment(1);
        exchange.note_fragment(2);
        let known = [(); 4].map(|()| {
            let known = exchange.has_fragment();
            exchange.announce(0);
            known
        });
        assert_eq!(known, [false, true, true, false]);
    }

    #[test]
    fn answers_begin_in_their_order() {
        let exchange = Exchange::default();
        assert_eq!(exchange.begin_answer(), None);
        exchange.announce(7);
        exchange.announce(9);
        assert_eq!((exchange.begin_answer(), exchange.begin_answer()), (Some(7), Some(9)));
        assert_eq!((exchange.begin_answer(), exchange.answers_begun()), (None, 2));
    }
}
