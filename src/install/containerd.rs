//! The runtime class in the configuration of containerd.
//!
//! containerd 1.6 and 1.7 replace whole sections by those of imported files, so the main file itself is edited. Later
//! ones merge, and get a file of ours where the main file imports a folder. Up to 2.2 it must have the version of the
//! main file; from 2.3 on any that is not above it, and 2 is what all of them migrate.

use std::path::{Path, PathBuf};

use super::cri::{self, CLASS, Class, Facts, FileVersion, Release};
use super::error::{InstallError, Result};
use super::host::{Check, CheckKind, Host, run};
use super::record::Record;
use super::{Content, EnginePlan, Part, Wanted, block, host};

/// The name of our file in a folder that the main file imports.
const DROP_IN: &str = "elastic-mem.toml";
const V2_0: Release = Release { major: 2, minor: 0 };
const V2_3: Release = Release { major: 2, minor: 3 };

/// Plans the runtime class; `None` if there is no containerd.
pub(super) fn plan(place: &Host, record: &Record) -> Result<Option<EnginePlan>> {
    let main = &place.containerd_config;
    let main_here = place.here(main);
    let program = place.program("containerd");
    if program.is_none() && !main_here.exists() {
        return Ok(None);
    }
    let release = program.as_deref().and_then(host::release);
    let mut plan = EnginePlan::default();
    let found = place.find(record, Part::Containerd, main)?;
    let base = found.base.clone();
    let facts = read_facts(main, base.as_deref())?;
    // What containerd makes of the file without us; below a folder its imports lead elsewhere.
    let dump = match (&program, &base, &place.destdir) {
        (Some(program), Some(_), None) => Some(dump(program, &main_here)?),
        _ => None,
    };
    let effective = dump.as_ref().unwrap_or(&facts);
    if facts.cri_is_off {
        plan.notes.push(format!(
            "{}: the CRI plugin is off, so no runtime class is needed; clients name the runtime {}",
            main.display(),
            cri::RUNTIME_TYPE
        ));
        return Ok(Some(plan));
    }
    let class = Class {
        shim: place.unusual_shim(),
        config: place.unusual_config(),
        systemd_cgroup: effective.systemd_cgroup,
        with_runc: false,
    };
    let file = match &found.current {
        // What an earlier version of containerd has led to stays where it is.
        Some(current) if !block::is_in(current) => drop_in(main, release, &facts),
        _ => None,
    };
    let wanted = match file {
        Some((path, version)) => in_file(place, record, &path, &class, version)?,
        None => in_main(place, base, &facts, class, release)?,
    };
    let Some(wanted) = wanted else {
        plan.notes.push(format!(
            "{}: the runtime class {CLASS} is there already, and not from us: it is left as it is",
            main.display()
        ));
        return Ok(Some(plan));
    };
    plan.wanted.push(wanted);
    match program.filter(|_| release.is_some() && place.destdir.is_none()) {
        Some(program) => {
            let mut classes = effective.classes.clone();
            classes.retain(|name| name != CLASS);
            classes.push(CLASS.to_owned());
            plan.check = Some(Check {
                program,
                config: main_here,
                kind: CheckKind::Shows(classes),
            });
        }
        None => plan.notes.push(format!(
            "{}: not checked, as no containerd of this host could be asked",
            main.display()
        )),
    }
    Ok(Some(plan))
}

fn read_facts(path: &Path, text: Option<&str>) -> Result<Facts> {
    cri::facts(text.unwrap_or_default()).map_err(|err| InstallError::syntax(path, err))
}

/// What containerd makes of its configuration without our part, which must be something.
fn dump(program: &Path, main: &Path) -> Result<Facts> {
    let refused = |answer: String| InstallError::RefusedBefore {
        program: program.display().to_string(),
        path: main.to_owned(),
        answer,
    };
    let config = main.to_string_lossy();
    let text = run(program, &["--config", &config, "config", "dump"]).map_err(refused)?;
    cri::facts(&text).map_err(|err| refused(err.text))
}

/// The file of ours that a main file imports, and its version; `None` if the main file has to be edited.
pub(super) fn drop_in(
    main: &Path,
    release: Option<Release>,
    facts: &Facts,
) -> Option<(PathBuf, FileVersion)> {
    let merges = release.map_or(facts.version >= FileVersion(3), |release| release >= V2_0);
    if !merges || facts.version < FileVersion(2) {
        return None;
    }
    let folder = cri::drop_in_folder(&facts.imports, main)?;
    let version = match release {
        Some(release) if release >= V2_3 => FileVersion(2),
        _ => facts.version,
    };
    Some((folder.join(DROP_IN), version))
}

fn in_file(
    place: &Host,
    record: &Record,
    path: &Path,
    class: &Class,
    version: FileVersion,
) -> Result<Option<Wanted>> {
    let found = place.find(record, Part::Containerd, path)?;
    if read_facts(path, found.base.as_deref())?
        .classes
        .iter()
        .any(|name| name == CLASS)
    {
        return Ok(None);
    }
    let text = match found.base.as_deref() {
        None => block::with("", &class.file(version)),
        Some(base) => block::with(base, &class.tables(read_facts(path, Some(base))?.version)),
    };
    Ok(Some(wanted(path, text, found.base)))
}

fn in_main(
    place: &Host,
    base: Option<String>,
    facts: &Facts,
    mut class: Class,
    release: Option<Release>,
) -> Result<Option<Wanted>> {
    let path = &place.containerd_config;
    if facts.classes.iter().any(|name| name == CLASS) {
        return Ok(None);
    }
    let knows_runc = release.is_some_and(|release| release >= V2_0);
    class.with_runc = !knows_runc && !facts.classes.iter().any(|name| name == "runc");
    let Some(base) = base else {
        let version = FileVersion(if knows_runc { 3 } else { 2 });
        let text = block::with("", &class.file(version));
        return Ok(Some(wanted(path, text, None)));
    };
    let text = block::with(&base, &class.tables(facts.version));
    // The one thing that can be wrong now is how the tables before ours are written.
    if let Err(mistake) = cri::facts(&text) {
        return Err(InstallError::NotExtendable {
            path: path.clone(),
            text: mistake.text,
        });
    }
    Ok(Some(wanted(path, text, Some(base))))
}

fn wanted(path: &Path, text: String, base: Option<String>) -> Wanted {
    Wanted {
        part: Part::Containerd,
        path: path.to_owned(),
        content: Content::Text(text),
        base,
    }
}
