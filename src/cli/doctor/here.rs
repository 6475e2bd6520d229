//! What is on this machine: the configuration, the ledger, the service.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
    process,
    time::Duration,
};

use super::Report;
use crate::{
    cli::{Trust, client, exit::Failure, reachable, url},
    config::Loaded,
    ledger::sqlite::Reader,
    telemetry::log::chain,
    time::Timestamp,
};

/// An answer of a listener on this machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fresh commands are with the broker within a second; older ones wait for something.
const OLD: Duration = Duration::from_secs(60);

pub(super) fn configuration(report: &mut Report, loaded: &Loaded) -> Result<(), Failure> {
    for fault in loaded.faults().iter().chain(loaded.lapsed()) {
        report.wrong("configuration", fault.to_string())?;
    }
    for warning in &loaded.warnings {
        report.risky("configuration", warning.to_string())?;
    }
    if loaded.faults().is_empty() && loaded.lapsed().is_empty() {
        let from = loaded.file.as_ref().map_or_else(
            || "no file; the environment and the defaults".to_owned(),
            |file| file.display().to_string(),
        );
        report.ok("configuration", from)?;
    }
    Ok(())
}

pub(super) fn ledger(report: &mut Report, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(settings) = loaded.ledger() else {
        return report.skipped("ledger", "its configuration is wrong");
    };
    let path = settings.path.as_path();
    let shown = path.display();
    if !path.exists() {
        let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        if !directory.is_dir() {
            let words = format!("the directory of {shown} is not there; make it, writable for the service");
            return report.wrong("ledger", words);
        }
        return match can_be_filled(directory) {
            Ok(()) => report.ok("ledger", format!("{shown} is not there yet; serve makes it")),
            Err(error) => {
                let words = format!("{shown} is not there yet and cannot be made: {error}");
                report.wrong("ledger", format!("{words}. Mend owner, mode or mount of its directory"))
            }
        };
    }
    // Opening it so changes nothing, and tells a read-only file, disk or owner from a usable one.
    if let Err(error) = OpenOptions::new().append(true).open(path) {
        let words =
            format!("{shown} cannot be written: {error}; every callback is refused as ledger_unavailable");
        return report.wrong("ledger", format!("{words}. Mend owner, mode or mount"));
    }
    let stats = Reader::open(path)
        .map_err(|error| chain(&error))
        .and_then(|reader| reader.stats().map_err(|error| chain(&error)));
    let stats = match stats {
        Ok(stats) => stats,
        Err(problem) => {
            return report.wrong("ledger", format!("{shown}: {problem}; restore it, or move it away"));
        }
    };
    report.ok("ledger", format!("{shown}: {} published, {} pending", stats.published, stats.pending))?;
    if stats.parked > 0 {
        let words =
            format!("{} commands are parked; see `countersign ledger list --state parked`", stats.parked);
        report.risky("ledger", format!("{words}, mend the cause, then `ledger requeue --all-parked`"))?;
    }
    let age = stats.oldest_pending_at.map(|at| Timestamp::now().since(at));
    if let Some(age) = age.filter(|age| *age > OLD) {
        let words = format!("the oldest pending command waits for {} s; is serve running", age.as_secs());
        report.risky("ledger", format!("{words}, and the broker there?"))?;
    }
    Ok(())
}

/// Whether files can be made in a directory. The one that is made for it is removed at once.
fn can_be_filled(directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!(".countersign-doctor-{}", process::id()));
    OpenOptions::new().write(true).create_new(true).open(&probe)?;
    fs::remove_file(probe)
}

pub(super) async fn service(report: &mut Report, loaded: &Loaded) -> Result<(), Failure> {
    let Ok(listen) = loaded.internal() else {
        return report.skipped("service", "its configuration is wrong");
    };
    if listen.port() == 0 {
        return report.skipped("service", "admin.listen has no fixed port");
    }
    let url = url(&format!("http://{}", reachable(listen)), "/readyz")?;
    match client(&url, Trust::System, PATIENCE)?.get(url.clone()).send().await {
        Err(_) => report.risky(
            "service",
            format!("does not answer at {url}; start `countersign serve`, if it should run on this machine"),
        ),
        Ok(answer) if answer.status() == 200 => report.ok("service", format!("ready at {url}")),
        Ok(answer) => {
            let status = answer.status().as_u16();
            let text: String = answer.text().await.unwrap_or_default().chars().take(200).collect();
            report.wrong("service", format!("not ready ({status}): {}", text.trim()))
        }
    }
}
