//! What the service and the socket of one connection tell each other.
//!
//! Between them is the HTTP server, which passes on neither. The socket gives it one request at a time,
//! so both sides always mean the same one.

use std::{cell::Cell, rc::Rc};

/// The request under way on one connection, as far as both sides need to know of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange(Rc<Request>);

#[derive(Debug, Default)]
struct Request {
    fragment: Cell<bool>,
    /// The length of the answer's body, once there is one and until it is written.
    answer: Cell<Option<u64>>,
}

impl Exchange {
    /// A request is under way; `fragment` says whether its target holds a `#`.
    pub(crate) fn begin_request(&self, fragment: bool) {
        self.0.fragment.set(fragment);
    }

    /// Whether the target of the request holds a `#`.
    pub(crate) fn has_fragment(&self) -> bool {
        self.0.fragment.get()
    }

    /// The answer will have a body of so many bytes on the wire.
    pub(crate) fn announce(&self, body: u64) {
        self.0.answer.set(Some(body));
    }

    /// The answer begins to be written, if one was announced: the length of its body.
    pub(crate) fn begin_answer(&self) -> Option<u64> {
        self.0.answer.take()
    }
}
