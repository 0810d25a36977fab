//! From a request to its answer: the one place through which every request goes.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    dev::{Payload, RequestHead},
};

use crate::{
    acceptor::Shared,
    backend::Backend,
    body::{Body, Expected},
    error::{ErrorCode, Failure},
    kv,
    metrics::{self, Operation},
    openapi, operators,
    route::{Route, route},
};

/// What a worker answers requests with.
pub(crate) struct Service {
    /// Whom it asks.
    pub(crate) backend: Backend,
    /// What it shares with the node's other workers.
    pub(crate) shared: Arc<Shared>,
}

impl Service {
    /// Answers a request; `fragment` says whether its target holds a `#`.
    pub(crate) async fn answer(
        &self,
        head: &RequestHead,
        fragment: bool,
        payload: Payload,
    ) -> HttpResponse {
        let mut body = Body::new(head, payload, &self.shared.bodies);
        let route = whole(route(&head.method, head.uri.path()), fragment);
        let operation = Operation::of(&route);
        let answer = match route {
            Ok(route) => self.perform(route, head, &mut body).await,
            Err(failure) => Err(failure),
        };
        let response = answer.unwrap_or_else(Failure::response);
        self.shared.counters.count(operation, response.status());
        body.leave_to(response)
    }

    async fn perform(
        &self,
        route: Route,
        head: &RequestHead,
        body: &mut Body,
    ) -> Result<HttpResponse, Failure> {
        let backend = &self.backend;
        match route {
            Route::Read(place) => kv::read(backend, head, place).await,
            Route::Store(place) => kv::store(backend, head, body, place).await,
            Route::Delete(place) => kv::delete(backend, head, body, place).await,
            Route::Health => Ok(operators::health()),
            Route::Readiness => operators::readiness(backend, head).await,
            Route::Metrics => {
                Ok(metrics::metrics(&self.shared.counters, self.shared.connections()))
            }
            Route::OpenApi => Ok(openapi::document()),
            Route::Cluster => operators::cluster(backend, head).await,
            Route::Ring => operators::ring(backend, head).await,
            Route::Status => operators::status(backend, head).await,
            Route::Repair => operators::repair(backend, head, body).await,
            Route::Leave => operators::leave(backend, head, body).await,
            Route::RemoveNode(node) => operators::remove_node(backend, head, body, node).await,
            Route::Keyspaces => operators::keyspaces(backend, head).await,
            Route::Keyspace(name) => operators::keyspace(backend, head, name).await,
            Route::SetKeyspace(name) => operators::set_keyspace(backend, head, body, name).await,
            Route::DropKeyspace(name) => operators::drop_keyspace(backend, head, body, name).await,
        }
    }
}

/// Judges a request by its head alone, before a client that asks first (`Expect: 100-continue`) is
/// told to send its body.
pub(crate) fn admit(head: &RequestHead, fragment: bool) -> Result<(), Failure> {
    let expected = match whole(route(&head.method, head.uri.path()), fragment)? {
        Route::Store(_) => Expected::of_value(head)?,
        Route::SetKeyspace(_) => Expected::AdminJson,
        Route::Delete(_)
        | Route::DropKeyspace(_)
        | Route::Repair
        | Route::Leave
        | Route::RemoveNode(_) => Expected::Nothing,
        _ => return Ok(()),
    };
    expected.check_announced(head)
}

/// Refuses a target with a `#`. The head has only what came before it, which would be another key.
fn whole(route: Result<Route, Failure>, fragment: bool) -> Result<Route, Failure> {
    match route {
        Ok(Route::Read(_) | Route::Store(_) | Route::Delete(_)) if fragment => {
            Err(Failure::new(ErrorCode::BadKey, "a '#' in a key is sent as %23"))
        }
        Ok(_) if fragment => Err(Failure::bad_request("a '#' in a target is sent as %23")),
        route => route,
    }
}
