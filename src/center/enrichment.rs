//! Enriches commands with data from the approval center. The relay requests it through [`Enrich`]; the results are in
//! [`command::enrichment`](crate::command::enrichment).
//!
//! Makes at most two calls per command, concurrently and within its deadline: one for the operator's ids (contact v3),
//! cached for some minutes, and one for the instance's tasks (`external_tasks`), not cached since they change. A call
//! whose turn within the rate limits would come later is not made, so that a burst of commands wastes no turns.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{TryStreamExt, future::BoxFuture};
use serde::Deserialize;
use tokio::{
    runtime::Handle,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    center::client::{Center, Error, Fault, InstanceTasks, TaskFilter, UserIdType},
    command::enrichment::{Enrichment, EnrichmentStatus, InstanceShown, OperatorIds, TaskShown},
    ledger::Entry,
    relay::Enrich,
};

/// What to add to an endpoint's commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The operator's other ids.
    pub operator: bool,
    /// The task's status.
    pub task: bool,
    /// The instance's status.
    pub instance: bool,
    /// How long a command may wait for the data.
    pub timeout: Duration,
}

/// How long a user's ids are cached. They never change, but the app's permission to see them may.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// How long it is cached that a user is unknown.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// Pause after the center was unreachable, so that commands do not each wait to find out.
const AWAY_FOR: Duration = Duration::from_secs(5);

/// A failure this close to the deadline counts as late.
const NEARLY: Duration = Duration::from_millis(20);

/// Maximum cached users. Beyond it, the cache is cleared, at the cost of one call per user.
const USERS: usize = 10_000;

/// Enriches commands.
#[derive(Debug)]
pub struct Enricher {
    center: Center,
    endpoints: HashMap<String, Settings>,
    users: Arc<Users>,
    /// Until then the center counts as unreachable and is not called.
    away_until: Arc<Mutex<Option<Instant>>>,
    /// Runs the calls, so that connections outlive the relay that first used them.
    runtime: Handle,
}

/// An operator's ids; `None` if the center does not know them.
type Known = Option<OperatorIds>;

#[derive(Debug, Default)]
struct Users(Mutex<HashMap<String, (Instant, Known)>>);

impl Users {
    fn find(&self, user_id: &str) -> Option<Known> {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, known) = users.get(user_id)?;
        (Instant::now() < *until).then(|| known.clone())
    }

    fn keep(&self, user_id: String, known: Known) {
        let lasting = if known.is_some() { REMEMBERED_FOR } else { UNKNOWN_FOR };
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS {
            users.clear();
        }
        users.insert(user_id, (Instant::now() + lasting, known));
    }
}

impl Enricher {
    /// Enriches the commands of these endpoints, by name. Calls run on `runtime`.
    #[must_use]
    pub fn new(center: Center, endpoints: HashMap<String, Settings>, runtime: Handle) -> Self {
        Self { center, endpoints, users: Arc::default(), away_until: Arc::default(), runtime }
    }
}

impl Enrich for Enricher {
    fn patience(&self, endpoint: &str) -> Option<Duration> {
        self.endpoints.get(endpoint).map(|settings| settings.timeout)
    }

    fn enrich(&self, entry: &Entry, deadline: Instant) -> BoxFuture<'static, Enrichment> {
        let away = *self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = self.endpoints.get(&*entry.envelope.endpoint);
        let Some(settings) = settings.filter(|_| away.is_none_or(|until| Instant::now() >= until)) else {
            return Box::pin(std::future::ready(Enrichment::none(EnrichmentStatus::Unavailable)));
        };
        let asking = Asking {
            center: self.center.within(deadline.saturating_duration_since(Instant::now())),
            users: self.users.clone(),
            away_until: self.away_until.clone(),
            settings: settings.clone(),
            subject: Subject::of(entry),
            deadline,
        };
        // A set with one task, which aborts the task when dropped.
        let mut task = JoinSet::new();
        task.spawn_on(asking.ask(), &self.runtime);
        Box::pin(async move {
            let done = task.join_next().await.and_then(Result::ok);
            done.unwrap_or_else(|| Enrichment::none(EnrichmentStatus::Unavailable))
        })
    }
}

struct Subject {
    user_id: String,
    approval_code: Option<String>,
    instance_id: Option<String>,
    task_id: Option<String>,
}

