//! The messages of a control socket: one JSON object per line in each direction.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Bytes, ClassName};

/// No message is longer, its end of line included.
pub(super) const LONGEST: usize = 4096;

/// What a client may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A request of the function begins.
    Begin {
        /// Size of its input.
        input: Option<Bytes>,
        /// Its input class.
        class: Option<ClassName>,
    },
    /// It ends.
    End,
    /// Which function the container is an instance of, without its namespaces.
    Bind {
        /// Its name.
        function: String,
        /// Its input class.
        class: Option<ClassName>,
    },
    /// The limit is to stay at the ceiling until the connection ends.
    Hold,
    /// What is done with its memory.
    Status,
}

/// The form of every request.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Edge>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_bytes: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<ClassName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bind: Option<Bind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<True>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<True>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Edge {
    Begin,
    End,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bind {
    function: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<ClassName>,
}

/// `true`, and nothing else.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
struct True;

impl TryFrom<bool> for True {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Self, Self::Error> {
        value
            .then_some(Self)
            .ok_or("want true: what was asked for ends with the connection")
    }
}

impl From<True> for bool {
    fn from(_: True) -> Self {
        true
    }
}

impl Clone for True {
    fn clone(&self) -> Self {
        Self
    }
}

impl Request {
    /// Understands a line.
    ///
    /// # Errors
    /// What is wrong with it, for the client.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let line: Line = serde_json::from_slice(line).map_err(|err| err.to_string())?;
        let is_begin = matches!(line.phase, Some(Edge::Begin));
        if !is_begin && (line.input_bytes.is_some() || line.class.is_some()) {
            return Err("inputBytes and class belong to {\"phase\":\"begin\"}".to_owned());
        }
        match (line.phase, line.bind, line.hold, line.status) {
            (Some(Edge::Begin), None, None, None) => Ok(Self::Begin {
                input: line.input_bytes,
                class: line.class,
            }),
            (Some(Edge::End), None, None, None) => Ok(Self::End),
            (None, Some(bind), None, None) if bind.function.is_empty() => {
                Err("the name of a function cannot be empty".to_owned())
            }
            (None, Some(bind), None, None) => Ok(Self::Bind {
                function: bind.function,
                class: bind.class,
            }),
            (None, None, Some(True), None) => Ok(Self::Hold),
            (None, None, None, Some(True)) => Ok(Self::Status),
            _ => Err("want one of phase, bind, hold and status".to_owned()),
        }
    }

    /// As a line, with its end.
    ///
    /// # Errors
    /// None is known: all of it can be written as JSON.
    pub(super) fn line(&self) -> serde_json::Result<String> {
        let empty = Line::default();
        let line = match self.clone() {
            Self::Begin { input, class } => Line {
                phase: Some(Edge::Begin),
                input_bytes: input,
                class,
                ..empty
            },
            Self::End => Line {
                phase: Some(Edge::End),
                ..empty
            },
            Self::Bind { function, class } => Line {
                bind: Some(Bind { function, class }),
                ..empty
            },
            Self::Hold => Line {
                hold: Some(True),
                ..empty
            },
            Self::Status => Line {
                status: Some(True),
                ..empty
            },
        };
        Ok(serde_json::to_string(&line)? + "\n")
    }
}

/// What is answered: `{"ok":true}`, with more in it for a status, or `{"error":"why"}`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl Answer {
    pub(super) fn done() -> Self {
        Self::with(Map::new())
    }

    pub(super) fn with(more: Map<String, Value>) -> Self {
        Self {
            ok: Some(true),
            error: None,
            more,
        }
    }

    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self {
            error: Some(why.into()),
            ..Self::default()
        }
    }

    /// What was answered besides, or why nothing was done.
    pub(super) fn into_result(self) -> Result<Map<String, Value>, String> {
        match (self.ok, self.error) {
            (Some(true), None) => Ok(self.more),
            (_, error) => Err(error.unwrap_or_else(|| "it does not say why".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, String> {
        Request::parse(text.as_bytes())
    }

    #[test]
    fn every_message_survives_the_way_over_the_line() {
        let class: ClassName = "small".parse().unwrap();
        for request in [
            Request::Begin {
                input: Some(Bytes::new(7)),
                class: Some(class.clone()),
            },
            Request::Begin {
                input: None,
                class: None,
            },
            Request::End,
            Request::Bind {
                function: "thumb".to_owned(),
                class: Some(class),
            },
            Request::Hold,
            Request::Status,
        ] {
            let line = request.line().unwrap();
            assert!(line.ends_with("}\n") && !line.contains("null"), "{line}");
            assert_eq!(parse(line.trim_end()), Ok(request));
        }
    }

    #[test]
    fn the_documented_forms_are_understood() {
        assert_eq!(
            parse(r#"{"phase":"begin","inputBytes":12,"class":"*"}"#),
            Ok(Request::Begin {
                input: Some(Bytes::new(12)),
                class: Some(ClassName::all()),
            })
        );
        assert_eq!(
            parse(r#"{"bind":{"function":"f"}}"#),
            Ok(Request::Bind {
                function: "f".to_owned(),
                class: None,
            })
        );
    }

    #[test]
    fn what_is_malformed_or_foreign_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("[]", "want one of"),
            ("{}", "want one of"),
            (r#"{"phase":"middle"}"#, "middle"),
            (r#"{"phase":"end","class":"a"}"#, "belong to"),
            (r#"{"phase":"begin","inputBytes":-1}"#, "-1"),
            (r#"{"phase":"begin","class":"a,b"}"#, "commas"),
            (r#"{"phase":"end","hold":true}"#, "want one of"),
            (r#"{"bind":{"function":""}}"#, "empty"),
            (r#"{"bind":{"name":"f"}}"#, "unknown field"),
            (r#"{"hold":false}"#, "ends with the connection"),
            (r#"{"hold":1}"#, "boolean"),
            (r#"{"id":"other","phase":"end"}"#, "unknown field"),
            ("{\"phase\":\"end\"} {}", "trailing"),
        ] {
            let err = parse(text).unwrap_err();
            assert!(err.contains(reason), "{text}: {err}");
        }
        assert!(Request::parse(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn an_answer_is_ok_or_says_why_not() {
        let text = |answer: &Answer| serde_json::to_string(answer).unwrap();
        assert_eq!(text(&Answer::done()), r#"{"ok":true}"#);
        assert_eq!(text(&Answer::refused("no")), r#"{"error":"no"}"#);
        let back: Answer = serde_json::from_str(r#"{"ok":true,"holds":1}"#).unwrap();
        assert_eq!(back.into_result().unwrap()["holds"], 1);
        let back: Answer = serde_json::from_str("{}").unwrap();
        assert!(back.into_result().is_err());
    }
}
