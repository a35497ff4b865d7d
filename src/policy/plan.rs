//! What is to be done with the memory of a container that is about to start.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::learn::{LEAST_RUNS, choose, foresight, trusted};
use super::settings::FunctionSettings;
use super::step::{largest_of, pad_of};
use crate::model::plan::{Clock, Forecast, Foresight, Margins, Plan};
use crate::model::profile::{ClassProfile, Confidence, Profile};
use crate::model::{Bytes, ClassName, Mode, Origin, Setting};
use crate::policy::reasons::Reasons;

/// What the plan of a container depends on.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What is set for its function.
    pub settings: &'a FunctionSettings,
    /// Version of the control groups that hold the memory controller.
    pub cgroup: u8,
    /// The limit that its configuration declares.
    pub declared: Option<Bytes>,
    /// The least limit of the control groups above its own.
    pub above: Option<Bytes>,
    /// Whether its configuration or somebody else has set `memory.high`.
    pub high_is_taken: bool,
    /// What is known of its function.
    pub profile: Option<&'a Profile>,
    /// Numbers that describe its input.
    pub features: &'a BTreeMap<String, f64>,
}

/// The plan, with a reason for each of its numbers. The same request gives the same plan.
pub fn plan(request: &Request<'_>) -> Plan {
    let settings = request.settings;
    let mut reasons = Reasons::default();
    let ceiling = ceiling(request, &mut reasons);
    let margins = Margins {
        pad: settings.pad.value,
        lead: settings.lead.value,
        settle: settings.settle.value,
        hold: settings.hold.value,
        keep_alive: settings.keep_alive.value,
    };
    let chosen = request.profile.and_then(|profile| {
        let class = settings.class.as_ref().map(|class| &class.value);
        let (name, class) = choose(profile, class, request.features)?;
        Some((profile, name, class))
    });
    let mode = mode(request, ceiling, chosen.is_some(), &mut reasons);
    let mut plan = Plan {
        mode,
        ceiling,
        lowered: lowered(settings, request.declared, ceiling),
        set: settings.ceiling.as_ref().map(|setting| setting.value),
        above: request.above,
        grant: None,
        floor: settings.floor.as_ref().map_or(Bytes::ZERO, |f| f.value),
        largest: None,
        class: None,
        margins,
        forecast: None,
        reasons: Vec::new(),
    };
    if let Some(floor) = &settings.floor {
        let change = "floor in the table of the function, annotation elastic-mem.io/floor";
        reasons.add("floor", floor.value.to_megabytes(), from(floor), change);
    }
    if let Some((profile, name, class)) = chosen.filter(|_| mode.grants()) {
        let forecast = forecast(profile, class, request.settings.mode.value);
        if request.cgroup != 1 {
            // Nothing wakes the sampler between two looks.
            plan.margins.pad = pad_of(forecast.most, &margins);
        }
        reasons.class(request, name, class, &forecast);
        let largest = rounded(largest_of(forecast.most, &margins), settings.step.value);
        reasons.largest(settings, &forecast, &margins, largest);
        let first = first(mode, &forecast, &margins, largest);
        plan.grant = Some(first.max(plan.floor)).filter(|grant| ceiling.is_none_or(|c| *grant < c));
        reasons.first(mode, plan.grant);
        plan.largest = Some(largest);
        plan.class = Some(name.clone());
        plan.forecast = Some(forecast);
        reasons.margins(settings, plan.margins.pad);
    }
    plan.reasons = reasons.0;
    plan
}

fn ceiling(request: &Request<'_>, reasons: &mut Reasons) -> Option<Bytes> {
    let lowered = request.settings.ceiling.as_ref();
    let candidates = [
        request
            .declared
            .map(|bytes| (bytes, "the declared limit".to_owned())),
        request.above.map(|bytes| {
            (
                bytes,
                "the limit of a control group above: the kernel grants no more".to_owned(),
            )
        }),
        lowered.map(|setting| (setting.value, from(setting))),
    ];
    let least = candidates
        .into_iter()
        .flatten()
        .min_by_key(|(bytes, _)| *bytes);
    match least {
        Some((bytes, because)) => {
            reasons.add(
                "ceiling",
                bytes.to_megabytes(),
                because,
                "another declared limit (spec, Update)",
            );
            Some(bytes)
        }
        None => {
            reasons.add(
                "ceiling",
                "none",
                "no limit is declared".to_owned(),
                "linux.resources.memory.limit (docker --memory, resources.limits.memory)",
            );
            None
        }
    }
}

