//! `config`: shows the configuration, or what is wrong with it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::args::config::{Check, Show};
use super::{Failure, output};
use crate::config::{Config, FUNCTION_OPTIONS, Reading, main_file};
use crate::model::FunctionKey;
use crate::runtime::chain;

/// One value as it is shown.
struct Row {
    key: String,
    value: Option<String>,
    from: String,
    meaning: &'static str,
}

/// Prints what is in force.
pub(super) fn show(args: &Show, config: &Config) -> Result<(), Failure> {
    let rows = match &args.function {
        Some(function) => of_function(config, function),
        None => all(config),
    };
    if args.json {
        return Ok(output::json(&document(rows))?);
    }
    Ok(output::text(&table(rows))?)
}

fn all(config: &Config) -> Vec<Row> {
    let options = config
        .settings()
        .into_iter()
        .map(|(info, value, origin)| Row {
            key: info.key.to_owned(),
            value: Some(value),
            from: origin.to_string(),
            meaning: info.meaning,
        });
    let tables = config
        .table_settings()
        .into_iter()
        .map(|(key, info, value, origin)| Row {
            key,
            value: Some(value),
            from: origin.to_string(),
            meaning: info.meaning,
        });
    options.chain(tables).collect()
}

fn of_function(config: &Config, function: &FunctionKey) -> Vec<Row> {
    let settings = config.for_function(function);
    let rows = FUNCTION_OPTIONS.into_iter().zip(settings.settings());
    rows.map(|(info, (key, value, origin))| Row {
        key: key.to_owned(),
        value,
        from: origin.to_string(),
        meaning: info.meaning,
    })
    .collect()
}

fn table(rows: Vec<Row>) -> String {
    let mut lines = vec![["KEY", "VALUE", "FROM"].map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| {
        let value = row.value.unwrap_or_else(|| "none".to_owned());
        [row.key, value, row.from]
    }));
    output::table(&lines, 0, 2)
}

fn document(rows: Vec<Row>) -> Value {
    let entries = rows.into_iter().map(|row| {
        let entry = json!({"value": row.value, "from": row.from, "meaning": row.meaning});
        (row.key, entry)
    });
    Value::Object(entries.collect::<Map<_, _>>())
}

/// Reads all files, and says what is wrong with them.
pub(super) fn check(args: &Check, given: Option<&Path>) -> Result<(), Failure> {
    let path = main_file(args.file.as_deref().or(given));
    let read = Reading::of(&path);
    // What is missing counts as empty, but not when it was asked for.
    if args.file.is_some() && !read.files.contains(&path) {
        return Err(Failure::new(format!("no such file: {}", path.display())));
    }
    for err in &read.errors {
        tracing::error!("{}", chain(err));
    }
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let summary = format!(
        "{}: {} in {} and {} read",
        path.display(),
        counted(read.errors.len(), "mistake"),
        counted(read.files.len(), "file"),
        counted(read.values, "option"),
    );
    match read.errors.is_empty() {
        true => Ok(output::text(&format!("{summary}\n"))?),
        false => Err(Failure::new(summary)),
    }
}
