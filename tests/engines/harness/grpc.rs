//! Calls of gRPC services, as clients of containerd and kubelet make them.

use std::path::Path;

use serde_json::Value;

use super::Cmd;

/// Debian's Python has the packages that `scripts/setup test` installs.
const PYTHON: &str = "/usr/bin/python3";

/// What this machine lacks to make such calls, if so.
pub fn unfit() -> Option<&'static str> {
    let has = |cmd: Cmd| cmd.output().code == 0;
    let is_fit = Path::new(PYTHON).is_file()
        && super::host::find("protoc").is_some()
        && has(Cmd::new(PYTHON).args(["-c", "import grpc, google.protobuf"]));
    (!is_fit).then_some("no gRPC for Python, or no protoc: scripts/setup test")
}

/// A service at a socket.
pub struct Service<'a> {
    pub socket: &'a Path,
    pub namespace: Option<&'a str>,
    /// The file of `scripts/lib/api`.
    pub file: &'static str,
    pub name: &'static str,
}

impl Service<'_> {
    /// The answer, or the words of the refusal.
    pub fn call(&self, method: &str, request: &Value) -> Result<Value, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/grpc_call.py");
        let namespace = self.namespace.map(|name| ["--namespace", name]);
        let out = Cmd::new(PYTHON)
            .arg("-B")
            .arg(script)
            .args(namespace.into_iter().flatten())
            .arg(self.socket)
            .args([self.file, &format!("{}/{method}", self.name)])
            .stdin(request.to_string())
            .output();
        match out.code {
            0 => Ok(serde_json::from_str(&out.stdout).expect("JSON")),
            _ => Err(out.stderr.trim().to_owned()),
        }
    }

    /// The answer of a call that must succeed.
    pub fn ok(&self, method: &str, request: &Value) -> Value {
        self.call(method, request)
            .unwrap_or_else(|err| panic!("{method} {request}: {err}"))
    }
}

/// Bytes as JSON has them.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (index, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            text.push(if index <= chunk.len() {
                digit(bits >> shift)
            } else {
                '='
            });
        }
    }
    text
}

/// The text in such bytes.
pub fn text_of(value: &Value) -> String {
    let text = value.as_str().expect("base64");
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    String::from_utf8(bytes).expect("text")
}

#[test]
fn bytes_survive_the_way_to_json_and_back() {
    for text in ["", "a", "ab", "abc", "abcd{}\n"] {
        assert_eq!(text_of(&base64(text.as_bytes()).into()), text);
    }
    assert_eq!(base64(b"ab"), "YWI=");
}