/// The ceiling, where settings make it less than what is declared.
fn lowered(
    settings: &FunctionSettings,
    declared: Option<Bytes>,
    ceiling: Option<Bytes>,
) -> Option<Bytes> {
    let set = settings.ceiling.as_ref().map(|setting| setting.value)?;
    let is_less = declared.is_none_or(|declared| set < declared);
    (is_less && ceiling == Some(set)).then_some(set)
}

fn mode(
    request: &Request<'_>,
    ceiling: Option<Bytes>,
    has_profile: bool,
    reasons: &mut Reasons,
) -> Mode {
    let setting = &request.settings.mode;
    let wanted = setting.value;
    let observed = match wanted.grants() {
        false => None,
        true if request.cgroup == 1 && setting.origin == Origin::Default => Some((
            "on cgroup v1 a mode that changes limits has to be chosen".to_owned(),
            "memory.mode = \"elastic\", or mode in the table of the function",
        )),
        true if request.cgroup == 1 && ceiling.is_none() => Some((
            "cgroup v1, and no limit is declared: none is set".to_owned(),
            "a declared limit",
        )),
        true if request.high_is_taken => Some((
            "memory.high is set by somebody else (the configuration, or kubelet's memory QoS)"
                .to_owned(),
            "leave memory.high alone",
        )),
        true if !has_profile => Some((
            format!("fewer than {LEAST_RUNS} complete runs are known"),
            "more runs, or elastic-mem trace; elastic-mem profile list shows what is known",
        )),
        true => None,
    };
    match observed {
        Some((why, change)) => {
            reasons.add(
                "mode",
                Mode::Observe,
                format!("{wanted} ({}), but {why}", from(setting)),
                change,
            );
            Mode::Observe
        }
        None => {
            reasons.add(
                "mode",
                wanted,
                from(setting),
                "memory.mode, the table of the function, an annotation",
            );
            wanted
        }
    }
}

/// What the runs of a class say of the next one: by the clock by which fewer of them left the hull of the others, or if it
/// is not replayed, by which they foresee growth better.
fn forecast(profile: &Profile, class: &ClassProfile, mode: Mode) -> Forecast {
    let (clock, hulls) = match &class.by_cpu {
        Some(hulls) if prefers_cpu(class, mode) => (Clock::Cpu, hulls),
        _ => (Clock::Wall, &class.wall),
    };
    // Where nobody looked that often, all of it may have come at once.
    let burst = class.burst.unwrap_or(class.usage_peak.max);
    Forecast {
        clock,
        trusted: trusted(class) == Some(clock),
        foresight: foresight(class, clock),
        hull: hulls.sum(),
        most: class.usage_peak.max,
        jump: class.jump.unwrap_or(burst).min(burst),
        burst,
        bins: profile.bins.clone(),
        classes: profile
            .classes
            .iter()
            .filter(|(_, class)| class.runs >= LEAST_RUNS)
            .map(|(name, class)| (name.clone(), class.usage_peak.max))
            .collect(),
    }
}

fn prefers_cpu(class: &ClassProfile, mode: Mode) -> bool {
    let is_less = |cpu: Option<Confidence>, wall: Option<Confidence>| {
        let share = |confidence: Confidence| {
            // Of 10,000 runs.
            u64::from(confidence.violations) * 10_000 / u64::from(confidence.runs.max(1))
        };
        cpu.zip(wall)
            .is_some_and(|(cpu, wall)| share(cpu) < share(wall))
    };
    if mode == Mode::Replay {
        return is_less(class.cpu_confidence, Some(class.wall_confidence));
    }
    let (cpu, wall) = (foresight(class, Clock::Cpu), foresight(class, Clock::Wall));
    match (cpu.cmp(&wall), cpu) {
        (Ordering::Equal, Foresight::Steady) => is_less(class.cpu_steady, class.wall_steady),
        (Ordering::Equal, _) => is_less(class.cpu_growth, class.wall_growth),
        (order, _) => order == Ordering::Greater,
    }
}

