//! The page of one container: all that is known of it, and its use against its grant over the last looks.

use ratatui_core::style::{Color, Style};

use super::rows::{self, Lately};
use super::screen::{Canvas, bold};
use crate::cli::survey::Row;
use crate::model::Bytes;

/// Lines from the top: host, status, a blank one.
const TOP: u16 = 3;
/// Where values begin.
const VALUES: u16 = 14;
/// A picture of fewer lines says nothing.
const LEAST_PICTURE: u16 = 3;
/// More is not needed.
const MOST_PICTURE: u16 = 16;
/// The labels of the scale.
const SCALE: u16 = 9;

pub(super) fn draw(row: &Row, lately: Option<&Lately>, canvas: &mut Canvas<'_>) {
    let mut y = TOP;
    for (name, value) in facts(row) {
        // Above the footer.
        if y + 1 >= canvas.area.height {
            return;
        }
        let style = canvas.dim();
        canvas.write(0, y, name, style);
        let style = match name {
            "container" => bold(),
            _ => Style::new(),
        };
        canvas.write(VALUES, y, &value, style);
        y += 1;
    }
    // A blank line above and the footer below.
    let room = canvas.area.height.saturating_sub(y + 2);
    if let Some(lately) = lately.filter(|_| room >= LEAST_PICTURE) {
        picture(lately, y + 1, room.min(MOST_PICTURE), canvas);
    }
}

/// What is known, as lines.
pub(super) fn facts(row: &Row) -> Vec<(&'static str, String)> {
    let size = rows::size_or_dash;
    let known = |text: Option<&str>| text.map_or_else(rows::dash, rows::printable);
    let mut facts = vec![
        (
            "container",
            format!(
                "{} in namespace {}",
                rows::printable(&row.id),
                rows::printable(&row.namespace)
            ),
        ),
        (
            "function",
            format!(
                "{}, class {}, mode {}",
                known(row.function.as_ref().map(|name| name.as_str())),
                known(row.class.as_ref().map(|name| name.as_str())),
                row.mode
            ),
        ),
    ];
    if let (Some(namespace), Some(pod)) = (&row.pod_namespace, &row.pod) {
        let container = known(row.container.as_deref());
        facts.push((
            "pod",
            format!(
                "{} in {}, container {container}",
                rows::printable(pod),
                rows::printable(namespace)
            ),
        ));
    }
    facts.push((
        "phase",
        match (&row.phase, row.seconds) {
            (Some(phase), Some(seconds)) => format!("{phase}, runs for {}", rows::age(seconds)),
            _ => "not known: nobody who looks after it answers".to_owned(),
        },
    ));
    facts.push((
        "use",
        format!(
            "{} (anonymous {}, file cache {}, shared {}), peak {}",
            size(row.usage),
            size(row.anon),
            size(row.file),
            size(row.shmem),
            size(row.peak)
        ),
    ));
    facts.push((
        "grant",
        format!(
            "{} of {}, {} reclaimable",
            size(row.grant),
            size(row.ceiling),
            size(row.reclaimable)
        ),
    ));
    if !row.nodes.is_empty() {
        let nodes = row.nodes.iter();
        let nodes: Vec<String> = nodes
            .map(|(node, bytes)| format!("node {node} {}", rows::size(*bytes)))
            .collect();
        facts.push(("nodes", nodes.join(", ")));
    }
    if let Some(areas) = &row.areas {
        let gib = |area: crate::model::MemoryTime| rows::gib_seconds(area.byte_seconds());
        facts.push((
            "GiB-s",
            format!(
                "used {}, granted {}, ceiling {}, saved {}",
                gib(areas.used),
                gib(areas.granted),
                gib(areas.ceiling),
                gib(areas.saved())
            ),
        ));
    }
    if let Some(counts) = &row.counts {
        facts.push((
            "decisions",
            format!(
                "{} raises, {} lowers; limit met {}, pressed {}, foreign writes {}, refused {}",
                counts.raises,
                counts.lowers,
                counts.met,
                counts.pressed,
                counts.foreign,
                counts.refused
            ),
        ));
    }
    if let Some(last) = &row.last_decision {
        let grant = last
            .grant
            .map_or_else(|| "the ceiling".to_owned(), rows::size);
        facts.push((
            "last one",
            format!(
                "{grant} {} ago: {}",
                rows::age(last.seconds_ago),
                last.reason
            ),
        ));
    }
    facts.push((
        "pressure",
        match (row.psi_some_share, row.psi_some_seconds) {
            (Some(share), Some(seconds)) => format!(
                "{} of the time tasks wait for memory, {seconds:.2}s so far",
                rows::percent(share)
            ),
            _ => "not told by the kernel".to_owned(),
        },
    ));
    facts
}

/// Use as bars, the grant as a line above them.
fn picture(lately: &Lately, top: u16, height: u16, canvas: &mut Canvas<'_>) {
    let width = canvas.area.width.saturating_sub(SCALE);
    let looks = lately.len().min(usize::from(width));
    let shown = || lately.iter().skip(lately.len() - looks);
    let values = shown().flat_map(|(usage, grant)| [*usage, *grant]);
    let most = values.flatten().max().unwrap_or_default();
    if most == Bytes::ZERO {
        return;
    }
    let dim = canvas.dim();
    canvas.write(0, top, &format!("{:>8}", rows::size(most)), dim);
    canvas.write(0, top + height - 1, &format!("{:>8}", "0"), dim);
    let (used, granted) = (canvas.coloured(Color::Blue), canvas.coloured(Color::Green));
    // In eighths of a line.
    let whole = u64::from(height) * 8;
    let level = |bytes: Bytes| {
        let scaled = u128::from(bytes.get()) * u128::from(whole) / u128::from(most.get().max(1));
        u64::try_from(scaled).unwrap_or(whole).min(whole)
    };
    for (x, (usage, grant)) in (SCALE..).zip(shown()) {
        // Something is shown of everything that there is.
        let usage = usage.map_or(0, |usage| level(usage).max(u64::from(usage > Bytes::ZERO)));
        let grant = grant.map(|grant| level(grant).saturating_sub(1) / 8);
        for line in 0..height {
            let (y, from) = (top + height - 1 - line, u64::from(line) * 8);
            let eighths = usage.saturating_sub(from).min(8);
            if eighths > 0 {
                canvas.write(x, y, bar(eighths, canvas.screen.unicode), used);
            }
            // Where the two are in one line, the part above the bar is thin: the bar tells more.
            if grant == Some(u64::from(line)) && eighths < 4 {
                let line = if canvas.screen.unicode { "─" } else { "-" };
                canvas.write(x, y, line, granted);
            }
        }
    }
}

fn bar(eighths: u64, unicode: bool) -> &'static str {
    match (eighths, unicode) {
        (1, true) => "▁",
        (2, true) => "▂",
        (3, true) => "▃",
        (4, true) => "▄",
        (5, true) => "▅",
        (6, true) => "▆",
        (7, true) => "▇",
        (_, true) => "█",
        (0..4, false) => ".",
        (_, false) => "#",
    }
}
