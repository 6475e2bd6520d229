//! Classifies failed calls to the approval center: retry forever, retry a limited number of times, or park.

use std::time::Duration;

use crate::{
    backoff,
    center::client::{Error, Fault},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Unrelated to the outcome: the center is unreachable, limits, or denies access to the app. Retry until it works.
    Always,
    /// Possibly transient. Retry up to a limit.
    Limited,
    /// The center will never accept this. An operator must look at it.
    Never,
}

/// Classifies a failure. The match is exhaustive, so that new kinds of failures must be classified.
pub(super) fn judge(error: &Error) -> Retry {
    match error {
        Error::Api(error) => match error.fault() {
            Fault::Unknown if error.http_status >= 500 => Retry::Limited,
            fault => of_fault(fault),
        },
        Error::Transport { .. } | Error::NoTurn { .. } | Error::Ticket(_) | Error::Client(_) => Retry::Always,
        // A gateway, or another server in its place, answers in HTML.
        Error::Unreadable { .. } | Error::EndlessPages { .. } => Retry::Limited,
        Error::Request { .. } => Retry::Never,
    }
}

fn of_fault(fault: Fault) -> Retry {
    match fault {
        Fault::RateLimited | Fault::QuotaSpent => Retry::Always,
        // The app's problem, not the outcome's: once it is fixed, everything that waits succeeds.
        Fault::AddressNotAllowed
        | Fault::TokenMissing
        | Fault::TokenInvalid
        | Fault::AppSecretWrong
        | Fault::AppNotUsable
        | Fault::AppTicketWrong
        | Fault::ScopeMissing
        | Fault::NoSuchApi => Retry::Always,
        Fault::TenantOrTooSoon | Fault::TryLater | Fault::LockConflict => Retry::Limited,
        Fault::Parameter
        | Fault::JsonType
        | Fault::Field
        | Fault::DefinitionUnknown
        | Fault::DefinitionDeleted
        | Fault::DefinitionInactive
        | Fault::InstanceUnknown
        | Fault::TaskUnknown
        | Fault::UserUnknown
        | Fault::UserIdForeign
        | Fault::NoPermission
        | Fault::Unsupported
        | Fault::Unknown => Retry::Never,
    }
}

/// The first delay. The client has already retried for some seconds.
const FIRST: Duration = Duration::from_secs(1);

/// The longest delay, so that a recovered center is found within five minutes.
const LONGEST: Duration = Duration::from_secs(300);

/// The delay after the `attempts`-th failure in a row (1 is the first). `random` selects from the upper half of an
/// interval that doubles with every attempt.
pub(super) fn delay(attempts: u32, random: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST);
    let half = whole / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// [`delay`] with a random value.
pub(super) fn some_delay(attempts: u32) -> Duration {
    delay(attempts, backoff::random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::center::client::{Api, double::failure};

    #[test]
    fn only_what_is_wrong_with_the_outcome_itself_is_set_aside() {
        for (http_status, code, expected) in [
            (429, 99_991_400, Retry::Always),
            (400, 99_991_403, Retry::Always),
            (400, 99_991_672, Retry::Always),
            (400, 99_991_663, Retry::Always),
            (400, 10_015, Retry::Always),
            (400, 1_395_001, Retry::Limited),
            (400, 60_014, Retry::Limited),
            (400, 1_390_014, Retry::Limited),
            (502, 4_242, Retry::Limited),
            (200, 60_001, Retry::Never),
            (400, 99_992_402, Retry::Never),
            (400, 1_390_002, Retry::Never),
            (200, 4_242, Retry::Never),
        ] {
            assert_eq!(judge(&failure(http_status, code)), expected, "{http_status} {code}");
        }
        let away = Error::NoTurn { api: Api::SyncInstance, wait: Duration::from_secs(1) };
        assert_eq!(judge(&away), Retry::Always);
        let wrong = Error::Request { api: Api::SyncInstance, problem: String::new() };
        assert_eq!(judge(&wrong), Retry::Never);
    }

    #[test]
    fn delays_double_up_to_five_minutes_and_are_jittered_in_their_upper_half() {
        let whole: Vec<_> = [1, 2, 3, 9, 10, u32::MAX].map(|n| delay(n, u32::MAX).as_secs()).into();
        assert_eq!(whole, [1, 2, 4, 256, 300, 300]);
        assert_eq!(delay(10, 0), LONGEST / 2);
    }
}
