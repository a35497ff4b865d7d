//! The text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write;

/// Before every name.
const PREFIX: &str = "elastic_mem_";

/// Whether a figure may fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

/// A figure with all its series.
#[derive(Debug)]
pub(super) struct Family {
    /// Without the prefix.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// Writes all of them.
pub(super) fn render(families: &[Family]) -> String {
    let mut out = String::new();
    for family in families {
        let name = family.name;
        let kind = match family.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {PREFIX}{name} {}", family.help);
        let _ = writeln!(out, "# TYPE {PREFIX}{name} {kind}");
        for sample in &family.samples {
            let _ = write!(out, "{PREFIX}{name}");
            let labels: Vec<String> = sample
                .labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            if !labels.is_empty() {
                let _ = write!(out, "{{{}}}", labels.join(","));
            }
            let _ = match sample.value {
                Value::Whole(value) => writeln!(out, " {value}"),
                Value::Real(value) => writeln!(out, " {value}"),
            };
        }
    }
    out
}

fn escaped(value: &str) -> String {
    let mut out = String::new();
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_labels_are_escaped() {
        let family = Family {
            name: "x_total",
            help: "Some",
            kind: Kind::Counter,
            samples: vec![
                Sample {
                    labels: vec![("function", "a\"b\\c\nd".to_owned())],
                    value: Value::Whole(3),
                },
                Sample {
                    labels: Vec::new(),
                    value: Value::Real(0.5),
                },
            ],
        };
        assert_eq!(
            render(&[family]),
            "# HELP elastic_mem_x_total Some\n# TYPE elastic_mem_x_total counter\n\
             elastic_mem_x_total{function=\"a\\\"b\\\\c\\nd\"} 3\nelastic_mem_x_total 0.5\n"
        );
    }
}
