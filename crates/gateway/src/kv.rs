//! Requests for keys: what they ask of the coordinator, and with what deadline.

use std::time::Duration;

use actix_web::{HttpResponse, dev::RequestHead};
use anello_protocol::{
    message::client::{Get, RequestOptions, Write},
    version::{Content, WriteId},
};
use anello_transport::{CallContext, TraceContext};

use crate::{
    accept,
    answer::{self, SiblingsBody, ValueBody, WrittenBody},
    backend::Backend,
    body::{Body, Expected},
    error::{Effect, ErrorBody, ErrorCode, Failure},
    operators, options,
    put::{self, PutBody},
    route::Place,
};

/// How much longer than the request may take its coordinator is waited for: at the deadline it says
/// itself how many answered, which is worth more than silence.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Reads a key.
#[utoipa::path(
    method(get, head), path = "/kv/{key}", tag = "keys",
    params(
        ("key" = String, Path, description = "1 to 1,024 bytes of any kind, percent-encoded"),
        ("Accept" = Option<String>, Header, description = "application/octet-stream asks for the value itself"),
    ),
    responses(
        (status = 200, description = "One version. `HEAD` gets the headers only", content(
            (ValueBody<'_> = "application/json"), ("application/octet-stream"),
        )),
        (status = 300, description = "Concurrent versions: a write with this context settles them", body = SiblingsBody<'_>),
        (status = 404, description = "`not_found`, with a context if the key was deleted; `no_such_keyspace`", body = ErrorBody),
    ),
)]
pub(crate) async fn read(
    backend: &Backend,
    head: &RequestHead,
    place: Place,
) -> Result<HttpResponse, Failure> {
    let (options, trace) = carried(head)?;
    let context = context(&options, trace);
    let message = Get { keyspace: place.keyspace, key: place.key, options };
    let answer = backend.get.call(message, context).await;
    let answer = answer.map_err(|error| Failure::from_call(error, Effect::Reads))?;
    operators::check_served(backend, head, &answer.result).await?;
    Ok(answer::found(answer, accept::form(head.headers())))
}

/// Stores a value. With a context it replaces exactly the versions that the context covers; without
/// one it is concurrent with all that is there.
#[utoipa::path(
    put, path = "/kv/{key}", tag = "keys",
    params(
        ("key" = String, Path, description = "1 to 1,024 bytes of any kind, percent-encoded"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 64 printable characters: a retry that carries the same is the same write"),
        ("Anello-Context" = Option<String>, Header, description = "What the writer had seen"),
    ),
    request_body(
        description = "JSON, or with any other content type the value itself, up to 1,048,576 bytes",
        content((PutBody<'_> = "application/json"), ("application/octet-stream")),
    ),
    responses(
        (status = 200, description = "Kept", body = WrittenBody<'_>),
        (status = 413, description = "`value_too_large`", body = ErrorBody),
    ),
)]
pub(crate) async fn store(
    backend: &Backend,
    head: &RequestHead,
    body: &mut Body,
    place: Place,
) -> Result<HttpResponse, Failure> {
    // All that the head can be refused for comes before the first byte of the body.
    let (options, trace) = carried(head)?;
    let write_id = options::write_id(head.headers())?;
    let header = options::context(head.headers())?;
    let expected = Expected::of_value(head)?;
    let body = body.read(expected, head).await?;
    let put::Stored { value, context: token } = put::parse(expected, body, header)?;
    let context = context(&options, trace);
    let message = Write {
        keyspace: place.keyspace,
        key: place.key,
        content: Content::Value(value),
        context: token,
        write_id: write_id.unwrap_or_else(|| WriteId(rand::random())),
        is_named: write_id.is_some(),
        options,
    };
    let answer = backend.write.call(message, context).await;
    let answer = answer.map_err(|error| Failure::from_call(error, Effect::Writes))?;
    operators::check_served(backend, head, &answer.result).await?;
    Ok(answer::stored(answer))
}

/// Deletes what the context covers; without one, what the coordinator's read quorum shows.
#[utoipa::path(
    delete, path = "/kv/{key}", tag = "keys",
    params(
        ("key" = String, Path, description = "1 to 1,024 bytes of any kind, percent-encoded"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 64 printable characters: a retry that carries the same is the same write"),
        ("Anello-Context" = Option<String>, Header, description = "What the writer had seen"),
    ),
    responses((status = 204, description = "Deleted, also where there was nothing")),
)]
pub(crate) async fn delete(
    backend: &Backend,
    head: &RequestHead,
    body: &mut Body,
    place: Place,
) -> Result<HttpResponse, Failure> {
    let (options, trace) = carried(head)?;
    let write_id = options::write_id(head.headers())?;
    let token = options::context(head.headers())?;
    // A context in a body would be overlooked, and more be deleted than was meant.
    body.read(Expected::Nothing, head).await?;
    let context = context(&options, trace);
    let message = Write {
        keyspace: place.keyspace,
        key: place.key,
        content: Content::Tombstone,
        context: token,
        write_id: write_id.unwrap_or_else(|| WriteId(rand::random())),
        is_named: write_id.is_some(),
        options,
    };
    let answer = backend.write.call(message, context).await;
    let answer = answer.map_err(|error| Failure::from_call(error, Effect::Writes))?;
    operators::check_served(backend, head, &answer.result).await?;
    Ok(answer::deleted(answer))
}

/// What a request's head says of how it is to be carried out, and the trace that it joins.
fn carried(head: &RequestHead) -> Result<(RequestOptions, Option<TraceContext>), Failure> {
    if head.uri.query().is_some() {
        let message = "requests for keys have no query: a '?' in a key is %3F";
        return Err(Failure::new(ErrorCode::BadKey, message));
    }
    let mut options = options::options(&head.method, head.headers())?;
    let trace = options::trace(head.headers());
    options.trace_id = trace.as_ref().map(|trace| trace.trace_id);
    Ok((options, trace))
}

/// What the call carries. The request's time begins here, when all of it is there.
fn context(options: &RequestOptions, trace: Option<TraceContext>) -> CallContext {
    let time = Duration::from_millis(options.timeout_ms.into()) + LAST_WORD;
    CallContext::within(time).traced(trace)
}
