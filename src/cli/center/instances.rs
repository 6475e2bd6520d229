//! `center instances`, `center instance`

use std::pin::pin;

use clap::Args;
use futures_util::TryStreamExt;
use serde_json::json;

use super::{IdArguments, Progress, failure, or_dash, when};
use crate::{
    center::client::{
        Center, FilterStatus, FoundInstance, Instance, InstanceFilter, InstanceOptions, Millis,
    },
    cli::{
        exit::{Exit, Failure},
        output::{json, line, lines, say, table},
        time::{ZoneArguments, time},
    },
    time::{Timestamp, Zone},
};

const EXAMPLES: &str = "\
Examples:
  countersign center instances --definition 0F0E0D0C-… --status PENDING --from 30d
  countersign center instances --external-id PO-77 --json
  countersign center instances --user zhang3 --from 2026-11-01 --to 2026-11-21

One of --user, --definition, --code, --external-id and --group must be given. What is found may lag
behind, and revoked instances are left out.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Arguments {
    /// Started by this user
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Of this definition, by its code; together with --group: of either
    #[arg(long, value_name = "CODE")]
    definition: Option<String>,
    /// With this code of the platform's; together with --external-id: with either
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// With this instance_id of ours
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
    /// Of this group of definitions, by our group_code
    #[arg(long, value_name = "CODE")]
    group: Option<String>,
    /// With this title
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Only those that are PENDING, RECALL, REJECT, DELETED, APPROVED or ALL
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Started then or later: "7d ago", "yesterday 10:42", 2026-11-20, RFC 3339, or milliseconds; with --to at most 30
    /// days
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Started then or earlier [default: now, with --from]
    #[arg(long, value_name = "TIME", requires = "from")]
    to: Option<String>,
    /// Language of names: zh-CN, en-US or ja-JP
    #[arg(long, value_name = "LOCALE")]
    locale: Option<String>,
    /// Revoked instances too
    #[arg(long)]
    with_revoked: bool,
    #[command(flatten)]
    ids: IdArguments,
    /// Instances of one page, 5 to 200
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(5..=200))]
    page_size: u16,
    /// Exit after this many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Print one JSON object per instance
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: ZoneArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign center instance 81D31358-93AF-92D6-7425-01A5D67C4E71
  countersign center instance 81D31358-93AF-92D6-7425-01A5D67C4E71 --json | jq .widgets")]
pub(in crate::cli) struct OneArguments {
    /// The instance_code, or the uuid it was created with
    #[arg(value_name = "CODE")]
    code: String,
    /// Use the historic API (v2)
    #[arg(long)]
    historic: bool,
    /// Language of names: zh-CN, en-US or ja-JP
    #[arg(long, value_name = "LOCALE")]
    locale: Option<String>,
    /// Who started it, where the platform requires that
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    #[command(flatten)]
    ids: IdArguments,
    /// Print JSON: the instance, with its form read as `widgets`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: ZoneArguments,
}

pub(super) async fn run(arguments: &Arguments, center: &Center) -> Result<Exit, Failure> {
    let status = match arguments.status.as_deref().map(FilterStatus::from) {
        Some(status) if !status.is_known() => {
            let words: Vec<_> = FilterStatus::ALL.iter().map(FilterStatus::as_str).collect();
            return Err(Failure::Usage(format!("--status {status}: it must be one of {}", words.join(", "))));
        }
        status => status,
    };
    let (now, zone) = (Timestamp::now(), arguments.zone.zone()?);
    let read = |flag: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => time(flag, text, now, &zone).map(|time| Some(Millis(time.as_millisecond()))),
    };
    let (from, to) = (read("--from", &arguments.from)?, read("--to", &arguments.to)?);
    let filter = InstanceFilter {
        user_id: arguments.user.clone(),
        approval_code: arguments.definition.clone(),
        instance_code: arguments.code.clone(),
        instance_external_id: arguments.external_id.clone(),
        group_external_id: arguments.group.clone(),
        instance_title: arguments.title.clone(),
        instance_status: status,
        instance_start_time_from: from,
        instance_start_time_to: to.or(from.map(|_| Millis(now.as_millisecond()))),
        locale: arguments.locale.clone(),
        with_revoked_instance: arguments.with_revoked.then_some(true),
    };
    filter.check().map_err(|problem| Failure::Usage(format!("{problem}; see --help")))?;
    let mut pages = pin!(center.instance_pages(&filter, &arguments.ids.user_id_type, arguments.page_size));
    let mut progress = Progress::default();
    let (mut rows, mut count, mut total) = (Vec::new(), 0, None);
    'pages: while let Some(page) = pages.try_next().await.map_err(failure)? {
        total = page.total.or(total);
        progress.page(page.items.len(), page.total, page.next.is_some());
        for found in &page.items {
            if count == arguments.limit {
                break 'pages;
            }
            count += 1;
            if arguments.json { json(found)? } else { rows.push(row(found, &zone)) }
        }
    }
    if !arguments.json {
        let head = ["STARTED", "ENDED", "STATUS", "TITLE", "EXTERNAL ID", "USER", "GROUP", "NUMBER", "CODE"];
        lines(&table(head, &rows))?;
    }
    if let Some(total) = total.filter(|total| *total > count as u64) {
        say(format_args!("{count} of {total}; the others are revoked, or beyond --limit"));
    }
    Ok(Exit::Done)
}

