//! k3s and rke2. They write the configuration of their containerd anew at each start, from a template if there is one.

use std::path::Path;

use super::cri::{self, CLASS, Class, FileVersion};
use super::error::Result;
use super::host::{BASE_TEMPLATE, Host};
use super::record::Record;
use super::unit::UNITS;
use super::{Content, Engine, EnginePlan, Wanted, block, files};

/// Templates, each for the version of the file that becomes of it.
const TEMPLATES: [(&str, FileVersion); 2] = [
    ("config.toml.tmpl", FileVersion(2)),
    ("config-v3.toml.tmpl", FileVersion(3)),
];

/// Plans the templates; `None` if there is no such engine.
pub(super) fn plan(place: &Host, record: &Record, engine: Engine) -> Result<Option<EnginePlan>> {
    let name = engine.name();
    let state = Path::new("/var/lib/rancher").join(name);
    if place.program(name).is_none() && !place.here(&state).exists() {
        return Ok(None);
    }
    let mut plan = EnginePlan::default();
    let folder = state.join("agent/etc/containerd");
    // What was generated tells which template is read; without it, either may be.
    let generated = files::read_text(&place.here(&folder.join("config.toml")))?;
    let facts = generated.as_deref().and_then(|text| cri::facts(text).ok());
    let class = Class {
        shim: place.unusual_shim(),
        config: place.unusual_config(),
        systemd_cgroup: facts.as_ref().is_some_and(|facts| facts.systemd_cgroup),
        with_runc: false,
    };
    for (name, version) in TEMPLATES {
        let path = folder.join(name);
        let is_read = facts.as_ref().is_none_or(|facts| facts.version == version);
        if is_read || record.entry(&path).is_some() {
            let wanted = template(place, record, &path, &class, version, engine)?;
            match wanted {
                Some(wanted) => plan.wanted.push(wanted),
                None => plan.notes.push(format!(
                    "{}: the runtime class {CLASS} is there already, and not from us: it is left as it is",
                    path.display()
                )),
            }
        }
    }
    Ok(Some(plan))
}

fn template(
    place: &Host,
    record: &Record,
    path: &Path,
    class: &Class,
    version: FileVersion,
    engine: Engine,
) -> Result<Option<Wanted>> {
    let part = engine.part();
    let found = place.find(record, part, path)?;
    let base = found.base.as_deref();
    let has_class = [CLASS.to_owned(), format!("{CLASS:?}")];
    let has_class = has_class
        .iter()
        .any(|name| base.is_some_and(|text| text.contains(&format!("runtimes.{name}]"))));
    if has_class {
        return Ok(None);
    }
    // A template of somebody's own may have left the base out on purpose: it stays as it is, with our table behind it.
    let start = format!("{BASE_TEMPLATE}\n");
    let text = block::with(base.unwrap_or(&start), &class.tables(version));
    Ok(Some(Wanted {
        part,
        path: path.to_owned(),
        content: Content::Text(text),
        base: found.base,
    }))
}

/// The service that runs containerd: a host has that of the server or that of the agent.
pub(super) fn service(place: &Host, server: &'static str, agent: &'static str) -> &'static str {
    let has = |name: &str| {
        let paths = UNITS
            .iter()
            .map(|folder| Path::new(folder).join(format!("{name}.service")));
        paths.into_iter().any(|path| place.here(&path).exists())
    };
    if has(agent) && !has(server) {
        agent
    } else {
        server
    }
}
