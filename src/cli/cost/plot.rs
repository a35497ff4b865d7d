//! Cost over memory size, one line for each provider, in the style of `docs/memory-over-time.svg`.

use std::fmt::Write;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::cli::Failure;
use crate::cost::{CostError, Currency, Tariff, Usage, bill, rounded};
use crate::model::Bytes;

const LEFT: f64 = 70.0;
const RIGHT: f64 = 610.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 394.0;
/// Memory sizes of the axis in MB.
const FIRST_MB: f64 = 128.0;
const LAST_MB: f64 = 8192.0;
const COLOURS: [&str; 6] = [
    "#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700",
];

/// A provider's line: what it costs at sizes in MB.
struct Line<'a> {
    name: &'a str,
    points: Vec<(u32, f64)>,
}

fn x(mb: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * (mb / FIRST_MB).log2() / (LAST_MB / FIRST_MB).log2()
}

/// 1, 2 or 5 times a power of ten, so that at most five of them reach `most`.
fn tick(most: f64) -> f64 {
    let power = 10_f64.powf((most / 5.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| step * 5.0 >= most)
        .unwrap_or(power * 10.0)
}

/// Draws the cost of `usage` as if it used each size of the axis.
pub(super) fn draw(
    tariffs: &[Tariff<'_>],
    usage: &Usage,
    currency: &Currency,
) -> Result<String, Failure> {
    let mut lines = Vec::new();
    for tariff in tariffs {
        let mut points = Vec::new();
        for mb in (128..=8192_u32).step_by(16) {
            let size = Bytes::from_mib(u64::from(mb)).unwrap_or_default();
            let usage = Usage {
                peak: size,
                allocated: None,
                ..*usage
            };
            let bill = match bill(tariff, &usage) {
                Ok(bill) => bill,
                // Sizes beyond the provider's largest have no cost.
                Err(CostError::DoesNotFit { .. }) => break,
                Err(err) => {
                    return Err(Failure::new(format!("{}: {err}", tariff.provider.id)));
                }
            };
            points.push((mb, currency.convert(bill.gross)?.to_f64().unwrap_or(0.0)));
        }
        lines.push(Line {
            name: &tariff.provider.id,
            points,
        });
    }
    let last = |line: &Line<'_>| line.points.last().map_or(0.0, |point| point.1);
    lines.sort_by(|a, b| last(b).total_cmp(&last(a)));
    let most = lines.iter().map(last).fold(0.0, f64::max).max(1e-9);
    let step = tick(most);
    let top = (most / step).ceil() * step;
    let y = |cost: f64| BOTTOM - (BOTTOM - TOP) * cost / top;
    let code = &currency.code;

    let mut out = String::from(HEAD);
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<text class=\"ink title\" x=\"70\" y=\"30\">Cost over memory size</text>\n\
         <text class=\"dim\" x=\"70\" y=\"52\">{} requests a month of {:?}, in {code}; prices of {} and before</text>",
        usage.requests,
        usage.duration,
        tariffs
            .iter()
            .map(|tariff| tariff.date(usage.free))
            .max()
            .map_or_else(String::new, |date| date.to_string()),
    );
    let mut value = 0.0;
    while value <= top * 1.001 {
        let at = y(value);
        let label = rounded(
            Decimal::try_from(value).unwrap_or_default(),
            if step < 1.0 { 2 } else { 0 },
        );
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\n\
             <text class=\"dim\" x=\"62\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            at + 4.0,
        );
        value += step;
    }
    let mut mb = FIRST_MB;
    while mb <= LAST_MB {
        let at = x(mb);
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"394\" y2=\"399\"/>\n\
             <text class=\"dim\" x=\"{at:.1}\" y=\"415\" text-anchor=\"middle\">{mb} MB</text>",
        );
        mb *= 2.0;
    }
    let used = usage.peak.get().to_f64().unwrap_or(0.0) / 1_048_576.0;
    if (FIRST_MB..=LAST_MB).contains(&used) {
        let at = x(used);
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"394\" stroke-dasharray=\"2 4\"/>\n\
             <text class=\"dim\" x=\"{at:.1}\" y=\"76\" text-anchor=\"middle\">{used:.0} MB used</text>",
        );
    }
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS.get(index % COLOURS.len()).unwrap_or(&"#59636e");
        let dash = match index / COLOURS.len() {
            0 => "",
            1 => " stroke-dasharray=\"7 3\"",
            _ => " stroke-dasharray=\"2 3\"",
        };
        let mut path = String::new();
        let mut before = None;
        for (place, (mb, cost)) in line.points.iter().enumerate() {
            let (px, py) = (x(f64::from(*mb)), y(*cost));
            if place == 0 {
                let _ = write!(path, "M{px:.1},{py:.1}");
            } else if before.is_some_and(|(_, cost_before)| cost_before != *cost) {
                // A size holds up to its own end: the line rises right behind it.
                let end = before.map_or(px, |(end, _)| end);
                let _ = write!(path, "H{end:.1}V{py:.1}");
            }
            if place > 0 && place + 1 == line.points.len() {
                let _ = write!(path, "H{px:.1}");
            }
            before = Some((px, *cost));
        }
        let row = 96.0 + 25.0 * f64::from(u8::try_from(index).unwrap_or(u8::MAX));
        // A provider with one size has no line.
        if let [(mb, cost)] = line.points.as_slice() {
            for (cx, cy) in [(x(f64::from(*mb)), y(*cost)), (643.0, row)] {
                let _ = writeln!(
                    out,
                    "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\" fill=\"{colour}\"/>"
                );
            }
        }
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
             <line x1=\"630\" x2=\"656\" y1=\"{row}\" y2=\"{row}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
             <text class=\"ink\" x=\"664\" y=\"{}\">{}</text>",
            row + 4.0,
            line.name,
        );
    }
    out.push_str("</svg>\n");
    Ok(out)
}

