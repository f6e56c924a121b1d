//! A field's value as a WSGI application sees it: one value, however often a client sent the field.

use http::{HeaderMap, HeaderName};
use std::borrow::Cow;

/// The value; several are joined with `,` as a WSGI server does, so that two are one odd one and never a choice.
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let mut joined = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(joined))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_value_is_lost(values in proptest::collection::vec("[a-z ]{0,8}", 0..5)) {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(header::ORIGIN, HeaderValue::from_str(value).unwrap());
            }
            let expected = (!values.is_empty()).then(|| values.join(",").into_bytes());
            prop_assert_eq!(joined(&headers, &header::ORIGIN).map(Cow::into_owned), expected);
        }
    }
}
