//! Requests for operators: health, the cluster, the ring, keyspaces, the node's figures.

use std::{collections::BTreeMap, time::Duration};

use actix_web::{HttpResponse, dev::RequestHead};
use anello_protocol::{
    cluster::ClusterState,
    id::{Epoch, KeyspaceName, NodeId},
    message::{
        Message,
        admin::{
            AlterKeyspace, AlterRing, DescribeCluster, DescribeNode, FetchCluster, KeyspaceChange,
            RingRequest, StartRepair,
        },
        client::RequestError,
    },
};
use anello_transport::{ActorRef, CallContext};

use crate::{
    admin::{self, BegunBody, ClusterBody, OkBody, RingBody},
    backend::Backend,
    body::{Body, Expected},
    error::{Effect, ErrorBody, ErrorCode, Failure},
    keyspaces::{KeyspaceBody, KeyspaceChangeBody},
    options,
    status::{RepairBody, StatusBody},
};

/// How long what the node knows itself may take.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// How long it may take to find the reason for an answer that is there already.
const GLANCE_MAX: Duration = Duration::from_millis(100);
/// How long the members may take to agree.
const AGREE_MAX: Duration = Duration::from_secs(10);

async fn ask<M: Message>(
    actor: &ActorRef<M>,
    message: M,
    head: &RequestHead,
    (time, effect): (Duration, Effect),
) -> Result<M::Reply, Failure> {
    let context = CallContext::within(time).traced(options::trace(head.headers()));
    actor.call(message, context).await.map_err(|error| Failure::from_call(error, effect))
}

const LOOK: (Duration, Effect) = (LOOK_MAX, Effect::Reads);
const AGREE: (Duration, Effect) = (AGREE_MAX, Effect::Writes);

/// Whether the process works.
#[utoipa::path(
    method(get, head), path = "/healthz", tag = "operators",
    responses((status = 200, description = "It does", body = OkBody)),
)]
pub(crate) fn health() -> HttpResponse {
    HttpResponse::Ok().json(OkBody::OK)
}

/// Whether the node serves requests.
#[utoipa::path(
    method(get, head), path = "/readyz", tag = "operators",
    responses(
        (status = 200, description = "It does", body = OkBody),
        (status = 503, description = "`not_ready`, with the reason", body = ErrorBody),
    ),
)]
pub(crate) async fn readiness(
    backend: &Backend,
    head: &RequestHead,
) -> Result<HttpResponse, Failure> {
    match not_ready(backend, head).await {
        None => Ok(HttpResponse::Ok().json(OkBody::OK)),
        Some(reason) => Err(Failure::new(ErrorCode::NotReady, reason)),
    }
}

/// Why the node does not serve requests, if it doesn't.
async fn not_ready(backend: &Backend, head: &RequestHead) -> Option<String> {
    let context = CallContext::within(LOOK_MAX).traced(options::trace(head.headers()));
    match backend.cluster.call(DescribeCluster {}, context).await {
        Ok(view) => view.not_ready,
        Err(error) => Some(format!("the node's membership does not answer: {error}")),
    }
}

/// Finds out whether a request came to nothing because the node does not serve any yet.
///
/// A coordinator without a cluster says of every key that one replica is needed and none alive, which
/// tells nobody what is the matter. Where membership doesn't say more at once, that has to do.
pub(crate) async fn check_served<T>(
    backend: &Backend,
    head: &RequestHead,
    result: &Result<T, RequestError>,
) -> Result<(), Failure> {
    if !matches!(result, Err(RequestError::Unavailable { required: 1, alive: 0 })) {
        return Ok(());
    }
    let context = CallContext::within(GLANCE_MAX).traced(options::trace(head.headers()));
    let view = backend.cluster.call(DescribeCluster {}, context).await;
    match view.ok().and_then(|view| view.not_ready) {
        None => Ok(()),
        Some(reason) => {
            let message = format!("the node does not serve requests yet: {reason}");
            Err(Failure::not_serving(message))
        }
    }
}

/// The cluster as this node sees it.
#[utoipa::path(
    method(get, head), path = "/admin/cluster", tag = "operators",
    responses((status = 200, description = "The nodes", body = ClusterBody)),
)]
pub(crate) async fn cluster(
    backend: &Backend,
    head: &RequestHead,
) -> Result<HttpResponse, Failure> {
    let view = ask(&backend.cluster, DescribeCluster {}, head, LOOK).await?;
    let state = ask(&backend.fetch, FetchCluster { have: Epoch(0) }, head, LOOK).await?;
    let change = state.and_then(|state| state.change);
    Ok(HttpResponse::Ok().json(ClusterBody::new(view, change.as_deref())))
}

