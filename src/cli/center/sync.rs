//! `center sync`, `center check-instances`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{failure, read_json, when};
use crate::{
    center::client::{Center, Error, ExternalInstance, InstanceVersion, Millis, Synced},
    cli::{
        exit::{Exit, Failure},
        output::{json, line, lines, say, table},
        time::ZoneArguments,
    },
    time::Zone,
};

/// Instances checked per request. The platform documents no limit (platform.md#checking-instances).
const AT_ONCE: usize = 20;

const EXAMPLES: &str = "\
Examples:
  countersign center sync instance.json
  jq -c '.[]' many.json | countersign center sync -

A file holds one instance or several, as POST external_instances takes them. All faults are
reported before anything is sent; the platform itself reports one at a time. What the platform
ignored silently, because update_time was not larger, is reported afterwards.
Nobody is notified: send a card for that.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Arguments {
    /// Files of JSON; - is stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only check the files, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Send despite faults
    #[arg(long, conflicts_with = "dry_run")]
    force: bool,
    /// Print one JSON object per instance
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign center check-instances instance.json
  jq -c '.[]' many.json | countersign center check-instances -")]
pub(in crate::cli) struct CheckArguments {
    /// Files of JSON with instances as they are synchronised, or as {instance_id, update_time, tasks}; - is stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print the differences as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: ZoneArguments,
}

pub(super) async fn run(arguments: &Arguments, center: &Center) -> Result<Exit, Failure> {
    let mut instances = Vec::new();
    for file in &arguments.files {
        instances.extend(read_json::<ExternalInstance>(file)?);
    }
    let mut faulty = false;
    for instance in &instances {
        for fault in instance.faults() {
            faulty = true;
            say(format_args!("{}: {fault}", instance.instance_id));
        }
    }
    if faulty && !arguments.force {
        return Err(Failure::Usage("nothing was sent (--force sends anyway)".to_owned()));
    }
    if arguments.dry_run {
        say(format_args!("{} to send, no faults", instances.len()));
        return Ok(Exit::Done);
    }
    let (mut exit, many) = (Exit::Done, instances.len());
    for (at, instance) in instances.iter().enumerate() {
        if many > 1 {
            say(format_args!("{} of {many}", at + 1));
        }
        let synced = center.sync_instance(instance).await.map_err(failure)?;
        let ignored = ignored(center, instance, &synced).await.map_err(failure)?;
        if !ignored.is_empty() {
            exit = Exit::Failed;
        }
        tell(instance, &synced, &ignored, arguments.json)?;
    }
    Ok(exit)
}

/// Finds what the platform ignored despite a success answer (platform.md#versions-and-update-modes): by the counts,
/// if present, and by querying.
async fn ignored(
    center: &Center,
    instance: &ExternalInstance,
    synced: &Synced,
) -> Result<Vec<String>, Error> {
    let mut ignored = Vec::new();
    if synced.process_record.is_some_and(|record| record.is_empty()) {
        ignored.push("nothing was changed: update_time is not larger than what the center has".to_owned());
    }
    for different in center.check_instances(&[instance.version()]).await? {
        if different.update_time != instance.update_time {
            ignored.push(format!(
                "the center has the instance as of {}, not {}",
                different.update_time, instance.update_time
            ));
        }
        for task in &different.tasks {
            ignored.push(match task.update_time {
                Millis::NEVER => format!("the center does not have the task {}", task.task_id),
                time => format!("the center has the task {} as of {time}", task.task_id),
            });
        }
    }
    Ok(ignored)
}

fn tell(
    instance: &ExternalInstance,
    synced: &Synced,
    ignored: &[String],
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        return json(&json!({
            "instance_id": instance.instance_id, "data": synced.data, "process_record": synced.process_record,
            "ignored": ignored,
        }));
    }
    let mut words = vec![instance.instance_id.clone(), instance.status.to_string()];
    if let Some(record) = synced.process_record {
        for (what, count) in [("instance", record.instance), ("tasks", record.task), ("cc", record.cc)] {
            for (done, number) in
                [("new", count.insert_num), ("changed", count.update_num), ("removed", count.delete_num)]
            {
                if number > 0 {
                    words.push(format!("{what}: {number} {done}"));
                }
            }
        }
    }
    line(words.join("  "))?;
    ignored.iter().for_each(|problem| say(format_args!("{}: {problem}", instance.instance_id)));
    Ok(())
}

pub(super) async fn check(arguments: &CheckArguments, center: &Center) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    let mut versions = Vec::new();
    for file in &arguments.files {
        for value in read_json::<serde_json::Value>(file)? {
            // An instance in the sync format has another name for its tasks.
            let read = if value.get("task_list").is_some() || value.get("approval_code").is_some() {
                serde_json::from_value(value).map(|instance: ExternalInstance| instance.version())
            } else {
                serde_json::from_value::<InstanceVersion>(value)
            };
            versions.push(read.map_err(|error| super::wrong(file, error))?);
        }
    }
    let mut different = Vec::new();
    for (at, batch) in versions.chunks(AT_ONCE).enumerate() {
        if versions.len() > AT_ONCE {
            say(format_args!("{} of {}", at * AT_ONCE, versions.len()));
        }
        different.extend(center.check_instances(batch).await.map_err(failure)?);
    }
    if arguments.json {
        different.iter().try_for_each(json)?;
    } else {
        let rows: Vec<_> = different.iter().flat_map(|one| rows(one, &versions, &zone)).collect();
        if rows.is_empty() {
            line(format_args!("{} up to date", versions.len()))?;
        } else {
            lines(&table(["INSTANCE", "TASK", "OURS", "THE CENTER'S"], &rows))?;
        }
    }
    Ok(if different.is_empty() { Exit::Done } else { Exit::Failed })
}

fn rows(different: &InstanceVersion, versions: &[InstanceVersion], zone: &Zone) -> Vec<[String; 4]> {
    let ours = versions.iter().find(|version| version.instance_id == different.instance_id);
    let when_exactly = |time| when_exactly(time, zone);
    let unknown =
        |time: Millis| if time == Millis::NEVER { "unknown".to_owned() } else { when_exactly(time) };
    let id = &different.instance_id;
    let mut rows = Vec::new();
    let our_time = ours.map(|ours| ours.update_time).unwrap_or_default();
    if different.tasks.is_empty() || different.update_time != our_time {
        rows.push([id.clone(), "-".to_owned(), when_exactly(our_time), unknown(different.update_time)]);
    }
    for task in &different.tasks {
        let our_task = ours.and_then(|ours| ours.tasks.iter().find(|our| our.task_id == task.task_id));
        let our_time = our_task.map(|task| task.update_time).unwrap_or_default();
        rows.push([id.clone(), task.task_id.clone(), when_exactly(our_time), unknown(task.update_time)]);
    }
    rows
}

/// Includes the raw number: versions may differ by a millisecond.
fn when_exactly(time: Millis, zone: &Zone) -> String {
    format!("{time} {}", when(time, zone))
}
