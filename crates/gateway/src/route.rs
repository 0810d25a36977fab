//! Which request a method and a path are.
//!
//! The one table of what the node serves over HTTP. It works on the path as it came over the wire:
//! see [`crate::path`]. `openapi.rs` describes the same table, and a test holds the two together.

use actix_web::http::Method;
use anello_protocol::{
    id::{KeyspaceName, NodeId},
    key::Key,
};

use crate::{
    error::{ErrorCode, Failure},
    path,
};

/// A request that the node knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `GET`, `HEAD /kv/{key}`
    Read(Place),
    /// `PUT /kv/{key}`
    Store(Place),
    /// `DELETE /kv/{key}`
    Delete(Place),
    /// `GET /healthz`
    Health,
    /// `GET /readyz`
    Readiness,
    /// `GET /metrics`
    Metrics,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /admin/cluster`
    Cluster,
    /// `GET /admin/ring`
    Ring,
    /// `GET /admin/status`
    Status,
    /// `POST /admin/antientropy`
    Repair,
    /// `POST /admin/leave`
    Leave,
    /// `POST /admin/nodes/{id}/remove`
    RemoveNode(NodeId),
    /// `GET /admin/keyspaces`
    Keyspaces,
    /// `GET /admin/keyspaces/{name}`
    Keyspace(KeyspaceName),
    /// `PUT /admin/keyspaces/{name}`
    SetKeyspace(KeyspaceName),
    /// `DELETE /admin/keyspaces/{name}`
    DropKeyspace(KeyspaceName),
}

/// Which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its keyspace.
    pub(crate) keyspace: KeyspaceName,
    /// The key.
    pub(crate) key: Key,
}

const READ: &str = "GET, HEAD";
const CHANGE: &str = "GET, HEAD, PUT, DELETE";
const TRIGGER: &str = "POST";

/// Finds the route of a request.
pub(crate) fn route(method: &Method, raw: &str) -> Result<Route, Failure> {
    if let Some(key) = raw.strip_prefix("/kv/") {
        return data(method, KeyspaceName::default_keyspace(), key);
    }
    if let Some(rest) = raw.strip_prefix("/keyspaces/")
        && let Some((keyspace, rest)) = rest.split_once('/')
        && let Some(key) = rest.strip_prefix("kv/")
    {
        return data(method, path::keyspace(keyspace)?, key);
    }
    if let Some(name) = raw.strip_prefix("/admin/keyspaces/") {
        return keyspace(method, name);
    }
    if let Some(id) = raw.strip_prefix("/admin/nodes/").and_then(|it| it.strip_suffix("/remove")) {
        return trigger(method, Route::RemoveNode(path::node(id)?));
    }
    let route = match raw {
        "/admin/antientropy" => return trigger(method, Route::Repair),
        "/admin/leave" => return trigger(method, Route::Leave),
        "/healthz" => Route::Health,
        "/readyz" => Route::Readiness,
        "/metrics" => Route::Metrics,
        "/openapi.json" => Route::OpenApi,
        "/admin/cluster" => Route::Cluster,
        "/admin/ring" => Route::Ring,
        "/admin/status" => Route::Status,
        "/admin/keyspaces" => Route::Keyspaces,
        _ => return Err(unserved(method, raw)),
    };
    if is_read(method) { Ok(route) } else { Err(Failure::method_not_allowed(READ)) }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn trigger(method: &Method, route: Route) -> Result<Route, Failure> {
    if *method == Method::POST { Ok(route) } else { Err(Failure::method_not_allowed(TRIGGER)) }
}

fn data(method: &Method, keyspace: KeyspaceName, key: &str) -> Result<Route, Failure> {
    let of: fn(Place) -> Route = match *method {
        Method::GET | Method::HEAD => Route::Read,
        Method::PUT => Route::Store,
        Method::DELETE => Route::Delete,
        _ => return Err(Failure::method_not_allowed(CHANGE)),
    };
    Ok(of(Place { keyspace, key: path::key(key)? }))
}

fn keyspace(method: &Method, name: &str) -> Result<Route, Failure> {
    let of: fn(KeyspaceName) -> Route = match *method {
        Method::GET | Method::HEAD => Route::Keyspace,
        Method::PUT => Route::SetKeyspace,
        Method::DELETE => Route::DropKeyspace,
        _ => return Err(Failure::method_not_allowed(CHANGE)),
    };
    Ok(of(path::keyspace(name)?))
}

/// A part of the API that is promised and not there yet, and everything else.
fn unserved(method: &Method, raw: &str) -> Failure {
    match raw {
        "/console" if is_read(method) => {
            let message = "this version of the node does not have this part of the API yet";
            Failure::new(ErrorCode::NotImplemented, message)
        }
        "/console" => Failure::method_not_allowed(READ),
        _ => {
            let message = "there is nothing at this path; GET /openapi.json lists what is";
            Failure::new(ErrorCode::NotFound, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(method: Method, raw: &str) -> ErrorCode {
        route(&method, raw).unwrap_err().code()
    }

    #[test]
    fn keys_of_both_forms_are_found() {
        let place = |keyspace: &str, key: &[u8]| Place {
            keyspace: KeyspaceName::new(keyspace).unwrap(),
            key: Key::new(key.to_vec()).unwrap(),
        };
        assert_eq!(route(&Method::GET, "/kv/a"), Ok(Route::Read(place("default", b"a"))));
        assert_eq!(route(&Method::HEAD, "/kv/a"), Ok(Route::Read(place("default", b"a"))));
        assert_eq!(
            route(&Method::PUT, "/keyspaces/carts/kv/a%2Fb"),
            Ok(Route::Store(place("carts", b"a/b")))
        );
        assert_eq!(
            route(&Method::DELETE, "/keyspaces/default/kv/%00"),
            Ok(Route::Delete(place("default", b"\0")))
        );
    }

    #[test]
    fn changes_of_the_ring_are_begun() {
        assert_eq!(route(&Method::POST, "/admin/leave"), Ok(Route::Leave));
        let node = NodeId::new("eu-a-1").unwrap();
        let remove = route(&Method::POST, "/admin/nodes/eu-a-1/remove");
        assert_eq!(remove, Ok(Route::RemoveNode(node)));
    }

    #[test]
    fn what_is_not_there_says_so() {
        for raw in ["/", "/kv", "/healthz/", "/keyspaces", "/keyspaces/a", "/keyspaces/a/x/b", "*"]
        {
            assert_eq!(failed(Method::GET, raw), ErrorCode::NotFound, "{raw}");
        }
        for raw in ["/kv/", "/kv/a/b", "/kv/%", "/keyspaces/a/kv/"] {
            assert_eq!(failed(Method::GET, raw), ErrorCode::BadKey, "{raw}");
        }
        assert_eq!(failed(Method::GET, "/keyspaces/A/kv/x"), ErrorCode::NoSuchKeyspace);
        assert_eq!(failed(Method::GET, "/admin/keyspaces/A"), ErrorCode::NoSuchKeyspace);
        for raw in ["/kv/a", "/admin/keyspaces/a", "/healthz", "/admin/keyspaces"] {
            assert_eq!(failed(Method::POST, raw), ErrorCode::MethodNotAllowed, "{raw}");
        }
        assert_eq!(failed(Method::GET, "/admin/leave"), ErrorCode::MethodNotAllowed);
        assert_eq!(failed(Method::GET, "/admin/nodes/eu-a-1/remove"), ErrorCode::MethodNotAllowed);
        for raw in ["/admin/nodes//remove", "/admin/nodes/a/b/remove", "/admin/nodes/Ä/remove"] {
            assert_eq!(failed(Method::POST, raw), ErrorCode::NotFound, "{raw}");
        }
        assert_eq!(failed(Method::GET, "/console"), ErrorCode::NotImplemented);
    }
}