/// The grant before the first look.
fn first(mode: Mode, forecast: &Forecast, margins: &Margins, largest: Bytes) -> Bytes {
    if mode == Mode::Static {
        return largest;
    }
    let width = forecast.hull.width.as_duration();
    // As if the first bin and those of the lead were one.
    let bins = margins.lead.as_micros().div_ceil(width.as_micros().max(1));
    let bins = usize::try_from(bins)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    let need = forecast
        .hull
        .bins
        .iter()
        .take(bins)
        .max()
        .copied()
        .unwrap_or_default();
    let pad = pad_of(forecast.most, margins);
    Bytes::new(need.get().saturating_add(pad.get())).min(largest)
}

/// The next multiple of the operator's step.
fn rounded(grant: Bytes, step: Bytes) -> Bytes {
    grant.round_up(step).unwrap_or(grant)
}

fn from<T>(setting: &Setting<T>) -> String {
    setting.origin.to_string()
}

impl Reasons {
    fn class(
        &mut self,
        request: &Request<'_>,
        name: &ClassName,
        class: &ClassProfile,
        forecast: &Forecast,
    ) {
        let wanted = request.settings.class.as_ref();
        let because = match wanted {
            Some(wanted) if wanted.value == *name => from(wanted),
            Some(wanted) => format!(
                "class {} ({}) has fewer than {LEAST_RUNS} runs",
                wanted.value,
                from(wanted)
            ),
            None if *name == ClassName::all() => {
                "no class is given, and none is told by the input".to_owned()
            }
            None => "by the size of its input".to_owned(),
        };
        let change = "annotations elastic-mem.io/class, elastic-mem.io/input-bytes";
        self.add("class", name, because, change);
        let confidence = match forecast.clock {
            Clock::Wall => Some(class.wall_confidence),
            Clock::Cpu => class.cpu_confidence,
        }
        .unwrap_or_default();
        let word = match (forecast.trusted, forecast.foresight) {
            (true, Foresight::Steady) => "trusted, steady",
            (true, Foresight::About) => "trusted",
            (true, Foresight::None) => "trusted, growth with caution",
            (false, Foresight::Steady) => "of growth alone, steady",
            (false, Foresight::About) => "of growth alone",
            (false, Foresight::None) => "of growth alone, with caution",
        };
        let (clock, growth, steady) = match forecast.clock {
            Clock::Wall => ("wall time", class.wall_growth, class.wall_steady),
            Clock::Cpu => ("CPU time", class.cpu_growth, class.cpu_steady),
        };
        let growth = growth.unwrap_or_default();
        let late = match steady {
            Some(steady) if steady.violations > growth.violations => {
                format!(", {} at another time", steady.violations)
            }
            _ => String::new(),
        };
        self.add(
            "forecast",
            format!("{word}, by {clock}"),
            format!(
                "{} of {} runs left the barrelled hull of the others, {} of {} grew otherwise than they foresee{late}",
                confidence.violations, confidence.runs, growth.violations, growth.runs
            ),
            "more runs; classes of inputs that differ",
        );
    }

    fn largest(
        &mut self,
        settings: &FunctionSettings,
        forecast: &Forecast,
        margins: &Margins,
        largest: Bytes,
    ) {
        let pad = pad_of(forecast.most, margins);
        let because = format!(
            "largest usage of the class {}, and {} or 5 %, in steps of {} ({})",
            forecast.most.to_megabytes(),
            pad.to_megabytes(),
            settings.step.value,
            from(&settings.step)
        );
        self.add(
            "static grant",
            largest.to_megabytes(),
            because,
            "memory.step, memory.pad",
        );
    }

    fn first(&mut self, mode: Mode, grant: Option<Bytes>) {
        let because = match (grant, mode) {
            (None, _) => "there is no room below the ceiling",
            (Some(_), Mode::Static) => "the static grant",
            (Some(_), _) => "what runs of the class need at first, and the pad",
        };
        let value = grant.map_or_else(|| "the ceiling".to_owned(), Bytes::to_megabytes);
        let change = "more runs, memory.lead, memory.pad, floor, another declared limit";
        self.add("first grant", value, because.to_owned(), change);
    }

