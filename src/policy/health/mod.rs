//! What has to hold on a host so that containers run and their memory is saved: facts in, findings out.
//!
//! Whoever gathers the facts decides nothing, and each finding can be provoked in a test. A finding has an id that stays
//! the same over versions, so that scripts can look for it.

mod engines;
mod host;
mod own;
mod placement;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use engines::{Containerd, ContainerdConfig, Docker, DockerRuntime, Handler, Shim};
pub use host::{Cgroups, Host, Layout, LimitTrial, PressureReports};
pub use own::{ConfigFiles, Container, Own, Owner, Problem, Profiles, StateFolder};
pub use placement::Placement;

/// How bad it is, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Nothing is wrong, and something could be had that is not.
    Note,
    /// Something that was asked for does not happen, or will not.
    Warning,
    /// Containers fail, or are worse off than without us.
    Error,
}

impl Status {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at. Stays the same over versions.
    pub id: &'static str,
    /// Which one, where there can be several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// How bad it is.
    pub status: Status,
    /// What was seen.
    pub seen: String,
    /// What follows from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub means: Option<String>,
    /// What to do: a command, or what to change in which file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    fn new(status: Status, id: &'static str, seen: impl Into<String>) -> Self {
        Self {
            id,
            about: None,
            status,
            seen: seen.into(),
            means: None,
            fix: None,
        }
    }

    fn ok(id: &'static str, seen: impl Into<String>) -> Self {
        Self::new(Status::Ok, id, seen)
    }

    fn note(id: &'static str, seen: impl Into<String>) -> Self {
        Self::new(Status::Note, id, seen)
    }

    fn warning(id: &'static str, seen: impl Into<String>) -> Self {
        Self::new(Status::Warning, id, seen)
    }

    fn error(id: &'static str, seen: impl Into<String>) -> Self {
        Self::new(Status::Error, id, seen)
    }

    fn means(mut self, text: impl Into<String>) -> Self {
        self.means = Some(text.into());
        self
    }

    fn fix(mut self, text: impl Into<String>) -> Self {
        self.fix = Some(text.into());
        self
    }

    fn about(mut self, text: impl Into<String>) -> Self {
        self.about = Some(text.into());
        self
    }
}

/// All that was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The kernel and what this process may do.
    pub host: Host,
    /// Memory nodes.
    pub placement: Placement,
    /// The containerds that run.
    pub containerds: Vec<Containerd>,
    /// Docker, if it is here.
    pub docker: Option<Docker>,
    /// What is ours: configuration, records, profiles.
    pub own: Own,
}

/// What is to be said of it, in the order in which one thing needs the other.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = host::judge(&facts.host, facts.own.config.mode);
    findings.extend(placement::judge(&facts.placement));
    findings.extend(engines::judge(&facts.containerds, facts.docker.as_ref()));
    findings.extend(own::judge(&facts.own, facts.host.is_root));
    findings
}

/// The worst of all; no findings are ok.
pub fn worst(findings: &[Finding]) -> Status {
    let all = findings.iter().map(|finding| finding.status);
    all.max().unwrap_or(Status::Ok)
}

/// `1 file`, `3 files`.
fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}
