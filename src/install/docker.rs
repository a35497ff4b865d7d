//! The runtimes in Docker's `daemon.json`.

use std::path::Path;

use super::cri::Release;
use super::daemon_json::{self, Runtimes};
use super::error::{InstallError, Result};
use super::host::{self, Check, CheckKind, Host};
use super::record::Record;
use super::{Content, EnginePlan, Part, Wanted};

/// From here on `dockerd --validate` is there.
const VALIDATES: Release = Release {
    major: 23,
    minor: 0,
};

/// Plans the runtimes; `None` if there is no Docker.
pub(super) fn plan(place: &Host, record: &Record, is_default: bool) -> Result<Option<EnginePlan>> {
    let path = &place.docker_config;
    let program = place.program("dockerd");
    if program.is_none() && !place.here(path).exists() {
        return Ok(None);
    }
    let release = program.as_deref().and_then(host::release);
    let mut plan = EnginePlan::default();
    let found = place.find(record, Part::Docker, path)?;
    let syntax = |err| InstallError::syntax(path, err);
    let current = found.current.as_deref().unwrap_or_default();
    if record.entry(path).is_none() && daemon_json::is_in(current).map_err(syntax)? {
        plan.notes.push(format!(
            "{}: a runtime of ours is there already, and not from `elastic-mem install`: it is left as it is",
            path.display()
        ));
        return Ok(Some(plan));
    }
    let runtimes = Runtimes {
        release,
        command: place.command(),
        shim: place.unusual_shim(),
        config: place.unusual_config(),
        is_default,
    };
    let base = found.base.as_deref().unwrap_or_default();
    let text = runtimes.added_to(base).map_err(syntax)?;
    let validates = release.is_some_and(|found| found >= VALIDATES) && place.destdir.is_none();
    if let Some(program) = program.filter(|_| validates) {
        let check = Check {
            program,
            config: place.here(path),
            kind: CheckKind::IsValid,
        };
        // dockerd also looks for things of the host that have nothing to do with us.
        let earlier = match found.current {
            Some(_) => check.run(),
            None => check.with_config(Path::new("/dev/null")).run(),
        };
        match earlier {
            Err(answer) => plan.notes.push(format!(
                "{}: not checked, as dockerd finds something else wrong: {answer}",
                path.display()
            )),
            Ok(()) => plan.check = Some(check),
        }
    }
    plan.wanted.push(Wanted {
        part: Part::Docker,
        path: path.clone(),
        content: Content::Text(text),
        base: found.base,
    });
    Ok(Some(plan))
}