    fn margins(&mut self, settings: &FunctionSettings, pad: Bytes) {
        let because = match pad > settings.pad.value {
            true => "a part of the largest usage: cgroup v2 tells of no growth between two looks"
                .to_owned(),
            false => from(&settings.pad),
        };
        self.add("pad", pad.to_megabytes(), because, "memory.pad");
        let time = |time: std::time::Duration| format!("{} ms", time.as_millis());
        self.add(
            "lead",
            time(settings.lead.value),
            from(&settings.lead),
            "memory.lead",
        );
        self.add(
            "settle",
            time(settings.settle.value),
            from(&settings.settle),
            "memory.settle",
        );
        self.add(
            "hold",
            time(settings.hold.value),
            from(&settings.hold),
            "memory.hold",
        );
        self.add(
            "keep-alive",
            settings.keep_alive.value,
            from(&settings.keep_alive),
            "memory.keep-alive",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Origin;
    use crate::model::profile::BinWidth;
    use crate::model::trace::{COLUMNS, Trace, VERSION_LINE};
    use crate::policy::learn::{Digests, Rules, digest, learn};
    use crate::policy::settings::tests::settings;

    /// Of a function that has used 320 MiB in three runs, which were looked at so often.
    fn profile(period: u32) -> Profile {
        let run = |number: u32| {
            let context = format!(r##"# context {{"run":"{number}","function":"n/f"}}"##);
            let rows: Vec<String> = (0..10)
                .map(|row| {
                    let (at, usage) = (row * period * 1000, (row + 1) * (32 << 20));
                    format!("{at},{usage}{}", ",".repeat(COLUMNS.len() - 2))
                })
                .collect();
            let header = COLUMNS.join(",");
            let text = format!("{VERSION_LINE}\n{context}\n{header}\n{}\n", rows.join("\n"));
            let trace: Trace = format!("{text}# end {{\"code\":0}}\n").parse().unwrap();
            digest(&trace, BinWidth::default()).unwrap()
        };
        let digests: Digests = (0..3).map(run).collect();
        learn("n/f".parse().unwrap(), &digests, &Rules::default())
    }

    fn planned(cgroup: u8, profile: &Profile) -> Plan {
        let mut settings = settings();
        settings.mode.origin = Origin::Option("--mode");
        plan(&Request {
            settings: &settings,
            cgroup,
            declared: Some(Bytes::new(1 << 30)),
            above: None,
            high_is_taken: false,
            profile: Some(profile),
            features: &BTreeMap::new(),
        })
    }

    fn asked<'a>(
        settings: &'a FunctionSettings,
        profile: &'a Profile,
        features: &'a BTreeMap<String, f64>,
    ) -> Request<'a> {
        Request {
            settings,
            cgroup: 2,
            declared: Some(Bytes::new(1 << 30)),
            above: None,
            high_is_taken: false,
            profile: Some(profile),
            features,
        }
    }

    #[test]
    fn i2_the_least_limit_is_the_ceiling_and_only_settings_lower_one() {
        let (profile, features) = (profile(10), BTreeMap::new());
        let ceiling = |set: Option<u64>, above: Option<u64>| {
            let mut settings = settings();
            settings.ceiling = set.map(|set| Setting::default(Bytes::new(set)));
            let request = Request {
                above: above.map(Bytes::new),
                ..asked(&settings, &profile, &features)
            };
            let plan = plan(&request);
            let get = |bytes: Option<Bytes>| bytes.map(Bytes::get);
            assert_eq!((get(plan.set), get(plan.above)), (set, above));
            (get(plan.ceiling), get(plan.lowered))
        };
        let declared = 1 << 30;
        assert_eq!(ceiling(None, None), (Some(declared), None));
        assert_eq!(ceiling(None, Some(500)), (Some(500), None));
        assert_eq!(ceiling(None, Some(2 * declared)), (Some(declared), None));
        assert_eq!(ceiling(Some(400), Some(500)), (Some(400), Some(400)));
        assert_eq!(ceiling(Some(600), Some(500)), (Some(500), None));
        assert_eq!(ceiling(Some(2 * declared), None), (Some(declared), None));
    }

    #[test]
    fn what_cannot_be_granted_is_observed_and_says_why() {
        let (profile, features, settings) = (profile(10), BTreeMap::new(), settings());
        let asked = asked(&settings, &profile, &features);
        let mode = |request: Request<'_>| {
            let plan = plan(&request);
            let reason = plan.reasons.iter().find(|r| r.what == "mode").unwrap();
            (plan.mode, reason.because.clone())
        };
        assert_eq!(mode(asked.clone()).0, Mode::Elastic);
        let observed = [
            (
                Request {
                    cgroup: 1,
                    ..asked.clone()
                },
                "has to be chosen",
            ),
            (
                Request {
                    high_is_taken: true,
                    ..asked.clone()
                },
                "memory.high is set",
            ),
            (
                Request {
                    profile: None,
                    ..asked.clone()
                },
                "fewer than",
            ),
        ];
        for (request, word) in observed {
            let (mode, because) = mode(request);
            assert_eq!(mode, Mode::Observe);
            assert!(because.contains(word), "{because}");
        }
        // cgroup v2 has a limit that can be moved without one that is declared; cgroup v1 has not.
        let unlimited = Request {
            declared: None,
            ..asked
        };
        assert_eq!(mode(unlimited.clone()).0, Mode::Elastic);
        let mut chosen = settings.clone();
        chosen.mode.origin = Origin::Option("--mode");
        let (mode, because) = mode(Request {
            cgroup: 1,
            settings: &chosen,
            ..unlimited
        });
        assert_eq!(mode, Mode::Observe);
        assert!(because.contains("no limit is declared"), "{because}");
    }