/// Where a key lives.
#[utoipa::path(
    method(get, head), path = "/admin/ring", tag = "operators",
    params(
        ("key" = String, Query, description = "The key, percent-encoded as in a path"),
        ("keyspace" = Option<String>, Query, description = "Its keyspace; `default` if left out"),
    ),
    responses(
        (status = 200, description = "Its replicas, and who stands in for them", body = RingBody),
        (status = 404, description = "`no_such_keyspace`", body = ErrorBody),
    ),
)]
pub(crate) async fn ring(backend: &Backend, head: &RequestHead) -> Result<HttpResponse, Failure> {
    let message = admin::ring_query(head.uri.query().unwrap_or_default())?;
    let location = ask(&backend.locate, message, head, LOOK).await?;
    check_served(backend, head, &location).await?;
    let location = location.map_err(|error| Failure::from_request(error, Effect::Reads))?;
    Ok(HttpResponse::Ok().json(RingBody::from(location)))
}

/// This node's own figures.
#[utoipa::path(
    method(get, head), path = "/admin/status", tag = "operators",
    responses((status = 200, description = "The figures", body = StatusBody)),
)]
pub(crate) async fn status(backend: &Backend, head: &RequestHead) -> Result<HttpResponse, Failure> {
    let status = ask(&backend.status, DescribeNode {}, head, LOOK).await?;
    Ok(HttpResponse::Ok().json(StatusBody::from(status)))
}

/// Compares all that this node holds with the other replicas, from now on.
#[utoipa::path(
    post, path = "/admin/antientropy", tag = "operators",
    responses((status = 202, description = "It has begun; `/admin/status` says how far it is", body = RepairBody)),
)]
pub(crate) async fn repair(
    backend: &Backend,
    head: &RequestHead,
    body: &mut Body,
) -> Result<HttpResponse, Failure> {
    body.read(Expected::Nothing, head).await?;
    let started = ask(&backend.repair, StartRepair {}, head, LOOK).await?;
    Ok(HttpResponse::Accepted().json(RepairBody::from(started)))
}

/// This node hands over what it holds, and leaves the cluster for good.
#[utoipa::path(
    post, path = "/admin/leave", tag = "operators",
    responses(
        (status = 202, description = "It has begun; `change` of `/admin/cluster` says how far it is, and the node ends once it is through", body = BegunBody),
        (status = 409, description = "`conflict`: another change of the ring is under way", body = ErrorBody),
    ),
)]
pub(crate) async fn leave(
    backend: &Backend,
    head: &RequestHead,
    body: &mut Body,
) -> Result<HttpResponse, Failure> {
    body.read(Expected::Nothing, head).await?;
    let state = agreed(backend, head).await?;
    alter_ring(backend, head, &state, RingRequest::Leave(backend.node.clone())).await
}

/// Takes a dead node out of the cluster for good; the others copy what it held from each other.
#[utoipa::path(
    post, path = "/admin/nodes/{id}/remove", tag = "operators",
    params(("id" = String, Path, description = "The node's name")),
    responses(
        (status = 202, description = "It has begun; `change` of `/admin/cluster` says how far it is", body = BegunBody),
        (status = 404, description = "`not_found`: there is no such node, and there was none", body = ErrorBody),
        (status = 409, description = "`conflict`: another change of the ring is under way", body = ErrorBody),
    ),
)]
pub(crate) async fn remove_node(
    backend: &Backend,
    head: &RequestHead,
    body: &mut Body,
    node: NodeId,
) -> Result<HttpResponse, Failure> {
    body.read(Expected::Nothing, head).await?;
    let state = agreed(backend, head).await?;
    if !state.members.contains_key(&node) && !state.removed.contains(&node) {
        let known: Vec<&str> = state.members.keys().map(NodeId::as_str).collect();
        return Err(Failure::no_such_node(format!(
            "{node} is no member of the cluster; members are: {}",
            known.join(", ")
        )));
    }
    alter_ring(backend, head, &state, RingRequest::Remove(node)).await
}

async fn alter_ring(
    backend: &Backend,
    head: &RequestHead,
    state: &ClusterState,
    change: RingRequest,
) -> Result<HttpResponse, Failure> {
    let began = match &change {
        RingRequest::Leave(node) => format!("{node} leaving"),
        RingRequest::Remove(node) => format!("{node} being removed"),
        RingRequest::Replace { old, new } => format!("{new} taking the place of {old}"),
        RingRequest::Weigh { node, .. } => format!("another weight for {node}"),
    };
    let agreed = ask(&backend.alter_ring, AlterRing { change }, head, AGREE).await?;
    let epoch = agreed.map_err(|error| Failure::from_alter(error, majority(state)))?;
    Ok(HttpResponse::Accepted().json(BegunBody::new(epoch, began)))
}

