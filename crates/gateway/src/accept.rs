//! What form of answer a reader asks for: the `Accept` header.
//!
//! JSON, unless the bytes are asked for by their own name: a wildcard asks for nothing in particular.

use actix_web::http::header::{ACCEPT, HeaderMap};

/// The form of a single value in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A JSON object.
    Json,
    /// The value itself.
    Bytes,
}

/// Reads the header.
pub(crate) fn form(headers: &HeaderMap) -> Form {
    let mut json = None;
    let mut bytes = None;
    let ranges = headers.get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    for (position, range) in ranges.flat_map(|value| value.split(',')).enumerate() {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        // The heavier wins; of equal ones, the earlier.
        let rank = (weight(parts), std::cmp::Reverse(position));
        if media.eq_ignore_ascii_case("application/octet-stream") {
            bytes = bytes.max(Some(rank));
        } else if media.eq_ignore_ascii_case("application/json") {
            json = json.max(Some(rank));
        }
    }
    match bytes {
        Some((weight, _)) if weight > 0 && bytes > json => Form::Bytes,
        _ => Form::Json,
    }
}

/// The `q` among a media range's parameters, in thousandths; 1 where there is none.
fn weight<'a>(parameters: impl Iterator<Item = &'a str>) -> u32 {
    let q =
        parameters.filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
            let value: f32 = value.trim().parse().ok()?;
            name.trim().eq_ignore_ascii_case("q").then_some(value)
        });
    (q.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn bytes_only_for_those_who_name_them() {
        for (accept, expected) in [
            ("application/octet-stream", Form::Bytes),
            ("Application/Octet-Stream", Form::Bytes),
            ("application/octet-stream, */*;q=0.8", Form::Bytes),
            ("text/html, application/octet-stream;q=0.5", Form::Bytes),
            ("application/octet-stream, application/json", Form::Bytes),
            ("application/json, application/octet-stream", Form::Json),
            ("application/json;q=0.5, application/octet-stream; q=0.9", Form::Bytes),
            ("application/octet-stream;q=0", Form::Json),
            ("application/octet-stream;q=0.1, application/json", Form::Json),
            ("application/json", Form::Json),
            ("application/*", Form::Json),
            ("*/*", Form::Json),
            ("", Form::Json),
            (";;,=;q=x", Form::Json),
            ("application/octet-stream;q=nan", Form::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(form(&headers), expected, "{accept}");
        }
        assert_eq!(form(&HeaderMap::new()), Form::Json);
    }
}
