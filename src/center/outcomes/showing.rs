//! One showing: its call, and for an instance a version that the center does not ignore.

use std::collections::HashMap;

use crate::{
    center::client::{
        Api, Center, Error, ExternalInstance, I18n, I18nMap, I18nText, InstanceVersion, MessageStatus,
        MessageUpdate, Millis, Synced,
    },
    command::outcome::{CardStatus, Kind},
    ledger::{Showing, Surface},
};

/// Maximum versions to try until one is not ignored. The first is larger than all we ever sent. If somebody else sent a
/// larger one, the center reports it, and the second is larger than that.
const ROUNDS: u32 = 3;

/// How far ahead of our clock a worker's `update_time` may be, to allow for clock skew. A larger one would override all
/// later reports, of any worker: the platform silently ignores versions that are not larger.
const AHEAD_MS: i64 = 5 * 60_000;

/// Maximum characters on a card, in addition to its title.
const CARD_CHARS: usize = 60;

const STATUS_KEY: &str = "@i18n@status";

/// Why an outcome was not shown.
#[derive(Debug)]
pub(super) struct Problem {
    /// The center's error, or our own.
    pub(super) error: Error,
    /// All suspected faults of the instance: the center reports one at a time.
    pub(super) faults: Vec<String>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { error, faults: Vec::new() }
    }
}

/// Shows an outcome. Returns the version with which an instance was synchronised. Idempotent.
///
/// # Errors
/// The center refuses it, or it cannot be sent at all.
pub(super) async fn show(center: &Center, showing: &Showing, now: Millis) -> Result<Option<i64>, Problem> {
    match showing.surface {
        Surface::Card => Ok(center.update_message(&card(showing)).await.map(|_| None)?),
        Surface::Instance => {
            let given = read(showing)?;
            match synchronise(center, &given, showing.version, now).await {
                Ok(version) => {
                    let faults = with_version(&given, Millis(version), now).faults();
                    if !faults.is_empty() {
                        let faults = faults.join("; ");
                        tracing::warn!(command_id = %showing.command_id, instance_id = showing.target, faults,
                            "approval center accepted an instance but may not display all of it");
                    }
                    Ok(Some(version))
                }
                Err(error) => Err(Problem {
                    error,
                    faults: with_version(
                        &given,
                        first_version(given.update_time, None, now).unwrap_or(now),
                        now,
                    )
                    .faults(),
                }),
            }
        }
    }
}

fn read(showing: &Showing) -> Result<ExternalInstance, Error> {
    let text = showing.instance.as_deref().unwrap_or_default();
    let mut instance: ExternalInstance = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        refused(format!("the instance does not fit this API (line {line}, column {column})"))
    })?;
    // Unknown members are ignored, as in the rest of a report. The center would ignore them as well.
    instance.unknown.clear();
    instance.task_list.iter_mut().for_each(|task| task.unknown.clear());
    instance.cc_list.iter_mut().for_each(|carbon| carbon.unknown.clear());
    Ok(instance)
}

fn refused(problem: String) -> Error {
    Error::Request { api: Api::SyncInstance, problem }
}

fn card(showing: &Showing) -> MessageUpdate {
    let status = showing.status.unwrap_or_else(|| CardStatus::of(showing.kind, showing.action));
    let custom = status == CardStatus::Custom;
    MessageUpdate {
        message_id: showing.target.clone(),
        status: MessageStatus::from(status.as_str()),
        status_name: custom.then(|| STATUS_KEY.to_owned()),
        detail_action_name: None,
        i18n_resources: if custom { words(showing) } else { Vec::new() },
    }
}

