//! Docker's `daemon.json`. Pure: text in, text out; what is not ours keeps its place and its form.

use std::path::PathBuf;

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstNode, CstObject, CstRootNode};
use serde_json::{Map, Value, json};

use super::cri::{CLASS, Mistake, OPTIONS_TYPE, RUNTIME_TYPE, Release};

/// The runtime that is the command below runc's shim: the only way before Docker 24.
pub(super) const COMMAND: &str = "elastic-mem-oci";
const RUNTIMES: &str = "runtimes";
const DEFAULT: &str = "default-runtime";
/// From here on a runtime can be named by its shim.
const KNOWS_SHIMS: Release = Release {
    major: 24,
    minor: 0,
};

/// What is to be said in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Runtimes {
    /// The release of Docker; the newest form if it is not known.
    pub(super) release: Option<Release>,
    /// Our command.
    pub(super) command: PathBuf,
    /// Our shim, if containerd does not find it by name.
    pub(super) shim: Option<PathBuf>,
    /// Our configuration file, if it is not where it is looked for anyway.
    pub(super) config: Option<PathBuf>,
    /// Whether containers that name no runtime use ours.
    pub(super) is_default: bool,
}

impl Runtimes {
    fn knows_shims(&self) -> bool {
        self.release.is_none_or(|release| release >= KNOWS_SHIMS)
    }

    /// The runtime that is the default, if one of ours is.
    fn default_name(&self) -> &'static str {
        if self.knows_shims() { CLASS } else { COMMAND }
    }

    /// The entries of `runtimes`, by name.
    fn entries(&self) -> Vec<(&'static str, Value)> {
        let mut entries = Vec::new();
        if self.knows_shims() {
            let shim = self.shim.as_deref().map(|path| path.to_string_lossy());
            let shim = shim.as_deref().unwrap_or(RUNTIME_TYPE);
            let entry = match &self.config {
                None => json!({"runtimeType": shim}),
                Some(config) => json!({
                    "runtimeType": shim,
                    "options": {"TypeUrl": OPTIONS_TYPE, "ConfigPath": config},
                }),
            };
            entries.push((CLASS, entry));
        }
        let command = &self.command;
        let entry = match &self.config {
            None => json!({"path": command}),
            Some(config) => json!({"path": command, "runtimeArgs": ["--config", config]}),
        };
        entries.push((COMMAND, entry));
        entries
    }

    /// The text with our runtimes; entries of these names are replaced. An empty text counts as an empty object.
    ///
    /// # Errors
    /// `Mistake` when the text is not what Docker reads.
    pub(super) fn added_to(&self, text: &str) -> Result<String, Mistake> {
        if text.trim().is_empty() {
            return Ok(self.file());
        }
        let (root, object) = parse(text)?;
        let runtimes = object.object_value_or_set(RUNTIMES);
        for name in [CLASS, COMMAND] {
            if let Some(property) = runtimes.get(name) {
                property.remove();
            }
        }
        for (name, value) in self.entries() {
            runtimes.append(name, input(value));
        }
        if self.is_default {
            let value = CstInputValue::from(self.default_name());
            match object.get(DEFAULT) {
                Some(property) => property.set_value(value),
                None => {
                    object.append(DEFAULT, value);
                }
            }
        }
        Ok(root.to_string())
    }

    fn file(&self) -> String {
        let entries = self.entries().into_iter();
        let entries: Map<_, _> = entries
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let mut file = Map::from_iter([(RUNTIMES.to_owned(), Value::Object(entries))]);
        if self.is_default {
            file.insert(DEFAULT.to_owned(), json!(self.default_name()));
        }
        // The alternate form is the indented one.
        format!("{:#}\n", Value::Object(file))
    }
}

/// The text without our runtimes. Where one of ours was the default, that of `before` is again.
///
/// # Errors
/// `Mistake` when the text is not what Docker reads.
pub(super) fn without(text: &str, before: Option<&str>) -> Result<String, Mistake> {
    if text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    let (root, object) = parse(text)?;
    let mut changed = false;
    if let Some(runtimes) = object.object_value(RUNTIMES) {
        for name in [CLASS, COMMAND] {
            if let Some(property) = runtimes.get(name) {
                property.remove();
                changed = true;
            }
        }
        if changed
            && runtimes.properties().is_empty()
            && let Some(property) = object.get(RUNTIMES)
        {
            property.remove();
        }
    }
    if let Some(property) = object.get(DEFAULT)
        && [CLASS, COMMAND].contains(&string(property.value()).as_str())
    {
        let earlier = before.and_then(|text| parse(text).ok());
        let earlier = earlier.and_then(|(_, object)| object.get(DEFAULT));
        match earlier.map(|property| string(property.value())) {
            Some(name) => property.set_value(CstInputValue::from(name.as_str())),
            None => property.remove(),
        }
        changed = true;
    }
    Ok(match changed {
        true => root.to_string(),
        false => text.to_owned(),
    })
}

/// Which of our names the text has.
///
/// # Errors
/// `Mistake` when the text is not what Docker reads.
pub(super) fn is_in(text: &str) -> Result<bool, Mistake> {
    if text.trim().is_empty() {
        return Ok(false);
    }
    let (_, object) = parse(text)?;
    let runtimes = object.object_value(RUNTIMES);
    Ok(runtimes.is_some_and(|runtimes| {
        [CLASS, COMMAND]
            .iter()
            .any(|name| runtimes.get(name).is_some())
    }))
}

fn parse(text: &str) -> Result<(CstRootNode, CstObject), Mistake> {
    // As strict as Docker: the other parser would let comments pass.
    let value: Value = serde_json::from_str(text).map_err(|err| Mistake {
        line: err.line(),
        // The line is said with the file.
        text: match err.to_string().split_once(" at line ") {
            Some((text, _)) => text.to_owned(),
            None => err.to_string(),
        },
    })?;
    let not = |what: &str| Mistake {
        line: 1,
        text: format!("{what} is not an object"),
    };
    if value.get(RUNTIMES).is_some_and(|value| !value.is_object()) {
        return Err(not("`runtimes`"));
    }
    let root = CstRootNode::parse(text, &ParseOptions::default()).map_err(|err| Mistake {
        line: 1,
        text: err.to_string(),
    })?;
    let object = root.object_value().ok_or_else(|| not("the file"))?;
    Ok((root, object))
}

fn string(node: Option<CstNode>) -> String {
    node.and_then(|node| node.as_string_lit())
        .and_then(|text| text.decoded_value().ok())
        .unwrap_or_default()
}

/// The value for the other parser.
fn input(value: Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value),
        Value::Array(values) => CstInputValue::Array(values.into_iter().map(input).collect()),
        Value::Object(entries) => {
            let entries = entries.into_iter();
            CstInputValue::Object(entries.map(|(name, value)| (name, input(value))).collect())
        }
    }
}