    #[test]
    fn the_pad_is_larger_where_nothing_tells_of_growth() {
        let pad = |cgroup| {
            let plan = planned(cgroup, &profile(10));
            let reason = plan.reasons.iter().find(|r| r.what == "pad").unwrap();
            (plan.margins.pad.mib_up(), reason.because.clone())
        };
        assert_eq!(pad(1), (8, "default".to_owned()));
        assert_eq!(pad(2).0, 20);
        assert!(pad(2).1.contains("cgroup v2"), "{}", pad(2).1);
    }

    #[test]
    fn a_forecast_says_how_far_it_goes() {
        let told = |violations, unforeseen, late| {
            let mut profile = profile(10);
            for class in profile.classes.values_mut() {
                let of = |violations| Confidence {
                    runs: 9,
                    violations,
                    ..Confidence::default()
                };
                class.wall_confidence = of(violations);
                class.wall_growth = Some(of(unforeseen));
                class.wall_steady = Some(of(late));
                (class.cpu_confidence, class.by_cpu) = (None, None);
            }
            let plan = planned(1, &profile);
            let reason = plan.reasons.iter().find(|r| r.what == "forecast").unwrap();
            let late = match late > unforeseen {
                true => format!(", {late} at another time"),
                false => String::new(),
            };
            assert_eq!(
                reason.because,
                format!(
                    "{violations} of 9 runs left the barrelled hull of the others, {unforeseen} of 9 grew otherwise than they foresee{late}"
                )
            );
            reason.value.clone()
        };
        assert_eq!(told(0, 0, 0), "trusted, steady, by wall time");
        assert_eq!(told(0, 0, 5), "trusted, by wall time");
        assert_eq!(told(0, 5, 5), "trusted, growth with caution, by wall time");
        assert_eq!(told(5, 0, 0), "of growth alone, steady, by wall time");
        assert_eq!(told(5, 0, 5), "of growth alone, by wall time");
        assert_eq!(told(5, 5, 5), "of growth alone, with caution, by wall time");
    }

    #[test]
    fn what_nobody_looked_at_may_have_come_at_once() {
        let burst = |period| planned(1, &profile(period)).forecast.unwrap().burst;
        assert_eq!(burst(10).mib_up(), 96);
        assert_eq!(burst(100).mib_up(), 320);
    }
}
