//! `placement` and `weights`: how memory lies, how it should, and the weights of the host.

use std::fmt::Write;

use super::args::placement::{Placement, Release, Set, Show, Weights, WeightsVerb};
use super::explain::{Roots, find};
use super::{Failure, output};
use crate::model::ContainerId;
use crate::model::nodes;
use crate::placement::{self, Held};
use crate::sampler::Lived;

pub(super) fn run(args: &Placement, roots: &Roots) -> Result<(), Failure> {
    let id: ContainerId = args.container.id.parse()?;
    let found = find::find(&id, args.container.namespace.as_deref(), roots)?;
    let placed = found.record.and_then(|record| record.placed);
    let held = placement::held(&found.container, placed);
    match args.json {
        true => output::json(&held)?,
        false => output::text(&table(&held))?,
    }
    Ok(())
}

fn table(held: &Held) -> String {
    let points = |ratio: crate::model::placement::LocalRatio| {
        format!("{:.1} % local", f64::from(ratio) * 100.0)
    };
    let none = || "none".to_owned();
    let target = held
        .placement
        .as_ref()
        .and_then(|placement| placement.target);
    let mut rows = vec![
        [
            "container".to_owned(),
            format!("{}, {}", held.id, held.status),
        ],
        ["target".to_owned(), target.map_or_else(none, points)],
        ["now".to_owned(), held.ratio.map_or_else(none, points)],
    ];
    let state = match (held.is_held, &held.why) {
        (Some(true), _) => "yes, within 5 points".to_owned(),
        (Some(false), Some(why)) => format!("no: {why}"),
        (Some(false), None) => "no".to_owned(),
        (None, _) => "nothing is to be held".to_owned(),
    };
    rows.push(["held".to_owned(), state]);
    for node in &held.nodes {
        let kind = match (node.is_local, &held.placement) {
            (_, None) => "",
            (true, _) => ", local",
            (false, _) => ", remote",
        };
        rows.push([
            format!("node {}", node.node),
            format!("{} anonymous{kind}", node.anon.to_megabytes()),
        ]);
    }
    if let Some(policy) = &held.policy {
        rows.push(["policy of init".to_owned(), policy.clone()]);
    }
    if let Some(moved) = &held.moved {
        rows.push([
            "pages moved".to_owned(),
            format!(
                "{}, {} refused, {} to go; longest call {} us",
                moved.moved, moved.refused, moved.pending, moved.longest_call_us
            ),
        ]);
        if moved.exchanged > 0 {
            rows.push([
                "exchanged".to_owned(),
                format!(
                    "{} hot pages came in for as many cold ones",
                    moved.exchanged
                ),
            ]);
        }
        rows.extend(moved.life.iter().flat_map(lived));
    }
    let mut text = output::table(&rows, 0, 2);
    for reason in held
        .placement
        .iter()
        .flat_map(|placement| &placement.reasons)
    {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n{}: {}, because of {}",
            reason.what, reason.value, reason.because
        );
    }
    text.push('\n');
    text
}

/// What became of the memory in the phases of the life of a container.
fn lived(life: &Lived) -> Vec<[String; 2]> {
    let step = match life.step {
        0 => String::new(),
        step => format!(", step {step}"),
    };
    let mut rows = vec![
        [
            "phase".to_owned(),
            format!("{}{step}: {}", life.phase.as_str(), life.because),
        ],
        [
            "touched".to_owned(),
            match life.requests {
                0 => "not known yet".to_owned(),
                requests => format!(
                    "{} by the last of {requests} requests, {} by none of them",
                    life.touched.to_megabytes(),
                    life.untouched.to_megabytes()
                ),
            },
        ],
        [
            "out and back".to_owned(),
            format!("{} pages went out, {} came back", life.out, life.back),
        ],
    ];
    if !life.expected.is_empty() {
        let early = match life.predicted {
            0 => String::new(),
            rests => format!("; {rests} predicted, {} of them came too early", life.early),
        };
        rows.push([
            "next request".to_owned(),
            format!("{}{early}", life.expected),
        ]);
    }
    rows
}

pub(super) fn weights(args: &Weights) -> Result<(), Failure> {
    match &args.verb {
        WeightsVerb::Show(Show { json }) => show(*json),
        WeightsVerb::Set(Set { weights, json }) => {
            let weights = nodes::Weights {
                nodes: weights.iter().copied().collect(),
                auto: None,
            };
            placement::set(&weights)?;
            show(*json)
        }
        WeightsVerb::Release(Release { force, json }) => {
            if !placement::release(*force)? {
                tracing::info!("no weights are leased: nothing to give back");
            }
            show(*json)
        }
    }
}

fn show(json: bool) -> Result<(), Failure> {
    let found = placement::show()?;
    if json {
        output::json(&found)?;
        return Ok(());
    }
    let mut rows = vec![["NODE".to_owned(), "WEIGHT".to_owned(), "FOUND".to_owned()]];
    for (node, weight) in &found.weights.nodes {
        let before = found.lease.as_ref().map(|lease| &lease.before);
        let before = before.and_then(|before| before.nodes.get(node));
        rows.push([
            node.to_string(),
            weight.to_string(),
            before.map_or_else(|| "-".to_owned(), u8::to_string),
        ]);
    }
    let mut text = output::table(&rows, 0, 2);
    if let Some(auto) = found.weights.auto {
        let word = if auto { "yes" } else { "no" };
        // Writing to a string does not fail.
        let _ = write!(text, "\nmade by the kernel from bandwidths (auto): {word}");
    }
    let line = match &found.lease {
        None => "\nnot set by elastic-mem\n".to_owned(),
        Some(lease) => {
            let names: Vec<&str> = lease.containers().collect();
            let who = match (lease.by_hand, names.is_empty()) {
                (true, _) => "by hand, until elastic-mem weights release".to_owned(),
                (false, true) => "for a container that is gone".to_owned(),
                (false, false) => format!("for {}", names.join(", ")),
            };
            match found.overwritten {
                true => format!("\nset by elastic-mem {who}, and changed by somebody else since\n"),
                false => format!("\nset by elastic-mem {who}\n"),
            }
        }
    };
    text += &line;
    Ok(output::text(&text)?)
}
