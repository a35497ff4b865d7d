//! The file form of a trace.
//!
//! A comment line `# elastic-mem trace 1`, a header, then one line for each sample. Columns are `t_us, usage,
//! anon, file, shmem, kernel, limit, high, cpu_us, refault, psi_some_us, ev_high, ev_oom, phase`, then `n<NODE>`
//! with the bytes on each memory node. A column that is empty was not read at that moment; `max` is no limit.
//! A line `# context {...}` says in JSON what ran ([`Context`]), a line `# end {...}` how it ended ([`End`]);
//! without the latter the trace was cut off. Further lines that begin with `#` are comments and may stand anywhere
//! below the first.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use super::{Context, End, Phase, Sample, Trace};
use crate::model::{Bytes, MemoryLimit};

/// The first line.
pub const VERSION_LINE: &str = "# elastic-mem trace 1";

/// Begins the line of the [`Context`].
const CONTEXT: &str = "# context ";
/// Begins the line of the [`End`].
const END: &str = "# end ";

/// The columns before those of the memory nodes.
pub const COLUMNS: [&str; 14] = [
    "t_us",
    "usage",
    "anon",
    "file",
    "shmem",
    "kernel",
    "limit",
    "high",
    "cpu_us",
    "refault",
    "psi_some_us",
    "ev_high",
    "ev_oom",
    "phase",
];

/// The text is no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TraceError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Trace {
    /// The head of a file: version, context, names of the columns.
    pub fn header(context: Option<&Context>, nodes: &[u32]) -> String {
        let mut out = format!("{VERSION_LINE}\n");
        // Neither has a map with keys that are no text, or a value that JSON lacks.
        if let Some(json) = context.and_then(|context| serde_json::to_string(context).ok()) {
            let _ = writeln!(out, "{CONTEXT}{json}");
        }
        out.push_str(&COLUMNS.join(","));
        for node in nodes {
            // Writing to a string does not fail.
            let _ = write!(out, ",n{node}");
        }
        out.push('\n');
        out
    }
}

impl fmt::Display for Trace {
    /// The file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::header(self.context.as_ref(), &self.nodes))?;
        for sample in &self.samples {
            writeln!(f, "{sample}")?;
        }
        self.end.iter().try_for_each(|end| writeln!(f, "{end}"))
    }
}

impl fmt::Display for End {
    /// The line of the file, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{END}{json}")
    }
}

impl fmt::Display for Sample {
    /// One line of the file, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn cell(f: &mut fmt::Formatter<'_>, value: Option<impl fmt::Display>) -> fmt::Result {
            match value {
                Some(value) => write!(f, ",{value}"),
                None => f.write_char(','),
            }
        }
        fn limit(f: &mut fmt::Formatter<'_>, value: Option<MemoryLimit>) -> fmt::Result {
            match value {
                Some(MemoryLimit::None) => f.write_str(",max"),
                Some(MemoryLimit::Bytes(bytes)) => cell(f, Some(bytes)),
                None => cell(f, None::<u64>),
            }
        }
        write!(f, "{}", self.at.as_micros())?;
        for bytes in [self.usage, self.anon, self.file, self.shmem, self.kernel] {
            cell(f, bytes.map(Bytes::get))?;
        }
        limit(f, self.limit)?;
        limit(f, self.high)?;
        cell(f, self.cpu.map(|time| time.as_micros()))?;
        cell(f, self.refault)?;
        cell(f, self.psi_some.map(|time| time.as_micros()))?;
        cell(f, self.ev_high)?;
        cell(f, self.ev_oom)?;
        cell(f, self.phase.map(Phase::as_str))?;
        self.nodes
            .iter()
            .try_for_each(|node| cell(f, node.map(Bytes::get)))
    }
}

impl Sample {
    /// Reads a line of a file with so many memory nodes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &str, nodes: usize) -> Result<Self, String> {
        sample(line, nodes)
    }
}

