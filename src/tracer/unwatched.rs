//! A run that nobody looks at while it goes on, in mode `off`: what others cost is told by comparison with it.

use std::path::Path;
use std::time::Instant;

use super::error::{Result, TracerError};
use crate::kernel::cgroup::{Cgroup, Meter};
use crate::model::trace::{Context, End, Phase, Sample, Trace};
use crate::runtime::chain;

/// Its counters before its start.
#[derive(Debug)]
pub(super) struct Unwatched {
    meter: Meter,
    begin: Instant,
    trace: Trace,
}

impl Unwatched {
    /// Before it starts.
    ///
    /// # Errors
    /// `Usage` when the counters cannot be read.
    pub(super) fn begin(cgroup: &Cgroup, context: Context) -> Result<Self> {
        let meter = Meter::open(cgroup).map_err(|err| TracerError::Usage(chain(&err)))?;
        let mut unwatched = Self {
            meter,
            begin: Instant::now(),
            trace: Trace {
                context: Some(context),
                ..Trace::default()
            },
        };
        unwatched.read(Phase::Init)?;
        Ok(unwatched)
    }

    /// After its end, while its control group is there: a trace of two samples goes to a file.
    ///
    /// # Errors
    /// `Usage` as above, `Io` with the file.
    pub(super) fn end(mut self, code: Option<i32>, file: &Path) -> Result<bool> {
        self.read(Phase::Exit)?;
        self.trace.end = Some(End {
            code,
            peak: self.meter.peak(),
            oom_kills: self.meter.events().1.unwrap_or(0),
            ..End::default()
        });
        // The sampler has made no folder.
        let folder = file.parent().unwrap_or(file);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(file, self.trace.to_string()))
            .map_err(|err| TracerError::io("write", file, err))?;
        Ok(true)
    }

    fn read(&mut self, phase: Phase) -> Result<()> {
        let usage = self.meter.usage();
        let usage = usage.map_err(|err| TracerError::Usage(chain(&err)))?;
        let (limit, high) = self.meter.limits();
        self.trace.samples.push(Sample {
            at: self.begin.elapsed(),
            usage: Some(usage),
            limit,
            high,
            cpu: self.meter.cpu(),
            ev_high: self.meter.events().0,
            phase: Some(phase),
            ..Sample::default()
        });
        Ok(())
    }
}
