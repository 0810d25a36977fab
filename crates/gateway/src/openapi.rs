//! The OpenAPI 3.1 description of the HTTP API, made from the handlers and the types of their bodies.
//!
//! What all requests for keys have in common is said once here: the headers that say how, the errors
//! that any of them may meet, and the second form of their path.

use std::sync::LazyLock;

use actix_web::{HttpResponse, http::header::ContentType};
use utoipa::{
    OpenApi,
    openapi::{
        Object, Ref, RefOr, Required, Response, ResponseBuilder, Type,
        content::ContentBuilder,
        header::HeaderBuilder,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
    },
};

use crate::{error::ErrorBody, kv, metrics, operators, receipt::ReceiptBody};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Anello",
        description = "A replicated key-value store: any node answers any request. Every error is \
                       JSON with a code and a sentence.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "keys", description = "Reading and writing"),
        (name = "keyspaces", description = "How keys are replicated"),
        (name = "operators", description = "How the node and the cluster are"),
    ),
    paths(
        kv::read,
        kv::store,
        kv::delete,
        operators::health,
        operators::readiness,
        metrics::metrics,
        openapi,
        operators::cluster,
        operators::ring,
        operators::status,
        operators::repair,
        operators::leave,
        operators::remove_node,
        operators::keyspaces,
        operators::keyspace,
        operators::set_keyspace,
        operators::drop_keyspace,
    ),
    components(schemas(ReceiptBody)),
)]
struct Described;

/// This description.
#[utoipa::path(
    method(get, head), path = "/openapi.json", tag = "operators",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
)]
fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = Described::openapi();
    let paths = &mut document.paths.paths;
    for (path, item) in paths.iter_mut() {
        if let Some(head) = &mut item.head {
            head.operation_id = head.operation_id.take().map(|id| format!("{id}_head"));
        }
        for operation in operations(item) {
            add_errors(operation, path);
            if path == "/kv/{key}" {
                describe_key_request(operation);
            }
        }
        for operation in [&mut item.put, &mut item.delete].into_iter().flatten() {
            add_error(operation, "408", "`bad_request`: the body did not arrive in time");
        }
    }
    if let Some(keys) = paths.get("/kv/{key}").cloned() {
        paths.insert("/keyspaces/{keyspace}/kv/{key}".into(), in_keyspace(keys));
    }
    document
}

/// How a request for a key is to be carried out.
const HEADERS: [(&str, &str); 8] = [
    (
        "Anello-Consistency",
        "one, two, three, quorum, all, local_one, local_quorum, each_quorum (writes only)",
    ),
    ("R", "How many replicas must answer a read; wins over Anello-Consistency"),
    ("W", "How many replicas must acknowledge a write; wins over Anello-Consistency"),
    ("Anello-Quorum", "sloppy (the default: stand-ins count) or strict"),
    ("Anello-Timeout-Ms", "1 to 60000; 2000 if left out"),
    ("Anello-Explain", "true: the answer carries Anello-Receipt"),
    ("traceparent", "The trace that the request joins (W3C Trace Context)"),
    ("tracestate", "What tracing systems want carried with it"),
];

fn describe_key_request(operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    parameters.extend(
        HEADERS.map(|(name, description)| parameter(name, ParameterIn::Header, description)),
    );
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if matches!(status.as_str(), "200" | "204" | "300" | "404") {
            add_header(response, "Anello-Context", "What the reader or writer has seen with it");
        }
        // What the gateway refuses by itself never comes to a coordinator, whose receipt it is.
        if !matches!(status.as_str(), "408" | "413" | "431") {
            let description = "With Anello-Explain: who took part, one line of JSON (ReceiptBody)";
            add_header(response, "Anello-Receipt", description);
        }
    }
}

fn add_header(response: &mut Response, name: &str, description: &str) {
    let header = HeaderBuilder::new().schema(Some(Object::with_type(Type::String)));
    let header = header.description(Some(description)).build();
    response.headers.insert(name.into(), header.into());
}

fn add_errors(operation: &mut Operation, path: &str) {
    let asks_nobody = matches!(path, "/healthz" | "/metrics" | "/openapi.json" | "/readyz");
    let errors = [
        ("400", "`bad_key`, `bad_context`, `bad_consistency`, `bad_request`"),
        ("404", "`not_found`, `no_such_keyspace`"),
        ("429", "`overloaded`, with Retry-After: nothing was written"),
        ("503", "`unavailable`: too few can be reached to try, nothing was sent"),
        (
            "504",
            "`timeout`: too few answered in time; a write, if it was one, may or may not have been kept",
        ),
    ];
    for (status, description) in errors {
        let keyless = status == "404" && !path.contains("{key}");
        if !asks_nobody && !keyless {
            add_error(operation, status, description);
        }
    }
    add_error(operation, "431", "`bad_request`: the path and headers are too long");
}

/// Describes an error, unless the operation itself has done so.
fn add_error(operation: &mut Operation, status: &str, description: &str) {
    let responses = &mut operation.responses.responses;
    if responses.contains_key(status) {
        return;
    }
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(error_name()))).build();
    let response = ResponseBuilder::new().description(description);
    let mut response = response.content("application/json", content).build();
    if status == "429" {
        add_header(&mut response, "Retry-After", "Seconds after which to ask again");
    }
    responses.insert(status.into(), response.into());
}

