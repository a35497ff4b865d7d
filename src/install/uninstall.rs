//! Takes out what was installed.

use std::fs;

use super::error::{InstallError, Result};
use super::record::{Entry, Record};
use super::{Action, Done, Engine, Host, Part, Report, files};

/// What is to be taken out.
#[derive(Debug)]
pub struct Removal {
    /// From where. The prefix is that of the record.
    pub host: Host,
    /// The engines that are to forget us; if `None`, all do, and the program goes too.
    pub engines: Option<Vec<Engine>>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Containers of ours that are there, and stop it.
    pub containers: Vec<String>,
}

/// Takes out. `None` if nothing is installed.
///
/// # Errors
/// When nothing could be done. What fails for one file is in the report.
pub fn uninstall(job: &Removal) -> Result<Option<Report>> {
    let host = &job.host;
    let record_file = host.record_file();
    let folder = host.here(&host.folder());
    if !folder.exists() {
        return Ok(None);
    }
    if host.destdir.is_none() && !job.dry_run && !nix::unistd::geteuid().is_root() {
        return Err(InstallError::NotRoot(host.folder()));
    }
    if !job.containers.is_empty() && record_file.exists() {
        return Err(InstallError::InUse(job.containers.clone()));
    }
    let _lock = match job.dry_run {
        true => None,
        false => Some(files::Lock::take(&folder)?),
    };
    let Some(mut record) = Record::read(&record_file)? else {
        if !job.dry_run {
            files::sweep(&record_file);
        }
        return Ok(None);
    };
    let parts: Option<Vec<Part>> = job.engines.as_ref().map(|engines| {
        let engines = engines.iter();
        engines.map(|engine| engine.part()).collect()
    });
    let mut report = Report::default();
    if !job.dry_run {
        record.take_back_begun(host)?;
    }
    // Engines first: they must not name a program that is gone.
    for entry in record.files.clone().into_iter().rev() {
        if parts
            .as_ref()
            .is_some_and(|parts| !parts.contains(&entry.part))
        {
            continue;
        }
        match take_out(host, &record, &entry, job.dry_run) {
            Ok(done) => {
                record.forget(&entry.path);
                if !job.dry_run {
                    record.write(&record_file)?;
                }
                if done.action != Action::Kept {
                    report.restart(host, entry.part);
                }
                report.done.push(done);
            }
            Err(err) => report.failures.push(err),
        }
    }
    if !job.dry_run {
        if record.files.is_empty() {
            files::remove(&record_file)?;
        }
        remove_folders(host, &mut record);
        if !record.files.is_empty() {
            record.write(&record_file)?;
        }
    }
    Ok(Some(report))
}

fn take_out(host: &Host, record: &Record, entry: &Entry, dry_run: bool) -> Result<Done> {
    let here = host.here(&entry.path);
    let mut done = Done {
        path: entry.path.clone(),
        action: Action::Removed,
        texts: None,
        backup: None,
    };
    if entry.sha256.is_none() {
        if !dry_run {
            files::remove(&here)?;
        }
        return Ok(done);
    }
    let found = host.find(record, entry.part, &entry.path)?;
    done.action = match (&found.base, found.is_changed) {
        (None, _) => Action::Removed,
        (Some(_), _) if found.base == found.current => Action::Kept,
        (Some(_), true) => Action::TakenOut,
        (Some(_), false) => Action::Restored,
    };
    if entry.part != Part::Own {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        done.texts = Some((text(&found.current), text(&found.base)));
    }
    if !dry_run {
        files::sweep(&here);
        match &found.base {
            None => files::remove(&here)?,
            Some(base) if found.base != found.current => files::write(&here, base.as_bytes())?,
            Some(_) => {}
        }
        if let Some(backup) = &entry.backup {
            files::remove(&host.here(backup))?;
        }
    }
    Ok(done)
}

/// Removes the folders that were made and are empty.
fn remove_folders(host: &Host, record: &mut Record) {
    record.folders.retain(|folder| host.here(folder).exists());
    let mut folders = record.folders.clone();
    folders.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
    for folder in folders {
        // What others have put into it keeps it there.
        if fs::remove_dir(host.here(&folder)).is_ok() {
            record.folders.retain(|one| *one != folder);
        }
    }
}