impl Subject {
    fn of(entry: &Entry) -> Self {
        #[derive(Deserialize)]
        struct Body {
            operator: Approver,
        }
        #[derive(Deserialize)]
        struct Approver {
            user_id: String,
        }
        let body: Option<Body> = serde_json::from_slice(&entry.body).ok();
        Self {
            user_id: body.map(|body| body.operator.user_id).unwrap_or_default(),
            approval_code: entry.envelope.approval_code.clone(),
            instance_id: entry.envelope.instance_id.clone(),
            task_id: entry.envelope.task_id.clone(),
        }
    }
}

struct Asking {
    center: Center,
    users: Arc<Users>,
    away_until: Arc<Mutex<Option<Instant>>>,
    settings: Settings,
    subject: Subject,
    deadline: Instant,
}

enum Answer<T> {
    /// Not requested.
    Unwanted,
    /// The center answered; `None` if it does not know.
    Told(Option<T>),
    Late,
    /// Not called: its turn would have come too late.
    Crowded,
    Failed,
}

impl<T> Answer<T> {
    async fn of(
        deadline: Instant,
        away_until: &Mutex<Option<Instant>>,
        asking: impl Future<Output = Result<Option<T>, Error>>,
    ) -> Self {
        match timeout_at(deadline, asking).await {
            Ok(Ok(told)) => Self::Told(told),
            Ok(Err(error)) => {
                tracing::debug!(%error, "command not completed");
                if let Error::Transport { sent: false, .. } = error {
                    let until = Instant::now() + AWAY_FOR;
                    *away_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
                }
                // A call ends at the deadline, with one error or another. The token is fetched by one command for all,
                // and that fetch ends at the deadline of that command.
                let timed_out = matches!(&error, Error::Transport { source, .. } if source.is_timeout());
                match error {
                    _ if timed_out || Instant::now() + NEARLY >= deadline => Self::Late,
                    Error::NoTurn { .. } => Self::Crowded,
                    _ => Self::Failed,
                }
            }
            Err(_late) => Self::Late,
        }
    }

    fn outcome(&self) -> Option<Lookup> {
        Some(match self {
            Self::Unwanted => return None,
            Self::Told(Some(_)) => Lookup::Known,
            Self::Told(None) => Lookup::Unknown,
            Self::Late => Lookup::Late,
            Self::Crowded => Lookup::Crowded,
            Self::Failed => Lookup::Failed,
        })
    }