/// The texts of a card with a custom status, in the languages of cards (platform.md#sending-a-card).
fn words(showing: &Showing) -> Vec<I18nMap> {
    let [applied, refused, failed] = [
        ["已处理", "Done", "処理済み"],
        ["未生效", "Not applied", "適用されませんでした"],
        ["处理失败", "Failed", "処理に失敗しました"],
    ];
    let title = match showing.kind {
        Kind::Applied => applied,
        Kind::Refused => refused,
        Kind::Failed => failed,
    };
    let languages = [("zh-CN", title[0], "："), ("en-US", title[1], ": "), ("ja-JP", title[2], "：")];
    languages
        .into_iter()
        .map(|(locale, title, colon)| {
            let value = match (&showing.message, showing.status) {
                (None, _) => title.to_owned(),
                // The worker's own status has the worker's text only.
                (Some(message), Some(_)) => message.clone(),
                (Some(message), None) => format!("{title}{colon}{message}"),
            };
            let text = I18nText { key: STATUS_KEY.to_owned(), value: short(&value) };
            I18nMap(I18n { locale: locale.to_owned(), is_default: locale == "zh-CN", texts: vec![text] })
        })
        .collect()
}

/// Converts to one line, truncated to fit a card.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= CARD_CHARS {
        return line;
    }
    line.chars().take(CARD_CHARS - 1).chain(['…']).collect()
}

/// Synchronises the instance with a version that is not ignored, and returns that version.
async fn synchronise(
    center: &Center,
    given: &ExternalInstance,
    last: Option<i64>,
    now: Millis,
) -> Result<i64, Error> {
    let mut version = first_version(given.update_time, last, now)?;
    let mut round = 1;
    loop {
        let instance = with_version(given, version, now);
        let synced = center.sync_instance(&instance).await?;
        if took_everything(&instance, &synced) {
            return Ok(version.0);
        }
        let differing = center.check_instances(&[instance.version()]).await?;
        match larger(&instance, &differing) {
            None if synced.process_record.is_none() || round > 1 => return Ok(version.0),
            // The center reports no change and has what we sent. Either we sent it before a crash that prevented the
            // commit, or somebody else sent the same version with other content, which cannot be detected.
            None => version = above(version)?,
            Some(theirs) if round == ROUNDS => {
                let problem = format!("it reports {theirs}, larger than our {version}, every time");
                return Err(refused(format!("the center ignores the instance: {problem}")));
            }
            Some(theirs) => version = above(theirs)?,
        }
        let instance_id = &*instance.instance_id;
        tracing::debug!(instance_id, %version, "approval center ignored an instance update; retrying with a higher update_time");
        round += 1;
    }
}

/// The worker's version, unless it is absent, not larger than the last one sent, or far ahead of the clock.
fn first_version(given: Millis, last: Option<i64>, now: Millis) -> Result<Millis, Error> {
    let wanted = if given == Millis::NEVER { now } else { given.min(latest(now)) };
    match last {
        Some(last) if last >= wanted.0 => above(Millis(last)),
        _ => Ok(wanted),
    }
}

/// The largest version that a worker may set.
fn latest(now: Millis) -> Millis {
    Millis(now.0.saturating_add(AHEAD_MS))
}

/// The next larger version.
///
/// # Errors
/// There is none: the center would ignore any update and report success.
fn above(version: Millis) -> Result<Millis, Error> {
    version.0.checked_add(1).map(Millis).ok_or_else(|| {
        refused(format!(
            "the center has update_time {version}, the maximum, and ignores everything that is not larger"
        ))
    })
}

/// The instance as sent. Nothing in it is older than the instance, since the center ignores each item that is not
/// larger than its own (platform.md#versions-and-update-modes). Nothing is far ahead of the clock unless necessary.
/// REPLACE would compare no versions, and delete tasks that the worker does not mention.
fn with_version(given: &ExternalInstance, version: Millis, now: Millis) -> ExternalInstance {
    let mut instance = given.clone();
    instance.update_mode = Some("UPDATE".to_owned());
    instance.update_time = version;
    let latest = latest(now);
    for task in &mut instance.task_list {
        task.update_time = task.update_time.min(latest).max(version);
    }
    for carbon in &mut instance.cc_list {
        carbon.update_time = carbon.update_time.min(latest).max(version);
    }
    instance
}