impl FromStr for Trace {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        let mut lines = text
            .lines()
            .zip(1..)
            .map(|(text, line)| (line, text.trim_end()));
        let wrong = |line, reason: String| TraceError { line, reason };
        let first = lines.next().map_or("", |(_, text)| text);
        if first != VERSION_LINE {
            return Err(wrong(
                1,
                format!("{} is not {VERSION_LINE:?}", quoted(first)),
            ));
        }
        let mut context = None;
        let mut end = None;
        let mut data = Vec::new();
        for (line, text) in lines {
            let bad = |what: &str, err: serde_json::Error| wrong(line, format!("{what}: {err}"));
            if let Some(json) = text.strip_prefix(CONTEXT) {
                context = Some(serde_json::from_str(json).map_err(|err| bad("context", err))?);
            } else if let Some(json) = text.strip_prefix(END) {
                end = Some(serde_json::from_str(json).map_err(|err| bad("end", err))?);
            } else if !text.is_empty() && !text.starts_with('#') {
                data.push((line, text));
            }
        }
        let mut lines = data.into_iter();
        let (line, header) = lines
            .next()
            .ok_or_else(|| wrong(2, "there is no header".to_owned()))?;
        let nodes = nodes(header).map_err(|reason| wrong(line, reason))?;
        let mut samples: Vec<Sample> = Vec::new();
        for (line, text) in lines {
            let sample = sample(text, nodes.len()).map_err(|reason| wrong(line, reason))?;
            if let Some(last) = samples.last().filter(|last| last.at > sample.at) {
                let reason = format!(
                    "t_us: {} is before {} of the sample above",
                    sample.at.as_micros(),
                    last.at.as_micros()
                );
                return Err(wrong(line, reason));
            }
            samples.push(sample);
        }
        Ok(Self {
            context,
            end,
            nodes,
            samples,
        })
    }
}

/// The node numbers of a header.
fn nodes(header: &str) -> Result<Vec<u32>, String> {
    let mut names = header.split(',').map(str::trim);
    for expected in COLUMNS {
        match names.next() {
            Some(name) if name == expected => {}
            found => {
                return Err(format!(
                    "want column {expected:?}, found {}",
                    found.map_or_else(|| "the end of the header".to_owned(), quoted)
                ));
            }
        }
    }
    let mut seen = BTreeSet::new();
    names
        .map(|name| {
            let node = name
                .strip_prefix('n')
                .and_then(|digits| digits.parse::<u32>().ok())
                .ok_or_else(|| {
                    format!("{} is no column of a memory node, such as n0", quoted(name))
                })?;
            if seen.insert(node) {
                Ok(node)
            } else {
                Err(format!("column {name} is there twice"))
            }
        })
        .collect()
}

/// Foreign text in a message: escaped and not too long.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

/// The cells of a line, with the name of the column in errors.
struct Cells<'a> {
    cells: std::str::Split<'a, char>,
    names: std::slice::Iter<'static, &'static str>,
}

impl<'a> Cells<'a> {
    fn next<T>(
        &mut self,
        wanted: &str,
        parse: impl Fn(&'a str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let name = self.names.next().copied().unwrap_or("node");
        let cell = self
            .cells
            .next()
            .ok_or_else(|| format!("column {name} is missing"))?
            .trim();
        if cell.is_empty() {
            return Ok(None);
        }
        match parse(cell) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("{name}: {} is not {wanted}", quoted(cell))),
        }
    }

    fn bytes(&mut self) -> Result<Option<Bytes>, String> {
        self.next("a number of bytes", |cell| number(cell).map(Bytes::new))
    }

    fn limit(&mut self) -> Result<Option<MemoryLimit>, String> {
        self.next("a number of bytes or max", |cell| match cell {
            "max" => Some(MemoryLimit::None),
            cell => i64::try_from(number(cell)?).ok().map(MemoryLimit::Bytes),
        })
    }

    fn micros(&mut self) -> Result<Option<Duration>, String> {
        self.next("a number of microseconds", |cell| {
            number(cell).map(Duration::from_micros)
        })
    }

    fn count(&mut self) -> Result<Option<u64>, String> {
        self.next("a number", number)
    }
}

/// Digits only.
fn number(cell: &str) -> Option<u64> {
    cell.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| cell.parse().ok())
        .flatten()
}

