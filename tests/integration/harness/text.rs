//! Normalisation: what differs between two runs of the same thing.

use std::path::PathBuf;

use serde_json::Value;

/// Replaces what is private to one run by a name for it.
#[derive(Clone, Default)]
pub struct Normaliser {
    words: Vec<(String, &'static str)>,
}

impl Normaliser {
    pub fn word(&mut self, word: impl Into<String>, name: &'static str) {
        self.words.push((word.into(), name));
        // `/tmp/x` may contain `x`: the longest goes first.
        self.words
            .sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
    }

    pub fn path(&mut self, path: PathBuf, name: &'static str) {
        self.word(path.to_string_lossy().into_owned(), name);
    }

    pub fn apply(&self, text: &str) -> String {
        let mut text = without_retries(text);
        for (word, name) in &self.words {
            text = text.replace(word, name);
        }
        times(&text)
    }
}

/// Drops runc's notes that it retries the removal of a group: whether it has
/// to, and of which one first, is chance.
fn without_retries(text: &str) -> String {
    text.split_inclusive('\n')
        .filter(|line| !line.contains("Failed to remove cgroup (will retry)"))
        .collect()
}

/// `time="2020-01-01T00:00:00Z"` and its JSON form become `time=TIME`.
fn times(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some(start) = ["time=\"", "\"time\":\""]
        .iter()
        .filter_map(|key| rest.find(key).map(|at| at + key.len()))
        .min()
    {
        let end = rest[start..].find('"').map_or(rest.len(), |at| start + at);
        out.push_str(&rest[..start]);
        out.push_str("TIME");
        rest = &rest[end..];
    }
    out + rest
}

/// Sorts the lines: for output whose order is not a property.
pub fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// The shape of a JSON document: keys and types, no values.
pub fn shape(value: &Value) -> Value {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "bool".into(),
        Value::Number(_) => "number".into(),
        Value::String(_) => "string".into(),
        Value::Array(items) => match items.first() {
            Some(first) => vec![shape(first)].into(),
            None => Value::Array(Vec::new()),
        },
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), shape(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// A mount table line without what the kernel numbers: mount point, root,
/// per-mount options, propagation, type, source and superblock options, with
/// the options sorted.
pub fn mount_line(line: &str) -> String {
    let Some((mount, filesystem)) = line.split_once(" - ") else {
        return format!("not a mountinfo line: {line}");
    };
    let mount: Vec<_> = mount.split(' ').collect();
    let filesystem: Vec<_> = filesystem.split(' ').collect();
    let sort = |options: &str| {
        let mut options: Vec<_> = options.split(',').collect();
        options.sort_unstable();
        options.join(",")
    };
    // Whether a tmpfs was made with its mode or changed later is no property.
    // Nor is whether the file system of sysfs is read-only in itself, as runc's
    // is, or only its mount (`mount[5]`), as with the new mount API.
    let superblock: Vec<_> = filesystem
        .get(2)
        .unwrap_or(&"")
        .split(',')
        .filter(|option| match filesystem[0] {
            "tmpfs" => !option.starts_with("mode="),
            "sysfs" => !["ro", "rw"].contains(option),
            _ => true,
        })
        .collect();
    format!(
        "{} root={} {} [{}] {} {} {}",
        mount[4],
        mount[3],
        sort(mount[5]),
        kinds(&mount),
        filesystem[0],
        // runc names the controller or not, depending on the namespace.
        if filesystem[0] == "cgroup" {
            "cgroup"
        } else {
            filesystem[1]
        },
        sort(&superblock.join(",")),
    )
}

/// The mount point and the kinds of propagation of a mount table line.
pub fn propagation(line: &str) -> String {
    let mount = line.split(" - ").next().unwrap_or_default();
    let fields: Vec<_> = mount.split(' ').collect();
    format!("{} [{}]", fields[4], kinds(&fields))
}

/// Peer group numbers are the kernel's: only the kinds are a property.
fn kinds(fields: &[&str]) -> String {
    let kinds: Vec<_> = fields[6..]
        .iter()
        .map(|tag| tag.split(':').next().unwrap_or_default())
        .collect();
    kinds.join(" ")
}

/// [`mount_line`] of every line, in the order of the table.
pub fn mount_table(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(mount_line).collect();
    lines.join("\n")
}
