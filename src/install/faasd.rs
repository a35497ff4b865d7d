//! The way below faasd, which has no option for the runtime: its containers run on the shim `containerd-shim-runc-v2`
//! that containerd finds first in its PATH. So ours has that name in a folder of its own, and a drop-in of systemd puts
//! the folder first.

use std::path::{Path, PathBuf};

use super::error::Result;
use super::host::Host;
use super::record::Record;
use super::unit::UNITS;
use super::{Content, EnginePlan, Part, Wanted, block, files, unit};

/// The name that runc's shim has.
const RUNC_SHIM: &str = "containerd-shim-runc-v2";
const SERVICE: &str = "containerd.service";
const DROP_IN: &str = "elastic-mem.conf";

/// Plans the folder and the drop-in; `None` if there is no faasd.
pub(super) fn plan(place: &Host, record: &Record, is_named: bool) -> Result<Option<EnginePlan>> {
    if !is_named && place.program("faasd").is_none() {
        return Ok(None);
    }
    let mut plan = EnginePlan::default();
    let folder = place.prefix.join("lib/elastic-mem/runc-compat");
    // From the folder, so that it also leads there below another root.
    plan.wanted.push(Wanted {
        part: Part::Faasd,
        path: folder.join(RUNC_SHIM),
        content: Content::Link(Path::new("../../../bin").join(super::host::COMMAND)),
        base: None,
    });
    let drop_in: PathBuf = ["/etc/systemd/system", "containerd.service.d", DROP_IN]
        .iter()
        .collect();
    let found = place.find(record, Part::Faasd, &drop_in)?;
    let path = unit::path_of(&unit_texts(place)?);
    let lines = unit::path_drop_in(&folder, &path);
    let text = block::with(found.base.as_deref().unwrap_or_default(), &lines);
    plan.wanted.push(Wanted {
        part: Part::Faasd,
        path: drop_in,
        content: Content::Text(text),
        base: found.base,
    });
    Ok(Some(plan))
}

/// The unit of containerd and its drop-ins but ours, in the order in which they count.
fn unit_texts(place: &Host) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for folder in UNITS {
        if let Some(text) = files::read_text(&place.here(&Path::new(folder).join(SERVICE)))? {
            texts.push(text);
            break;
        }
    }
    let mut drop_ins = Vec::new();
    for folder in UNITS {
        let folder = place.here(&Path::new(folder).join(format!("{SERVICE}.d")));
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        drop_ins.extend(entries.map(|entry| entry.path()));
    }
    // By name alone, wherever they are.
    drop_ins.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    for path in drop_ins {
        let is_drop_in = path.extension().is_some_and(|ending| ending == "conf");
        if is_drop_in && path.file_name().is_none_or(|name| name != DROP_IN) {
            texts.extend(files::read_text(&path)?);
        }
    }
    Ok(texts)
}