const HEAD: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 440" width="900" height="440" role="img" aria-label="cost over memory size">
<style>
  :root { color-scheme: light dark; }
  .paper { fill: #ffffff; } .ink { fill: #1f2328; } .dim { fill: #59636e; }
  .grid { stroke: #d1d9e0; } .axis { stroke: #59636e; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; } .ink { fill: #e6edf3; } .dim { fill: #9198a1; }
    .grid { stroke: #30363d; } .axis { stroke: #9198a1; }
  }
  text { font: 13px system-ui, "DejaVu Sans", Arial, sans-serif; }
  .title { font-size: 17px; font-weight: 600; }
</style>
<rect class="paper" width="900" height="440" rx="8"/>
"#;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cost::{Catalog, Month};

    fn picture(provider: &str, duration: Duration, requests: u64) -> Result<String, Failure> {
        let catalog = Catalog::built_in().unwrap();
        let tariff = catalog.find(provider).unwrap().tariff(Month::LATEST);
        let usage = Usage::flat(Bytes::ZERO, duration, requests);
        draw(&[tariff.unwrap()], &usage, &Currency::usd())
    }

    #[test]
    fn a_line_rises_right_behind_a_size() {
        let svg = picture("oracle-functions", Duration::from_secs(1), 1_000_000).unwrap();
        let path = svg.split("<path d=\"").nth(1).unwrap();
        // 128 MB at the left edge, 256 MB one sixth of the width further, and so on up to 3072 MB.
        let (first, rest) = path.split_once('H').unwrap();
        assert!(first.starts_with("M70.0,"), "{path}");
        let steps: Vec<&str> = rest
            .split('"')
            .next()
            .unwrap()
            .split('H')
            .map(|step| step.split('V').next().unwrap())
            .collect();
        assert_eq!(steps, ["70.0", "160.0", "250.0", "340.0", "430.0", "482.6"]);
    }

    #[test]
    fn an_offer_of_one_size_is_a_point() {
        let point = |provider| {
            let svg = picture(provider, Duration::from_secs(1), 1_000_000).unwrap();
            svg.contains("<circle cx=\"70.0\"")
        };
        assert!(point("cloudflare-workers"));
        assert!(!point("oracle-functions"));
    }

    #[test]
    fn what_cannot_be_counted_is_no_empty_picture() {
        let failure = picture("oracle-functions", Duration::MAX, u64::MAX)
            .err()
            .unwrap();
        assert_eq!(
            failure.text,
            "oracle-functions: the amount is too large to be counted"
        );
    }
}
