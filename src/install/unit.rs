//! Units of systemd (systemd.unit(5), systemd.exec(5)), as far as the PATH of a service is concerned. Pure.

use std::path::Path;

/// The PATH that systemd gives to a service of the system.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where units are, those that count more first (systemd.unit(5)).
pub(super) const UNITS: [&str; 3] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// The PATH that the texts of a unit and its drop-ins set, in the order in which they count; the last one wins.
pub(super) fn path_of(texts: &[String]) -> String {
    let lines = texts.iter().flat_map(|text| text.lines());
    let values = lines.filter_map(|line| line.trim().strip_prefix("Environment="));
    let words = values.flat_map(|value| value.split_whitespace());
    let mut paths = words.filter_map(|word| word.trim_matches(['"', '\'']).strip_prefix("PATH="));
    paths.next_back().unwrap_or(DEFAULT_PATH).to_owned()
}

/// The lines of a drop-in that puts a folder first in the PATH of a service.
pub(super) fn path_drop_in(folder: &Path, path: &str) -> String {
    let folder = folder.display().to_string();
    let rest = path.split(':').filter(|entry| *entry != folder);
    let rest: Vec<_> = rest.collect();
    format!("[Service]\nEnvironment=PATH={folder}:{}\n", rest.join(":"))
}
