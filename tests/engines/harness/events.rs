//! What a containerd publishes about tasks.

use serde_json::Value;

use super::command::Running;
use super::{Case, eventually, wait_until};

/// A client that listens.
pub struct Events {
    client: Running,
}

impl Events {
    /// Listens from now on.
    pub fn listen(c: &Case) -> Self {
        let client = c.ctr("events").spawn();
        // The client does not say when it is heard: something of our own must come through.
        let namespace = c.daemon.namespace.clone();
        let mut round = 0;
        let heard = eventually(|| {
            round += 1;
            let label = format!("heard{}={round}", c.id(""));
            c.ctr(&format!("namespaces label {namespace} {label}"))
                .output();
            client.stdout_now().contains(&c.id("")).then_some(())
        });
        assert!(heard.is_some(), "no events at all");
        Self { client }
    }

    /// The topics and contents that concern the tasks of the scenario, without
    /// what differs from run to run.
    pub fn of(&self, c: &Case) -> Vec<String> {
        let text = self.client.stdout_now();
        // The last line may be in the making.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete
            .lines()
            .filter(|line| line.contains(" /tasks/") && line.contains(&c.id("")))
            .filter_map(|line| {
                let (_, event) = line.split_once(" /tasks/")?;
                let (topic, content) = event.split_once(' ')?;
                let mut content: Value = serde_json::from_str(content).ok()?;
                plain(&mut content);
                Some(c.normalise(&format!("{topic} {content}")))
            })
            .collect()
    }

    /// Waits for an event with the topic.
    pub fn wait_for_topic(&self, c: &Case, topic: &str) {
        wait_until(topic, || {
            self.of(c).iter().any(|event| event.starts_with(topic))
        });
    }
}

/// Replaces process ids, times and the names of FIFOs.
fn plain(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match key.as_str() {
                    "pid" | "exited_at" | "nanos" | "seconds" => *value = "N".into(),
                    "io" => *value = Value::Null,
                    // Mounts differ with the snapshot.
                    "rootfs" => *value = Value::Null,
                    _ => plain(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}
