//! What a read found: as JSON like the HTTP API's, and for people.

use anello_client::{Read, Sibling};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// The document that the HTTP API answers.
pub(super) fn json(found: &Read) -> Value {
    match found {
        Read::One { value, context } => {
            let mut document = version(value);
            document["context"] = context.as_str().into();
            document
        }
        Read::Siblings { siblings, context } => {
            let versions: Vec<_> = siblings
                .iter()
                .map(|sibling| match sibling {
                    Sibling::Value(value) => version(value),
                    Sibling::Deleted => json!({ "deleted": true }),
                })
                .collect();
            json!({ "versions": versions, "context": context.as_str() })
        }
        Read::Deleted { context } => json!({ "error": "not_found", "context": context.as_str() }),
        Read::Missing => json!({ "error": "not_found" }),
    }
}

fn version(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => json!({ "value": text, "encoding": "utf-8" }),
        Err(_) => json!({ "value": STANDARD.encode(value), "encoding": "base64" }),
    }
}

/// Every sibling with its number. What is no text, or would play with the terminal, is escaped.
pub(super) fn numbered(siblings: &[Sibling]) -> String {
    let lines = siblings.iter().enumerate().map(|(at, sibling)| match sibling {
        Sibling::Value(value) => format!("[{}] {}", at + 1, printable(value)),
        Sibling::Deleted => format!("[{}] (deleted)", at + 1),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn printable(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => text.into(),
        _ => value.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use anello_client::Context;

    use super::*;

    #[test]
    fn documents_are_those_of_the_http_api() {
        let context = || Context::from_text("c");
        let one = |value: &'static [u8]| Read::One { value: value.into(), context: context() };
        assert_eq!(
            json(&one(b"hello")),
            json!({ "value": "hello", "encoding": "utf-8", "context": "c" })
        );
        assert_eq!(
            json(&one(b"\xff\x00")),
            json!({ "value": "/wA=", "encoding": "base64", "context": "c" })
        );
        let siblings = vec![Sibling::Value("a".into()), Sibling::Deleted];
        assert_eq!(
            json(&Read::Siblings { siblings, context: context() }),
            json!({
                "versions": [{ "value": "a", "encoding": "utf-8" }, { "deleted": true }],
                "context": "c",
            })
        );
        assert_eq!(json(&Read::Missing), json!({ "error": "not_found" }));
    }

    #[test]
    fn a_value_cant_play_with_the_terminal() {
        let siblings = [Sibling::Value("\x1b[2J".into()), Sibling::Value("ü".into())];
        assert_eq!(numbered(&siblings), "[1] \\x1b[2J\n[2] ü");
    }
}