    fn told(self) -> Option<T> {
        match self {
            Self::Told(told) => told,
            Self::Unwanted | Self::Late | Self::Crowded | Self::Failed => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    Known,
    Unknown,
    Late,
    Crowded,
    Failed,
}

/// How far a command was enriched, given its lookups.
fn status(outcomes: &[Lookup]) -> EnrichmentStatus {
    let any = |outcome| outcomes.contains(&outcome);
    if outcomes.iter().all(|outcome| *outcome == Lookup::Known) {
        EnrichmentStatus::Complete
    } else if any(Lookup::Known) || any(Lookup::Unknown) {
        EnrichmentStatus::Partial
    } else if any(Lookup::Late) {
        EnrichmentStatus::TimedOut
    } else if outcomes.iter().all(|outcome| *outcome == Lookup::Crowded) {
        EnrichmentStatus::Busy
    } else {
        EnrichmentStatus::Unavailable
    }
}

impl Asking {
    async fn ask(self) -> Enrichment {
        let Settings { operator, task, instance, .. } = self.settings;
        let operators = async {
            if operator {
                Answer::of(self.deadline, &self.away_until, self.operator()).await
            } else {
                Answer::Unwanted
            }
        };
        let instances = async {
            if task || instance {
                Answer::of(self.deadline, &self.away_until, self.instance()).await
            } else {
                Answer::Unwanted
            }
        };
        let (operators, instances) = tokio::join!(operators, instances);
        let by_task = match &instances {
            Answer::Told(told) => told.as_ref().and_then(|told| self.task_of(told)).map(|_| Lookup::Known),
            _ => None,
        };
        let mut outcomes: Vec<Lookup> = operators.outcome().into_iter().collect();
        if instance {
            outcomes.extend(instances.outcome());
        }
        if task {
            // The instance may be known without the task.
            outcomes.extend(match instances.outcome() {
                Some(Lookup::Known) => Some(by_task.unwrap_or(Lookup::Unknown)),
                other => other,
            });
        }
        let shown = instances.told();
        Enrichment {
            status: status(&outcomes),
            operator: operators.told(),
            task: shown.as_ref().filter(|_| task).and_then(|shown| self.task_of(shown)),
            instance: shown.as_ref().filter(|_| instance).map(|shown| InstanceShown {
                status: shown.status.as_str().to_owned(),
                update_time: shown.update_time.timestamp(),
                approval_code: Some(shown.approval_code.clone()).filter(|code| !code.is_empty()),
            }),
        }
    }

    fn task_of(&self, shown: &InstanceTasks) -> Option<TaskShown> {
        let task_id = self.subject.task_id.as_ref()?;
        let task = shown.tasks.iter().find(|task| task.id == *task_id)?;
        Some(TaskShown { status: task.status.as_str().to_owned(), update_time: task.update_time.timestamp() })
    }

    async fn operator(&self) -> Result<Option<OperatorIds>, Error> {
        let user_id = &self.subject.user_id;
        if let Some(known) = self.users.find(user_id) {
            return Ok(known);
        }
        let known = match self.center.user(user_id, &UserIdType::UserId).await {
            Ok(user) => {
                let some = |id: String| Some(id).filter(|id| !id.is_empty());
                Some(OperatorIds { open_id: some(user.open_id), union_id: some(user.union_id) })
            }
            // The center answered: the app may see no such user.
            Err(error) if matches!(error.fault(), Some(Fault::UserUnknown | Fault::Parameter)) => None,
            Err(error) => return Err(error),
        };
        self.users.keep(user_id.clone(), known.clone());
        Ok(known)
    }

    /// The instance with its tasks. Among several with the same id, prefers one that has the task, then one with the
    /// callback's code.
    async fn instance(&self) -> Result<Option<InstanceTasks>, Error> {
        let Some(instance_id) = &self.subject.instance_id else { return Ok(None) };
        let filter = TaskFilter::Instances(vec![instance_id.clone()]);
        let found: Vec<InstanceTasks> = self.center.tasks(&filter).try_collect().await?;
        let fits = |one: &InstanceTasks| {
            (self.task_of(one).is_some(), self.subject.approval_code.as_deref() == Some(&one.approval_code))
        };
        Ok(found.into_iter().filter(|one| one.instance_id == *instance_id).max_by_key(fits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_how_far_it_came() {
        use Lookup::{Crowded, Failed, Known, Late, Unknown};
        for (outcomes, expected) in [
            (&[Known, Known, Known][..], EnrichmentStatus::Complete),
            (&[Known], EnrichmentStatus::Complete),
            (&[Known, Unknown], EnrichmentStatus::Partial),
            (&[Unknown], EnrichmentStatus::Partial),
            (&[Known, Late, Late], EnrichmentStatus::Partial),
            (&[Unknown, Failed], EnrichmentStatus::Partial),
            (&[Late, Late], EnrichmentStatus::TimedOut),
            (&[Late, Failed], EnrichmentStatus::TimedOut),
            (&[Failed, Failed], EnrichmentStatus::Unavailable),
            (&[Crowded, Failed], EnrichmentStatus::Unavailable),
            (&[Crowded], EnrichmentStatus::Busy),
        ] {
            assert_eq!(status(outcomes), expected, "{outcomes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn users_are_remembered_for_a_while_and_not_without_end() {
        let users = Users::default();
        let ids = OperatorIds { open_id: Some("ou_1".to_owned()), union_id: None };
        users.keep("zhang3".to_owned(), Some(ids.clone()));
        users.keep("nobody".to_owned(), None);
        assert_eq!((users.find("zhang3"), users.find("nobody")), (Some(Some(ids.clone())), Some(None)));
        assert_eq!(users.find("li4"), None);
        tokio::time::advance(UNKNOWN_FOR).await;
        assert_eq!((users.find("zhang3"), users.find("nobody")), (Some(Some(ids)), None));
        tokio::time::advance(REMEMBERED_FOR).await;
        assert_eq!(users.find("zhang3"), None);
        for number in 0..3 * USERS {
            users.keep(number.to_string(), None);
            assert!(users.0.lock().unwrap().len() <= USERS);
        }
    }
}
