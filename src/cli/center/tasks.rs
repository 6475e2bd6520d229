//! `center tasks`

use std::pin::pin;

use clap::Args;
use futures_util::TryStreamExt;

use super::{Progress, failure, or_dash, when};
use crate::{
    center::client::{Center, InstanceTasks, Page, TaskFilter, TaskStatus},
    cli::{
        exit::{Exit, Failure},
        output::{json, lines, say, table},
        time::ZoneArguments,
    },
    time::Zone,
};

const EXAMPLES: &str = "\
Examples:
  countersign center tasks --instance PO-77 --instance PO-78
  countersign center tasks --definition 0F0E0D0C-… --status PENDING
  countersign center tasks --definition 0F0E0D0C-… --status PENDING --user zhang3 --json
  countersign center tasks --historic --instance PO-77

The platform takes these three combinations and no other. It does not return who decided, nor why.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Arguments {
    /// Tasks of this instance, by its instance_id; up to 20 times
    #[arg(long, value_name = "ID")]
    instance: Vec<String>,
    /// Tasks of this definition, by its real approval_code; up to 20 times
    #[arg(long, value_name = "CODE")]
    definition: Vec<String>,
    /// Only of this approver, by user_id; may be repeated
    #[arg(long, value_name = "ID")]
    user: Vec<String>,
    /// Only tasks that are PENDING, APPROVED, REJECTED, TRANSFERRED or DONE
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Use the historic API (v2), which scrolls
    #[arg(long)]
    historic: bool,
    /// Instances of one page, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=500))]
    page_size: u16,
    /// Exit after this many instances
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    limit: usize,
    /// Print one JSON object per instance
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: ZoneArguments,
}

pub(super) async fn run(arguments: &Arguments, center: &Center) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    // For an unknown status the platform returns no results instead of an error.
    let status = match arguments.status.as_deref().map(TaskStatus::from) {
        Some(status) if !status.is_known() => {
            let words: Vec<_> = TaskStatus::ALL.iter().map(TaskStatus::as_str).collect();
            return Err(Failure::Usage(format!("--status {status}: it must be one of {}", words.join(", "))));
        }
        status => status,
    };
    let Arguments { instance, definition, user, .. } = arguments;
    let filter = TaskFilter::of(instance.clone(), definition.clone(), user.clone(), status)
        .map_err(|problem| Failure::Usage(format!("{problem}; see --help")))?;
    let found = if arguments.historic {
        gather(center.historic_task_pages(&filter), arguments).await?
    } else {
        gather(center.task_pages(&filter, arguments.page_size), arguments).await?
    };
    if !arguments.json {
        let rows: Vec<_> = found.iter().flat_map(|instance| rows(instance, &zone)).collect();
        let head = ["INSTANCE", "STATUS", "UPDATED", "TASK", "STATUS", "UPDATED", "NUMBER", "DEFINITION"];
        lines(&table(head, &rows))?;
    }
    Ok(Exit::Done)
}

/// Reads pages up to the limit. With --json, prints each instance as it arrives.
async fn gather(
    pages: impl futures_util::Stream<Item = Result<Page<InstanceTasks>, crate::center::client::Error>>,
    arguments: &Arguments,
) -> Result<Vec<InstanceTasks>, Failure> {
    let mut pages = pin!(pages);
    let mut progress = Progress::default();
    let (mut found, mut count) = (Vec::new(), 0);
    while let Some(page) = pages.try_next().await.map_err(failure)? {
        progress.page(page.items.len(), page.total, page.next.is_some());
        for instance in page.items {
            if count == arguments.limit {
                say(format_args!("the first {count}; there are more (--limit)"));
                return Ok(found);
            }
            count += 1;
            if arguments.json {
                json(&instance)?;
            } else {
                found.push(instance);
            }
        }
    }
    Ok(found)
}

fn rows(instance: &InstanceTasks, zone: &Zone) -> Vec<[String; 8]> {
    let row = |task: [String; 3]| {
        let [id, status, updated] = task;
        [
            instance.instance_id.clone(),
            instance.status.to_string(),
            when(instance.update_time, zone),
            id,
            status,
            updated,
            or_dash(&instance.approval_id),
            or_dash(&instance.approval_code),
        ]
    };
    if instance.tasks.is_empty() {
        return vec![row(["-", "-", "-"].map(str::to_owned))];
    }
    let of_task = |task: &crate::center::client::TaskState| {
        row([task.id.clone(), task.status.to_string(), when(task.update_time, zone)])
    };
    instance.tasks.iter().map(of_task).collect()
}
