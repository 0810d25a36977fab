//! What an answer, or the lack of one, means: the outcome, or a failure and whether to try again.

use std::time::Duration;

use anello_protocol::{
    cluster::ClusterState,
    id::Epoch,
    message::{
        admin::{AlterError, ClusterView, NodeStatus, RepairStarted},
        client::{Answer, KeyLocation, Receipt, RequestError},
    },
};
use anello_transport::CallError;

use crate::{
    error::{ErrorKind, Tally},
    health::Ended,
    retry::{Failure, Retry},
    routing::Target,
};

/// How long a node that is busy without saying for how long is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A reply that is an outcome or says why there is none.
pub(crate) trait Reply {
    /// What is wanted.
    type Outcome;
    /// The outcome, or why there is none.
    fn judge(self) -> Result<Self::Outcome, Failure>;
}

impl<T> Reply for Answer<T> {
    type Outcome = (T, Option<Receipt>);

    fn judge(self) -> Result<Self::Outcome, Failure> {
        let Self { result, receipt } = self;
        result.map(|done| (done, receipt)).map_err(Failure::from)
    }
}

impl Reply for Result<KeyLocation, RequestError> {
    type Outcome = KeyLocation;

    fn judge(self) -> Result<KeyLocation, Failure> {
        self.map_err(Failure::from)
    }
}

impl Reply for Result<Epoch, AlterError> {
    type Outcome = Epoch;

    fn judge(self) -> Result<Epoch, Failure> {
        self.map_err(Failure::from)
    }
}

impl Reply for Option<ClusterState> {
    type Outcome = Self;

    fn judge(self) -> Result<Self, Failure> {
        Ok(self)
    }
}

impl Reply for ClusterView {
    type Outcome = Self;

    fn judge(self) -> Result<Self, Failure> {
        Ok(self)
    }
}

impl Reply for RepairStarted {
    type Outcome = Self;

    fn judge(self) -> Result<Self, Failure> {
        Ok(self)
    }
}

impl Reply for NodeStatus {
    type Outcome = Self;

    fn judge(self) -> Result<Self, Failure> {
        Ok(self)
    }
}

impl Failure {
    /// Nothing was done, and it would be refused again.
    fn lasting(kind: ErrorKind) -> Self {
        Self { kind, in_doubt: false, retry: Retry::Never }
    }

    /// Whether the ring may be another than the client knows.
    pub(crate) fn hints_at_change(&self) -> bool {
        match self.kind {
            ErrorKind::NoSuchKeyspace(_)
            | ErrorKind::Unavailable { .. }
            | ErrorKind::Timeout { .. }
            | ErrorKind::Unreachable(_)
            | ErrorKind::Refused(_) => true,
            ErrorKind::Invalid(_)
            | ErrorKind::Conflict(_)
            | ErrorKind::Overloaded { .. }
            | ErrorKind::Unresolved { .. } => false,
        }
    }

    /// A call that was not answered, with why the target can't be reached, if that is known.
    pub(crate) fn of_call(error: &CallError, target: &Target, trouble: Option<String>) -> Self {
        let in_doubt = error.may_have_been_handled();
        let (kind, retry) = match error {
            CallError::Timeout => (ErrorKind::Timeout { tally: None }, Retry::Paid),
            CallError::Busy => (ErrorKind::Overloaded { retry_after: BUSY_PAUSE }, Retry::Paid),
            CallError::Closed => {
                let why = format!("the connection to {target} was lost before it answered");
                (ErrorKind::Unreachable(why), Retry::Paid)
            }
            CallError::Unreachable => {
                let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
                (ErrorKind::Unreachable(format!("{target} can't be reached{trouble}")), Retry::Free)
            }
            CallError::Refused(why) => {
                (ErrorKind::Refused(format!("{target} refuses: {why}")), Retry::Seldom)
            }
        };
        Self { kind, in_doubt, retry }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::BadContext(why)
            | RequestError::BadConsistency(why)
            | RequestError::BadRequest(why) => Self::lasting(ErrorKind::Invalid(why)),
            RequestError::NoSuchKeyspace(name) => Self::lasting(ErrorKind::NoSuchKeyspace(name)),
            RequestError::Overloaded { retry_after_ms } => Self {
                kind: ErrorKind::Overloaded {
                    retry_after: Duration::from_millis(retry_after_ms.into()),
                },
                in_doubt: false,
                retry: Retry::Paid,
            },
            RequestError::Unavailable { required, alive }
            | RequestError::DiskFull { required, alive } => Self {
                kind: ErrorKind::Unavailable { required, alive },
                in_doubt: false,
                retry: Retry::Paid,
            },
            RequestError::Timeout { required, received } => Self {
                kind: ErrorKind::Timeout { tally: Some(Tally { required, received }) },
                in_doubt: true,
                retry: Retry::Paid,
            },
        }
    }
}

