//! Compares the center's answer with a decision.

use crate::{
    center::client::{InstanceStatus, InstanceTasks, TaskStatus},
    command::Action,
    ledger::{Verdict, findings::Candidate},
};

/// The verdict on a command, with the center's status of task and instance. `answered` may hold any instances.
#[must_use]
pub fn compare(
    candidate: &Candidate,
    answered: &[InstanceTasks],
) -> (Verdict, Option<TaskStatus>, Option<InstanceStatus>) {
    let (Some(instance_id), Some(task_id), true) =
        (&candidate.instance_id, &candidate.task_id, candidate.can_be_asked())
    else {
        return (Verdict::Untellable, None, None);
    };
    let named = || answered.iter().filter(|instance| instance.instance_id == *instance_id);
    let with_task = named().filter_map(|instance| {
        instance.tasks.iter().find(|task| task.id == *task_id).map(|task| (instance, task))
    });
    // An id is unique within a definition. The callback's code may be from the other pool, so it is only a preference.
    let preferred = |code: &str| candidate.approval_code.as_deref() == Some(code);
    let Some((instance, task)) = with_task.max_by_key(|(instance, _)| preferred(&instance.approval_code))
    else {
        return (Verdict::NotFound, None, named().next().map(|instance| instance.status.clone()));
    };
    let verdict = match (&task.status, candidate.action) {
        (TaskStatus::Pending, _) => match instance.status {
            InstanceStatus::Canceled
            | InstanceStatus::Deleted
            | InstanceStatus::Hidden
            | InstanceStatus::Terminated => Verdict::Ended,
            // If the instance is approved while its task is pending, the task was forgotten and stays in the list.
            InstanceStatus::Pending
            | InstanceStatus::Approved
            | InstanceStatus::Rejected
            | InstanceStatus::Other(_) => Verdict::Unseen,
        },
        (TaskStatus::Approved, Action::Approve) | (TaskStatus::Rejected, Action::Reject) => Verdict::Seen,
        (TaskStatus::Approved | TaskStatus::Rejected, _) => Verdict::Contradicted,
        (TaskStatus::Transferred | TaskStatus::Done | TaskStatus::Other(_), _) => Verdict::Ended,
    };
    (verdict, Some(task.status.clone()), Some(instance.status.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{center::client::TaskState, command::CommandId};

    fn candidate(action: Action) -> Candidate {
        Candidate {
            seq: 1,
            command_id: CommandId::parse("019a0000-0000-7000-8000-000000000001").unwrap(),
            received_at: "2026-11-20T08:15:30Z".parse().unwrap(),
            endpoint: "purchase".to_owned(),
            action,
            user_id: "zhang3".to_owned(),
            approval_code: Some("PO".to_owned()),
            instance_id: Some("I".to_owned()),
            task_id: Some("T".to_owned()),
            published: true,
            finding: None,
        }
    }

    fn instance(code: &str, status: &str, task: &str) -> InstanceTasks {
        InstanceTasks {
            instance_id: "I".to_owned(),
            approval_code: code.to_owned(),
            status: status.into(),
            tasks: vec![TaskState { id: "T".to_owned(), status: task.into(), ..TaskState::default() }],
            ..InstanceTasks::default()
        }
    }

    fn verdict(action: Action, status: &str, task: &str) -> Verdict {
        compare(&candidate(action), &[instance("R", status, task)]).0
    }

    #[test]
    fn every_pair_of_decision_and_status_has_one_verdict() {
        use Action::{Approve, Reject};
        for (action, instance, task, expected) in [
            (Approve, "PENDING", "APPROVED", Verdict::Seen),
            (Reject, "REJECTED", "REJECTED", Verdict::Seen),
            (Approve, "REJECTED", "REJECTED", Verdict::Contradicted),
            (Reject, "APPROVED", "APPROVED", Verdict::Contradicted),
            (Approve, "PENDING", "PENDING", Verdict::Unseen),
            (Reject, "APPROVED", "PENDING", Verdict::Unseen),
            (Approve, "FROZEN", "PENDING", Verdict::Unseen),
            (Approve, "CANCELED", "PENDING", Verdict::Ended),
            (Approve, "DELETED", "PENDING", Verdict::Ended),
            (Approve, "TERMINATED", "PENDING", Verdict::Ended),
            (Approve, "HIDDEN", "PENDING", Verdict::Ended),
            (Approve, "PENDING", "TRANSFERRED", Verdict::Ended),
            (Reject, "APPROVED", "DONE", Verdict::Ended),
            (Reject, "PENDING", "SNOOZED", Verdict::Ended),
        ] {
            assert_eq!(verdict(action, instance, task), expected, "{action:?} {instance} {task}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found_and_says_what_is() {
        let wanted = candidate(Action::Approve);
        assert_eq!(compare(&wanted, &[]), (Verdict::NotFound, None, None));
        let mut other = instance("R", "APPROVED", "APPROVED");
        other.tasks[0].id = "T2".to_owned();
        assert_eq!(compare(&wanted, &[other]), (Verdict::NotFound, None, Some(InstanceStatus::Approved)));
    }

    #[test]
    fn of_two_instances_with_one_id_that_of_the_callbacks_code_counts_and_else_any() {
        let both = [instance("PO", "PENDING", "APPROVED"), instance("R", "PENDING", "PENDING")];
        assert_eq!(compare(&candidate(Action::Approve), &both).0, Verdict::Seen);
        let one = [instance("R", "PENDING", "APPROVED")];
        assert_eq!(compare(&candidate(Action::Approve), &one).0, Verdict::Seen, "a code of the other pool");
    }

    #[test]
    fn what_names_nothing_and_custom_actions_cannot_be_asked_for() {
        let all = [instance("PO", "PENDING", "PENDING")];
        for change in [
            |one: &mut Candidate| one.instance_id = None,
            |one: &mut Candidate| one.task_id = None,
            |one: &mut Candidate| one.action = Action::Custom,
        ] {
            let mut one = candidate(Action::Approve);
            change(&mut one);
            assert_eq!(compare(&one, &all).0, Verdict::Untellable);
        }
    }
}