fn row(found: &FoundInstance, zone: &Zone) -> [String; 9] {
    let FoundInstance { approval, group, instance } = found;
    let title = if instance.title.is_empty() { &approval.name } else { &instance.title };
    [
        when(instance.start_time, zone),
        when(instance.end_time, zone),
        // Use one spelling in all our tables, regardless of the API's.
        instance.status.as_instance().to_string(),
        or_dash(title),
        or_dash(&instance.external_id),
        or_dash(&instance.user_id),
        or_dash(&group.name),
        or_dash(&instance.serial_id),
        instance.code.clone(),
    ]
}

pub(super) async fn show(arguments: &OneArguments, center: &Center) -> Result<Exit, Failure> {
    let zone = arguments.zone.zone()?;
    let options = InstanceOptions {
        locale: arguments.locale.clone(),
        user_id: arguments.user.clone(),
        open_id: None,
        user_id_type: Some(arguments.ids.user_id_type.clone()),
    };
    let instance = if arguments.historic {
        center.historic_instance(&arguments.code, &options).await
    } else {
        center.instance(&arguments.code, &options).await
    }
    .map_err(failure)?;
    if arguments.json {
        let mut value = json!(instance);
        match instance.widgets() {
            Ok(widgets) => value["widgets"] = json!(widgets),
            Err(error) => say(format_args!("the form is not JSON as documented: {error}")),
        }
        json(&value)?;
        return Ok(Exit::Done);
    }
    print(&instance, &zone)?;
    Ok(Exit::Done)
}

fn print(instance: &Instance, zone: &Zone) -> Result<(), Failure> {
    let code = instance.instance_code.clone().unwrap_or_default();
    for (name, value) in [
        ("definition", format!("{} {}", instance.approval_code, instance.approval_name)),
        ("instance", or_dash(&code)),
        ("status", instance.status.to_string()),
        ("reverted", instance.reverted.map_or_else(|| "-".to_owned(), |reverted| reverted.to_string())),
        ("number", or_dash(&instance.serial_number)),
        ("uuid", or_dash(&instance.uuid)),
        ("started", when(instance.start_time, zone)),
        ("ended", when(instance.end_time, zone)),
        ("by", format!("{} {}", instance.user_id, instance.open_id)),
        ("department", or_dash(&instance.department_id)),
        ("changes", instance.modified_instance_code.clone().unwrap_or_else(|| "-".to_owned())),
        ("revokes", instance.reverted_instance_code.clone().unwrap_or_else(|| "-".to_owned())),
    ] {
        line(format_args!("{name:<12} {value}"))?;
    }
    match instance.widgets() {
        Ok(widgets) => {
            let rows: Vec<_> = widgets
                .iter()
                .map(|widget| {
                    let id = widget.custom_id.as_ref().unwrap_or(&widget.id);
                    [widget.name.clone(), id.clone(), widget.kind.clone(), widget.value.summary()]
                })
                .collect();
            section("form", table(["NAME", "ID", "TYPE", "VALUE"], &rows))?;
        }
        Err(error) => section("form", format!("not JSON as documented ({error}): {}\n", instance.form))?,
    }
    let tasks: Vec<_> = instance
        .task_list
        .iter()
        .map(|task| {
            [
                task.id.clone(),
                task.status.to_string(),
                task.kind.clone(),
                or_dash(&task.user_id),
                or_dash(&task.open_id),
                format!("{} {}", task.node_name, task.custom_node_id.as_ref().unwrap_or(&task.node_id)),
                when(task.start_time, zone),
                when(task.end_time, zone),
            ]
        })
        .collect();
    section("tasks", table(["ID", "STATUS", "TYPE", "USER", "OPEN ID", "NODE", "STARTED", "ENDED"], &tasks))?;
    let comments: Vec<_> = instance
        .comment_list
        .iter()
        .map(|comment| {
            let files: Vec<_> = comment.files.iter().map(|file| file.url.as_str()).collect();
            [
                when(comment.create_time, zone),
                comment.user_id.clone(),
                comment.comment.clone(),
                or_dash(&files.join(" ")),
            ]
        })
        .collect();
    section("comments", table(["AT", "USER", "COMMENT", "FILES"], &comments))?;
    let timeline: Vec<_> = instance
        .timeline
        .iter()
        .map(|moment| {
            let ext = moment.ext().unwrap_or_default();
            let mut others = moment.user_id_list.clone();
            others.extend(ext.user_id_list);
            others.extend(Some(ext.user_id).filter(|user| !user.is_empty()));
            others.dedup();
            [
                when(moment.create_time, zone),
                moment.kind.to_string(),
                or_dash(&moment.user_id),
                moment.task_id.clone().unwrap_or_else(|| "-".to_owned()),
                or_dash(&others.join(", ")),
                moment.comment.clone().unwrap_or_default(),
            ]
        })
        .collect();
    section("history", table(["AT", "WHAT", "BY", "TASK", "WHOM", "COMMENT"], &timeline))
}

fn section(name: &str, table: String) -> Result<(), Failure> {
    line("")?;
    line(name)?;
    lines(&table)
}