fn sample(line: &str, nodes: usize) -> Result<Sample, String> {
    let mut cells = Cells {
        cells: line.split(','),
        names: COLUMNS.iter(),
    };
    let mut sample = Sample {
        at: cells
            .micros()?
            .ok_or_else(|| "t_us: every sample has a time".to_owned())?,
        usage: cells.bytes()?,
        anon: cells.bytes()?,
        file: cells.bytes()?,
        shmem: cells.bytes()?,
        kernel: cells.bytes()?,
        limit: cells.limit()?,
        high: cells.limit()?,
        cpu: cells.micros()?,
        refault: cells.count()?,
        psi_some: cells.micros()?,
        ev_high: cells.count()?,
        ev_oom: cells.count()?,
        phase: cells.next("init, execution, keep-alive or exit", |cell| {
            cell.parse().ok()
        })?,
        nodes: Vec::with_capacity(nodes),
    };
    for _ in 0..nodes {
        sample.nodes.push(cells.bytes()?);
    }
    match cells.cells.next() {
        None => Ok(sample),
        Some(extra) => Err(format!("{} stands behind the last column", quoted(extra))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "t_us,usage,anon,file,shmem,kernel,limit,high,cpu_us,refault,psi_some_us,ev_high,ev_oom,phase";

    fn parse(lines: &[&str]) -> Result<Trace, TraceError> {
        format!("{VERSION_LINE}\n{HEADER},n0,n2\n{}\n", lines.join("\n")).parse()
    }

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let trace = parse(&[
            "# a comment",
            "0,100,50,,,,max,4096,7,,,,,init,60,40",
            "1000,200,150,1,2,3,8192,max,9,1,2,3,4,keep-alive,,",
        ])
        .unwrap();
        assert_eq!(trace.nodes, [0, 2]);
        assert_eq!(trace.samples[0].limit, Some(MemoryLimit::None));
        assert_eq!(trace.samples[1].phase, Some(Phase::KeepAlive));
        assert_eq!(trace.samples[1].nodes, [None, None]);
        assert_eq!(trace.to_string().parse(), Ok(trace.clone()));
        assert_eq!(trace.duration(), Duration::from_millis(1));
        assert_eq!(trace.cpu_time(), Some(Duration::from_micros(2)));
        assert_eq!(trace.peak(|s| s.usage), Some(Bytes::new(200)));
    }

    #[test]
    fn context_and_end_survive() {
        let text = format!(
            "{VERSION_LINE}\n# context {{\"run\":\"r1\",\"function\":\"ns/f\",\"features\":{{\"pixels\":1.5}}}}\n\
             {HEADER}\n0,1,,,,,,,,,,,,\n# end {{\"code\":137,\"oomKills\":1}}\n"
        );
        let trace: Trace = text.parse().unwrap();
        let context = trace.context.clone().unwrap();
        assert_eq!(context.function.as_str(), "ns/f");
        assert_eq!(context.features["pixels"], 1.5);
        let end = trace.end.unwrap();
        assert_eq!((end.code, end.placed), (Some(137), None));
        assert!(!trace.to_string().contains("placed"));
        assert_eq!(trace.to_string().parse(), Ok(trace));
        let placed = text.replace(
            "137,",
            "137,\"placed\":{\"moved\":3,\"exchanged\":1,\"later\":0},",
        );
        let trace: Trace = placed.parse().unwrap();
        let counts = trace.end.unwrap().placed.unwrap();
        assert_eq!((counts.moved, counts.exchanged, counts.early), (3, 1, 0));
        assert_eq!(trace.to_string().parse(), Ok(trace));
        let wrong = text.replace("\"ns/f\"", "7").parse::<Trace>();
        assert!(
            wrong
                .unwrap_err()
                .to_string()
                .starts_with("line 2: context:")
        );
    }

    #[test]
    fn blanks_after_commas_are_allowed() {
        let header = HEADER.replace(',', ", ");
        let text = format!("{VERSION_LINE}\n{header}\n0, 1, , , , , , , , , , , , \n");
        let trace: Trace = text.parse().unwrap();
        assert_eq!(trace.samples[0].usage, Some(Bytes::new(1)));
    }

    #[test]
    fn errors_name_line_and_reason() {
        let error = |lines: &[&str]| parse(lines).unwrap_err().to_string();
        let rest = ",,,,,,,,,,,,,,";
        assert_eq!(
            error(&[&format!("0,-1{rest}")]),
            "line 3: usage: \"-1\" is not a number of bytes"
        );
        assert_eq!(
            error(&[&format!("0,1{rest}"), &format!("5,NaN{rest}")]),
            "line 4: usage: \"NaN\" is not a number of bytes"
        );
        assert_eq!(error(&["0,1"]), "line 3: column anon is missing");
        assert_eq!(
            error(&[&format!("5,1{rest}"), &format!("4,1{rest}")]),
            "line 4: t_us: 4 is before 5 of the sample above"
        );
        assert!(error(&[&format!("0,1{rest},")]).contains("behind the last column"));
        assert!(error(&[&format!(",1{rest}")]).contains("every sample has a time"));
        assert!(error(&["0,1,,,,,,,,,,,,sleep,,"]).contains("phase: \"sleep\" is not init"));
    }

    #[test]
    fn other_files_are_refused() {
        let error = |text: &str| text.parse::<Trace>().unwrap_err().to_string();
        assert!(error("").starts_with("line 1:"));
        assert!(error("# elastic-mem trace 2\n").contains("is not \"# elastic-mem trace 1\""));
        assert!(error(&format!("{VERSION_LINE}\n")).contains("no header"));
        assert!(error(&format!("{VERSION_LINE}\nt_us,anon\n")).contains("want column \"usage\""));
        assert!(error(&format!("{VERSION_LINE}\n{HEADER},x\n")).contains("memory node"));
        assert!(error(&format!("{VERSION_LINE}\n{HEADER},n0,n0\n")).contains("twice"));
    }
}