/// True if the center reports a change for everything sent. If it reports nothing, the caller asks it.
fn took_everything(instance: &ExternalInstance, synced: &Synced) -> bool {
    synced.process_record.is_some_and(|record| {
        let took = |count: crate::center::client::ProcessCount| count.insert_num + count.update_num;
        took(record.instance) > 0
            && took(record.task) >= instance.task_list.len() as u64
            && took(record.cc) >= instance.cc_list.len() as u64
    })
}

/// The largest version at the center that differs from the one sent; `None` if all match.
fn larger(instance: &ExternalInstance, differing: &[InstanceVersion]) -> Option<Millis> {
    let sent: HashMap<&str, Millis> =
        instance.task_list.iter().map(|task| (&*task.task_id, task.update_time)).collect();
    let theirs = differing.iter().filter(|one| one.instance_id == instance.instance_id).flat_map(|one| {
        let tasks = one.tasks.iter().filter(|task| sent.get(&*task.task_id) != Some(&task.update_time));
        let own = Some(one.update_time).filter(|time| *time != instance.update_time);
        own.into_iter().chain(tasks.map(|task| task.update_time))
    });
    theirs.max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        center::client::{ProcessCount, ProcessRecord, TaskVersion},
        command::{Action, CommandId},
    };
    use serde_json::json;

    fn showing(kind: Kind, status: Option<CardStatus>, message: Option<&str>) -> Showing {
        Showing {
            id: 1,
            command_id: CommandId::parse("019a0000-0000-7000-8000-000000000001").unwrap(),
            surface: Surface::Card,
            target: "7123456789012345678".to_owned(),
            attempts: 0,
            action: Action::Approve,
            kind,
            status,
            message: message.map(str::to_owned),
            instance: None,
            version: None,
        }
    }

    fn shown(kind: Kind, status: Option<CardStatus>, message: Option<&str>) -> (String, Vec<String>) {
        let update = card(&showing(kind, status, message));
        let texts = update.i18n_resources.iter().map(|resource| resource.0.texts[0].value.clone()).collect();
        assert_eq!(update.status_name.is_some(), update.status == MessageStatus::Custom);
        (update.status.to_string(), texts)
    }

    #[test]
    fn the_documents_have_the_words_of_a_card() {
        for page in ["docs/workers.md", "docs/zh-CN/workers.md"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
            let text = std::fs::read_to_string(path).expect(page);
            for kind in [Kind::Refused, Kind::Failed] {
                let (_, words) = shown(kind, None, None);
                let cell = format!("| `{}` |", kind.as_str());
                let row = text.lines().find(|line| line.starts_with(&cell)).expect(page);
                assert!(row.contains(&words.join(" / ")), "{page} lacks {words:?}: {row}");
            }
            for action in [Action::Approve, Action::Reject, Action::Custom] {
                let status = CardStatus::of(Kind::Applied, action).as_str();
                assert!(text.contains(&format!("`{status}`")), "{page} lacks {status}");
            }
        }
    }

    #[test]
    fn a_card_shows_a_status_of_the_platform_or_words() {
        assert_eq!(shown(Kind::Applied, None, Some("x")), ("APPROVED".to_owned(), vec![]));
        assert_eq!(shown(Kind::Failed, Some(CardStatus::Rollback), None), ("ROLLBACK".to_owned(), vec![]));
        let texts = |texts: [&str; 3]| ("CUSTOM".to_owned(), texts.map(str::to_owned).to_vec());
        assert_eq!(
            shown(Kind::Refused, None, None),
            texts(["未生效", "Not applied", "適用されませんでした"])
        );
        assert_eq!(
            shown(Kind::Failed, None, Some("ERP\ndown")),
            texts(["处理失败：ERP down", "Failed: ERP down", "処理に失敗しました：ERP down"])
        );
        assert_eq!(shown(Kind::Applied, Some(CardStatus::Custom), Some("归档")), texts(["归档"; 3]));
        assert_eq!(
            shown(Kind::Applied, Some(CardStatus::Custom), None),
            texts(["已处理", "Done", "処理済み"])
        );
        let (_, long) = shown(Kind::Refused, None, Some(&"长".repeat(100)));
        assert!(
            long.iter().all(|text| text.chars().count() == CARD_CHARS && text.ends_with('…')),
            "{long:?}"
        );
    }

    fn instance() -> ExternalInstance {
        serde_json::from_value(json!({
            "instance_id": "I", "update_time": "100", "update_mode": "REPLACE",
            "task_list": [{ "task_id": "T1", "update_time": "50" }, { "task_id": "T2", "update_time": "300" }],
            "cc_list": [{ "cc_id": "C", "update_time": "1" }]
        }))
        .unwrap()
    }

    #[test]
    fn a_version_is_the_workers_or_now_and_larger_than_the_last() {
        let first = |given, last| first_version(Millis(given), last, Millis(1000)).unwrap().0;
        assert_eq!(first(100, None), 100);
        assert_eq!(first(100, Some(99)), 100);
        assert_eq!(first(100, Some(100)), 101);
        assert_eq!(first(100, Some(5000)), 5001);
        assert_eq!(first(0, None), 1000);
        assert_eq!(first(0, Some(1000)), 1001);
    }

    #[test]
    fn a_version_is_no_more_than_minutes_ahead_of_the_clock_unless_it_has_to_be() {
        let now = Millis(1_790_000_000_000);
        let latest = now.0 + 5 * 60_000;
        let first = |given, last| first_version(Millis(given), last, now).map(|version| version.0).ok();
        assert_eq!(first(latest, None), Some(latest));
        assert_eq!(first(i64::MAX, None), Some(latest));
        assert_eq!(first(i64::MAX, Some(latest)), Some(latest + 1), "what was sent before has to be topped");
        assert_eq!(first(1, Some(i64::MAX)), None, "nothing tops it, and it is not said to be shown");
        let mut far = instance();
        far.task_list[1].update_time = Millis(i64::MAX);
        far.cc_list[0].update_time = Millis(i64::MAX);
        let sent = with_version(&far, now, now);
        assert_eq!((sent.task_list[1].update_time.0, sent.cc_list[0].update_time.0), (latest, latest));
        let topped = with_version(&far, Millis(latest + 1), now);
        assert_eq!(topped.task_list[1].update_time.0, latest + 1);
    }

    #[test]
    fn nothing_in_an_instance_is_older_than_itself_and_nothing_is_replaced() {
        let sent = with_version(&instance(), Millis(101), Millis(1000));
        assert_eq!((sent.update_time.0, sent.update_mode.as_deref()), (101, Some("UPDATE")));
        assert_eq!(sent.task_list.iter().map(|task| task.update_time.0).collect::<Vec<_>>(), [101, 300]);
        assert_eq!(sent.cc_list[0].update_time.0, 101);
    }

    #[test]
    fn what_was_ignored_is_noticed() {
        let sent = with_version(&instance(), Millis(100), Millis(1000));
        let count = |update_num| ProcessCount { update_num, ..ProcessCount::default() };
        let synced = |instance, task, cc| Synced {
            process_record: Some(ProcessRecord {
                instance: count(instance),
                task: count(task),
                cc: count(cc),
            }),
            ..Synced::default()
        };
        assert!(took_everything(&sent, &synced(1, 2, 1)));
        for other in [synced(0, 2, 1), synced(1, 1, 1), synced(1, 2, 0), Synced::default()] {
            assert!(!took_everything(&sent, &other));
        }
    }

    #[test]
    fn the_largest_version_of_the_center_counts() {
        let sent = with_version(&instance(), Millis(100), Millis(1000));
        let task = |id: &str, time| TaskVersion { task_id: id.to_owned(), update_time: Millis(time) };
        let has = |time, tasks| {
            vec![InstanceVersion { instance_id: "I".to_owned(), update_time: Millis(time), tasks }]
        };
        assert_eq!(larger(&sent, &[]), None);
        assert_eq!(larger(&sent, &has(700, vec![])), Some(Millis(700)));
        assert_eq!(larger(&sent, &has(100, vec![task("T1", 900), task("T2", 300)])), Some(Millis(900)));
        let other = vec![InstanceVersion { instance_id: "J".to_owned(), ..InstanceVersion::default() }];
        assert_eq!(larger(&sent, &other), None);
    }
}