fn error_name() -> String {
    <ErrorBody as utoipa::ToSchema>::name().into_owned()
}

fn in_keyspace(mut item: PathItem) -> PathItem {
    for operation in operations(&mut item) {
        let keyspace = parameter("keyspace", ParameterIn::Path, "`[a-z][a-z0-9_-]{0,62}`");
        operation.parameters.get_or_insert_default().insert(0, keyspace);
        operation.operation_id =
            operation.operation_id.take().map(|id| format!("{id}_in_keyspace"));
    }
    item
}

fn parameter(name: &str, place: ParameterIn, description: &str) -> RefOr<Parameter> {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(description))
        .schema(Some(Object::with_type(Type::String)))
        .build()
        .into()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.head, &mut item.put, &mut item.post, &mut item.delete]
        .into_iter()
        .flatten()
}

/// The answer to `GET /openapi.json`.
pub(crate) fn document() -> HttpResponse {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        openapi().to_json().expect("a description of strings, numbers and maps is JSON")
    });
    HttpResponse::Ok().content_type(ContentType::json()).body(DOCUMENT.as_str())
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::route::route;

    fn described() -> Json {
        serde_json::to_value(openapi()).unwrap()
    }

    #[test]
    fn every_described_operation_is_served() {
        for (path, item) in described()["paths"].as_object().unwrap() {
            let concrete = path
                .replace("{keyspace}", "carts")
                .replace("{key}", "a")
                .replace("{name}", "carts")
                .replace("{id}", "eu-a-1");
            for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                assert!(route(&method, &concrete).is_ok(), "{method} {path}");
            }
        }
    }

    #[test]
    fn every_served_operation_is_described() {
        let described = described();
        let read = ["get", "head"].as_slice();
        let change = ["get", "head", "put", "delete"].as_slice();
        for (path, methods) in [
            ("/kv/{key}", change),
            ("/keyspaces/{keyspace}/kv/{key}", change),
            ("/admin/keyspaces/{name}", change),
            ("/admin/keyspaces", read),
            ("/admin/cluster", read),
            ("/admin/ring", read),
            ("/admin/status", read),
            ("/admin/antientropy", &["post"]),
            ("/admin/leave", &["post"]),
            ("/admin/nodes/{id}/remove", &["post"]),
            ("/healthz", read),
            ("/readyz", read),
            ("/metrics", read),
            ("/openapi.json", read),
        ] {
            for method in methods {
                assert!(described["paths"][path][method].is_object(), "{method} {path}");
            }
        }
        assert_eq!(described["paths"].as_object().unwrap().len(), 14);
    }

    fn operations_of(described: &Json) -> impl Iterator<Item = (String, &Json)> {
        described["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let described = described();
        let mut names = std::collections::BTreeSet::new();
        for (operation, described) in operations_of(&described) {
            let name = described["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{operation}: {name}");
        }
        assert_eq!(names.len(), 31);
    }

    #[test]
    fn errors_are_described_with_their_headers() {
        let described = described();
        for (name, operation) in operations_of(&described) {
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("431"), "{name}");
            let reads_body = name.starts_with("put") || name.starts_with("delete");
            assert_eq!(responses.contains_key("408"), reads_body, "{name}");
            assert_eq!(responses.contains_key("413"), name.starts_with("put"), "{name}");
            for (status, response) in responses {
                let says = |header: &str| response["headers"].get(header).is_some();
                assert_eq!(says("Retry-After"), status == "429", "{name} {status}");
                let explained =
                    name.contains("{key}") && !matches!(status.as_str(), "408" | "413" | "431");
                assert_eq!(says("Anello-Receipt"), explained, "{name} {status}");
            }
        }
    }

    #[test]
    fn bodies_are_described_as_they_are_read() {
        let described = described();
        let put = &described["paths"]["/kv/{key}"]["put"];
        let bytes = |content: &Json| content["application/octet-stream"].clone();
        // In OpenAPI 3.1, bytes are what has no schema.
        assert_eq!(bytes(&put["requestBody"]["content"]), json!({}));
        let get = &described["paths"]["/kv/{key}"]["get"];
        assert_eq!(bytes(&get["responses"]["200"]["content"]), json!({}));

        let body = &described["components"]["schemas"]["PutBody"];
        assert_eq!(body["required"], json!(["value"]));
        for field in ["context", "encoding"] {
            let text = body["properties"][field].to_string();
            assert!(text.contains(r#""null""#), "{field}: {text}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk<'a>(json: &'a Json, found: &mut Vec<&'a str>) {
            match json {
                Json::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Json::as_str));
                    fields.values().for_each(|value| walk(value, found));
                }
                Json::Array(items) => items.iter().for_each(|item| walk(item, found)),
                _ => {}
            }
        }
        let described = described();
        assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut references = vec![];
        walk(&described, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(described.pointer(pointer).is_some(), "{reference}");
        }
    }
}