/// How many of the members have to agree.
fn majority(state: &ClusterState) -> u16 {
    u16::try_from(state.voters().count() / 2 + 1).unwrap_or(u16::MAX)
}

/// All keyspaces, by their names.
#[utoipa::path(
    method(get, head), path = "/admin/keyspaces", tag = "keyspaces",
    responses((status = 200, description = "The keyspaces, by name", body = BTreeMap<String, KeyspaceBody>)),
)]
pub(crate) async fn keyspaces(
    backend: &Backend,
    head: &RequestHead,
) -> Result<HttpResponse, Failure> {
    let state = agreed(backend, head).await?;
    let keyspaces = state.keyspaces.iter();
    let bodies: BTreeMap<_, _> = keyspaces
        .map(|(name, keyspace)| (name.as_str(), KeyspaceBody::from(&keyspace.config)))
        .collect();
    Ok(HttpResponse::Ok().json(bodies))
}

/// One keyspace.
#[utoipa::path(
    method(get, head), path = "/admin/keyspaces/{name}", tag = "keyspaces",
    params(("name" = String, Path, description = "`[a-z][a-z0-9_-]{0,62}`")),
    responses(
        (status = 200, description = "The keyspace", body = KeyspaceBody),
        (status = 404, description = "`no_such_keyspace`", body = ErrorBody),
    ),
)]
pub(crate) async fn keyspace(
    backend: &Backend,
    head: &RequestHead,
    name: KeyspaceName,
) -> Result<HttpResponse, Failure> {
    let state = agreed(backend, head).await?;
    let keyspace = state.keyspaces.get(&name).ok_or_else(|| Failure::no_such_keyspace(name))?;
    Ok(HttpResponse::Ok().json(KeyspaceBody::from(&keyspace.config)))
}

/// Creates or alters a keyspace. What is left out stays as it is, or gets its default.
#[utoipa::path(
    put, path = "/admin/keyspaces/{name}", tag = "keyspaces",
    params(("name" = String, Path, description = "`[a-z][a-z0-9_-]{0,62}`")),
    request_body = KeyspaceChangeBody,
    responses(
        (status = 200, description = "Agreed: the keyspace as it is after that", body = KeyspaceBody),
        (status = 404, description = "`no_such_keyspace`: the name is none", body = ErrorBody),
        (status = 409, description = "`conflict`: another change of the ring is under way", body = ErrorBody),
        (status = 413, description = "`bad_request`: no keyspace takes so many bytes", body = ErrorBody),
    ),
)]
pub(crate) async fn set_keyspace(
    backend: &Backend,
    head: &RequestHead,
    body: &mut Body,
    name: KeyspaceName,
) -> Result<HttpResponse, Failure> {
    let change = KeyspaceChangeBody::parse(&body.read(Expected::AdminJson, head).await?)?;
    let state = agreed(backend, head).await?;
    let present = state.keyspaces.get(&name).map(|keyspace| keyspace.config.clone());
    let config = change.applied_to(present.unwrap_or_default())?;
    let body = KeyspaceBody::from(&config);
    alter(backend, head, &state, name, KeyspaceChange::Set(config)).await?;
    Ok(HttpResponse::Ok().json(body))
}

/// Drops a keyspace, with all its data.
#[utoipa::path(
    delete, path = "/admin/keyspaces/{name}", tag = "keyspaces",
    params(("name" = String, Path, description = "`[a-z][a-z0-9_-]{0,62}`")),
    responses(
        (status = 204, description = "Gone"),
        (status = 404, description = "`no_such_keyspace`", body = ErrorBody),
    ),
)]
pub(crate) async fn drop_keyspace(
    backend: &Backend,
    head: &RequestHead,
    body: &mut Body,
    name: KeyspaceName,
) -> Result<HttpResponse, Failure> {
    body.read(Expected::Nothing, head).await?;
    let state = agreed(backend, head).await?;
    alter(backend, head, &state, name, KeyspaceChange::Drop).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn agreed(backend: &Backend, head: &RequestHead) -> Result<ClusterState, Failure> {
    let state = ask(&backend.fetch, FetchCluster { have: Epoch(0) }, head, LOOK).await?;
    state.ok_or_else(|| Failure::not_serving("the node belongs to no cluster yet"))
}

async fn alter(
    backend: &Backend,
    head: &RequestHead,
    state: &ClusterState,
    name: KeyspaceName,
    change: KeyspaceChange,
) -> Result<(), Failure> {
    let agreed = ask(&backend.alter, AlterKeyspace { name, change }, head, AGREE).await?;
    agreed.map(drop).map_err(|error| Failure::from_alter(error, majority(state)))
}
