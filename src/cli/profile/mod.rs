//! `profile`: asks [`crate::profile`], prints.

mod exchange;
mod form;

use std::collections::BTreeSet;

use super::args::profile::{Bins, Forget, Profile, ProfileVerb, Show, Verify};
use super::{Failure, output};
use crate::config::{Config, nearest};
use crate::model::profile::Profile as Learned;
use crate::model::{ClassName, FunctionKey, RunId};
use crate::policy::learn::{self, Rules};
use crate::profile::{self, Runs, Store, StoreError};

/// Runs the command; its exit code.
pub(super) fn run(args: &Profile, config: &Config) -> Result<u8, Failure> {
    let store = Store::new(&config.profile_folder.value, config.keep_traces.value);
    match &args.verb {
        ProfileVerb::List(args) => list(&store, args.json)?,
        ProfileVerb::Show(args) => show(&store, args)?,
        ProfileVerb::Bins(args) => bins(&store, args)?,
        ProfileVerb::Merge(args) => exchange::merge(&store, args)?,
        ProfileVerb::Import(args) => exchange::import(&store, args)?,
        ProfileVerb::Export(args) => exchange::export(&store, args)?,
        ProfileVerb::Forget(args) => forget(&store, args)?,
        ProfileVerb::Verify(args) => return verify(&store, args),
    }
    Ok(0)
}

/// What is known of one function, for a list.
struct Entry {
    function: FunctionKey,
    /// Or why there is no profile.
    profile: Result<Learned, String>,
}

fn list(store: &Store, json: bool) -> Result<(), Failure> {
    let mut entries = Vec::new();
    for function in store.functions()? {
        let profile = match store.profile(&function) {
            Ok(profile) => Ok(profile),
            Err(StoreError::UnknownFunction(_)) => Err("nothing was learned yet".to_owned()),
            Err(err @ (StoreError::Unfit { .. } | StoreError::NotOurs { .. })) => {
                Err(crate::kernel::chain(&err))
            }
            Err(err) => return Err(err.into()),
        };
        entries.push(Entry { function, profile });
    }
    if json {
        return Ok(output::json(&form::list_json(&entries))?);
    }
    Ok(output::text(&form::list(&entries))?)
}

fn show(store: &Store, args: &Show) -> Result<(), Failure> {
    let profile = known(store, &args.function, store.profile(&args.function))?;
    if args.json {
        return Ok(output::json(&profile)?);
    }
    Ok(output::text(&form::profile(&profile))?)
}

fn bins(store: &Store, args: &Bins) -> Result<(), Failure> {
    let runs = known(store, &args.function, store.runs(&args.function))?;
    let all = learn::candidates(&runs.digests, &Rules::default());
    let found: Vec<_> = all
        .iter()
        .filter(|bins| {
            args.feature
                .as_ref()
                .is_none_or(|name| *name == bins.feature)
        })
        .cloned()
        .collect();
    if let (Some(name), true) = (&args.feature, found.is_empty()) {
        let known: BTreeSet<&str> = all.iter().map(|bins| bins.feature.as_str()).collect();
        return Err(Failure::new(if known.is_empty() {
            format!(
                "no complete run of {} without a given class has a feature",
                args.function
            )
        } else {
            unknown(
                &format!("no run of {} has the feature", args.function),
                name,
                known,
            )
        }));
    }
    if args.json {
        return Ok(output::json(&found)?);
    }
    let profile = known(store, &args.function, store.profile(&args.function))?;
    Ok(output::text(&form::bins(&found, &profile))?)
}

fn forget(store: &Store, args: &Forget) -> Result<(), Failure> {
    let what = if let Some(class) = &args.class {
        let runs = known(store, &args.function, store.runs(&args.function))?;
        given_class(&runs, &args.function, class)?;
        profile::Forget::Class(class.clone())
    } else if args.run.is_empty() {
        profile::Forget::All
    } else {
        let runs = known(store, &args.function, store.runs(&args.function))?;
        let mut names: BTreeSet<RunId> = runs
            .digests
            .iter()
            .map(|digest| digest.run.clone())
            .collect();
        // The trace of a run that cannot be learned from.
        names.extend(
            store
                .traces(&args.function)?
                .into_iter()
                .map(|(run, _)| run),
        );
        for run in &args.run {
            if !names.contains(run) {
                let names = names.iter().map(RunId::as_str);
                let what = format!("{} has no run", args.function);
                return Err(Failure::new(unknown(&what, run.as_str(), names)));
            }
        }
        profile::Forget::Runs(args.run.iter().cloned().collect())
    };
    let count = known(store, &args.function, store.forget(&args.function, &what))?;
    Ok(output::text(&format!(
        "{}: {} forgotten\n",
        args.function,
        form::runs(count)
    ))?)
}

/// A class of which runs can be forgotten is one that was given for them.
fn given_class(runs: &Runs, function: &FunctionKey, class: &ClassName) -> Result<(), Failure> {
    let given: BTreeSet<&ClassName> = runs
        .digests
        .iter()
        .filter_map(|d| d.class.as_ref())
        .collect();
    if given.contains(class) {
        return Ok(());
    }
    if *class == ClassName::all() {
        return Err(Failure::new(format!(
            "class * is of all runs: without --class, all of {function} is forgotten"
        )));
    }
    Err(Failure::new(unknown(
        &format!("no run of {function} was given the class"),
        class.as_str(),
        given.into_iter().map(ClassName::as_str),
    )))
}

fn verify(store: &Store, args: &Verify) -> Result<u8, Failure> {
    let findings = store.verify(args.repair)?;
    if args.json {
        output::json(&form::findings_json(&findings))?;
    } else {
        output::text(&form::findings(&findings, store))?;
    }
    let left = findings.findings.iter().any(|finding| !finding.repaired);
    Ok(u8::from(left))
}

/// Adds the name that is most like it to the error of a function that is not known.
pub(super) fn known<T>(
    store: &Store,
    function: &FunctionKey,
    found: Result<T, StoreError>,
) -> Result<T, Failure> {
    match found {
        Err(StoreError::UnknownFunction(_)) => {
            let functions = store.functions()?;
            let what = format!("{} knows no function", store.root().display());
            let names = functions.iter().map(FunctionKey::as_str);
            let text = unknown(&what, function.as_str(), names);
            Err(Failure::new(
                if text.ends_with('?') || functions.is_empty() {
                    text
                } else {
                    format!("{text}: `elastic-mem profile list` shows those it knows")
                },
            ))
        }
        other => Ok(other?),
    }
}

/// `WHAT "NAME", did you mean "OTHER"?`
pub(super) fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    match nearest::nearest(name, known.into_iter()) {
        Some(other) => format!("{what} {name:?}, did you mean {other:?}?"),
        None => format!("{what} {name:?}"),
    }
}
