//! JSON into types, with the path of a field of the wrong form.

use serde_json::Value;

use super::error::{Result, RuntimeError};

/// JSON into a type of the runtime-spec.
pub(super) fn typed<T: serde::de::DeserializeOwned>(value: Value, what: &str) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|err| {
        let path = err.path().to_string();
        let what = match path.as_str() {
            "." => what.to_owned(),
            path => format!("{what}: {path}"),
        };
        RuntimeError::json(what, err.into_inner())
    })
}
