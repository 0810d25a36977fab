//! Counts of what was answered over HTTP, as Prometheus text.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use actix_web::{HttpResponse, http::StatusCode};

use crate::{error::Failure, route::Route};

/// The statuses that the gateway answers with; any other is counted as 0, which should stay at none.
const STATUSES: [u16; 13] = [0, 200, 204, 300, 400, 404, 405, 408, 413, 429, 501, 503, 504];

/// What a request was about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// A read of a key.
    Get,
    /// A write of a value.
    Put,
    /// A deletion.
    Delete,
    /// Anything for operators.
    Operators,
    /// Nothing that the node knows.
    Unknown,
}

impl Operation {
    const NAMES: [(Operation, &'static str); 5] = [
        (Operation::Get, "get"),
        (Operation::Put, "put"),
        (Operation::Delete, "delete"),
        (Operation::Operators, "operators"),
        (Operation::Unknown, "unknown"),
    ];

    /// What a route is about.
    pub(crate) fn of(route: &Result<Route, Failure>) -> Self {
        match route {
            Ok(Route::Read(_)) => Self::Get,
            Ok(Route::Store(_)) => Self::Put,
            Ok(Route::Delete(_)) => Self::Delete,
            Ok(_) => Self::Operators,
            Err(_) => Self::Unknown,
        }
    }
}

/// Counters that all workers of a node share.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    answers: [[AtomicU64; STATUSES.len()]; Operation::NAMES.len()],
}

impl Counters {
    /// Counts one answer.
    pub(crate) fn count(&self, operation: Operation, status: StatusCode) {
        let status = STATUSES.iter().position(|known| *known == status.as_u16()).unwrap_or(0);
        self.answers[operation as usize][status].fetch_add(1, Ordering::Relaxed);
    }

    fn render(&self, connections: usize) -> String {
        let mut text = String::from(
            "# HELP anello_http_requests_total Requests answered over HTTP.\n\
             # TYPE anello_http_requests_total counter\n",
        );
        for ((_, operation), answers) in Operation::NAMES.iter().zip(&self.answers) {
            for (status, count) in STATUSES.iter().zip(answers) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let _ = writeln!(
                        text,
                        "anello_http_requests_total{{operation=\"{operation}\",status=\"{status}\"}} {count}"
                    );
                }
            }
        }
        let _ = write!(
            text,
            "# HELP anello_http_connections HTTP connections that are open.\n\
             # TYPE anello_http_connections gauge\n\
             anello_http_connections {connections}\n"
        );
        text
    }
}

/// The node's counters, as Prometheus text.
#[utoipa::path(
    method(get, head), path = "/metrics", tag = "operators",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")),
)]
pub(crate) fn metrics(counters: &Counters, connections: usize) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.content_type("text/plain; version=0.0.4; charset=utf-8");
    response.body(counters.render(connections))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_operation_and_status() {
        let counters = Counters::default();
        for _ in 0..3 {
            counters.count(Operation::of(&Ok(Route::Health)), StatusCode::OK);
        }
        let unknown = Operation::of(&Err(Failure::bad_request("x")));
        counters.count(unknown, StatusCode::IM_A_TEAPOT);
        let text = counters.render(2);
        for line in [
            "anello_http_requests_total{operation=\"operators\",status=\"200\"} 3\n",
            "anello_http_requests_total{operation=\"unknown\",status=\"0\"} 1\n",
            "anello_http_connections 2\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn operations_are_named_in_their_order() {
        for (at, (operation, _)) in Operation::NAMES.iter().enumerate() {
            assert_eq!(*operation as usize, at);
        }
    }
}
