//! `whoami`: who a client is to doorward, by which scheme, and until when.

use crate::accept::head::Head;
use crate::respond::body::{Body, detail_json};
use crate::respond::own_answer;
use crate::throttle::Admitted;
use crate::trace::{Reason, Trace};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// Answers a request.
pub fn answer(admitted: &Admitted, head: &Head, trace: &mut Trace) -> Response<Body> {
    let (status, json) = match head.method {
        Method::GET | Method::HEAD | Method::OPTIONS => {
            (StatusCode::OK, Bytes::from(description(admitted).to_string()))
        }
        _ => {
            trace.reason = Reason::MethodNotAllowed;
            let text = format!("Method \"{}\" not allowed.", head.method);
            (StatusCode::METHOD_NOT_ALLOWED, detail_json(&text))
        }
    };
    let mut answer = own_answer(status, json, head.request_id);
    answer.headers_mut().insert(header::ALLOW, ALLOW);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Somebody who is nobody has no name; times are in seconds since 1970, `null`: until it is revoked.
fn description(admitted: &Admitted) -> Value {
    let identity = admitted.identity();
    let user = identity.map(|identity| &identity.user.user);
    let groups = user.map(|user| &*user.groups).unwrap_or_default();
    json!({
        "user": user.map(|user| &*user.username),
        "groups": groups.iter().map(|group| &**group).collect::<Vec<_>>(),
        "staff": user.is_some_and(|user| user.is_staff),
        "scheme": identity.map(|identity| identity.scheme.name()),
        "credential": identity.map(|identity| identity.credential.to_string()),
        "expires": identity.and_then(|identity| identity.expires).map(|expires| expires.0),
    })
}