/// A change of the cluster is not tried again: an operator decides, with the outcome before them.
impl From<AlterError> for Failure {
    fn from(error: AlterError) -> Self {
        match error {
            AlterError::UnderWay(_) => Self::lasting(ErrorKind::Conflict(error.to_string())),
            AlterError::Invalid(why) => Self::lasting(ErrorKind::Invalid(why)),
            AlterError::NoSuchKeyspace(name) => Self::lasting(ErrorKind::NoSuchKeyspace(name)),
            AlterError::Unavailable { required, alive } => {
                Self::lasting(ErrorKind::Unavailable { required, alive })
            }
            AlterError::Timeout => {
                Self { in_doubt: true, ..Self::lasting(ErrorKind::Timeout { tally: None }) }
            }
        }
    }
}

/// What the end of an attempt says about the node that was asked. A node that answers is well, be the
/// answer that its replicas are not.
pub(crate) fn ended<T>(outcome: &Result<Result<T, Failure>, CallError>) -> Ended {
    match outcome {
        Ok(Err(Failure { kind: ErrorKind::Overloaded { retry_after }, .. })) => {
            Ended::Busy(*retry_after)
        }
        Ok(_) => Ended::Answered,
        Err(CallError::Busy) => Ended::Busy(BUSY_PAUSE),
        Err(CallError::Unreachable) => Ended::Unsent,
        Err(CallError::Timeout | CallError::Closed | CallError::Refused(_)) => Ended::Failed,
    }
}

#[cfg(test)]
mod tests {
    use anello_protocol::id::NodeId;

    use super::*;

    fn target() -> Target {
        Target::Node(NodeId::new("eu-a-1").expect("a valid name"))
    }

    #[test]
    fn only_what_was_not_handled_is_certain() {
        for error in [
            CallError::Timeout,
            CallError::Busy,
            CallError::Closed,
            CallError::Unreachable,
            CallError::Refused("why".into()),
        ] {
            let failure = Failure::of_call(&error, &target(), None);
            assert_eq!(failure.in_doubt, error.may_have_been_handled(), "{error}");
        }
        let timeout = RequestError::Timeout { required: 2, received: 1 };
        assert!(Failure::from(timeout).in_doubt);
        for error in [
            RequestError::BadContext(String::new()),
            RequestError::Overloaded { retry_after_ms: 7 },
            RequestError::Unavailable { required: 2, alive: 1 },
        ] {
            assert!(!Failure::from(error).in_doubt);
        }
    }

    #[test]
    fn a_node_whose_replicas_are_away_is_well() {
        let answer = |error| Answer::<()>::from(Err(error)).judge();
        let unavailable = answer(RequestError::Unavailable { required: 2, alive: 1 });
        assert_eq!(ended(&Ok(unavailable)), Ended::Answered);
        let overloaded = answer(RequestError::Overloaded { retry_after_ms: 70 });
        assert_eq!(ended(&Ok(overloaded)), Ended::Busy(Duration::from_millis(70)));
        assert_eq!(ended::<()>(&Err(CallError::Timeout)), Ended::Failed);
        assert_eq!(ended::<()>(&Err(CallError::Unreachable)), Ended::Unsent);
    }
}
