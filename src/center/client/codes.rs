//! Known error codes of the APIs used here (platform.md#error-codes), with their meaning and a fix. The same code may
//! mean something else in another API or another year; known cases are noted.

/// The meaning of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A parameter is wrong.
    Parameter,
    /// A member has the wrong JSON type.
    JsonType,
    /// A member is missing or wrong. The response names it, one layer at a time.
    Field,
    /// No definition has this code, or it is from the other pool.
    DefinitionUnknown,
    /// The definition is deleted.
    DefinitionDeleted,
    /// The definition is not active.
    DefinitionInactive,
    /// No instance has this code.
    InstanceUnknown,
    /// No task has this id.
    TaskUnknown,
    /// No user has this id, or the app may not see the user.
    UserUnknown,
    /// The user id is from another app or tenant, or of another kind.
    UserIdForeign,
    /// The app or the user lacks permission.
    NoPermission,
    /// The app lacks a scope; the response lists sufficient ones.
    ScopeMissing,
    /// Refused although it may be valid, now or in this order (1390014 has two meanings, by year).
    TenantOrTooSoon,
    /// The platform failed; a later or slower request may succeed.
    TryLater,
    /// Another request is changing the same instance.
    LockConflict,
    /// Too many requests.
    RateLimited,
    /// The app's monthly quota is used up.
    QuotaSpent,
    /// Our address is not on the app's allow-list.
    AddressNotAllowed,
    /// The request had no token.
    TokenMissing,
    /// The tenant token is invalid or expired, or this API does not exist or does not accept one.
    TokenInvalid,
    /// The app's secret is wrong.
    AppSecretWrong,
    /// The app is unknown, disabled, or not authorised in this tenant.
    AppNotUsable,
    /// The ticket of a store app is wrong or outdated.
    AppTicketWrong,
    /// The platform has no such path or method.
    NoSuchApi,
    /// The API is not available for this tenant or definition.
    Unsupported,
    /// A code unknown to this version.
    Unknown,
}

impl Fault {
    /// The meaning of a code.
    #[must_use]
    pub fn of(code: i64) -> Self {
        match code {
            1_390_001 | 60_001 | 10_003 | 41_012 | 40_001 | 40_003 => Self::Parameter,
            9_499 => Self::JsonType,
            99_992_402 => Self::Field,
            1_390_002 | 60_002 | 4_002 => Self::DefinitionUnknown,
            1_390_016 => Self::DefinitionDeleted,
            1_390_015 => Self::DefinitionInactive,
            1_390_003 | 60_003 | 4_003 => Self::InstanceUnknown,
            1_390_010 | 60_010 => Self::TaskUnknown,
            1_390_004 | 60_004 | 4_004 | 41_050 | 99_992_351 | 99_992_360 => Self::UserUnknown,
            99_992_361 | 99_992_364 => Self::UserIdForeign,
            1_390_009 | 60_009 | 40_004 | 99_991_676 | 99_991_679 => Self::NoPermission,
            99_991_672 => Self::ScopeMissing,
            1_390_014 => Self::TenantOrTooSoon,
            1_395_001 | 4_006 => Self::TryLater,
            60_014 => Self::LockConflict,
            99_991_400 => Self::RateLimited,
            99_991_403 => Self::QuotaSpent,
            99_991_401 => Self::AddressNotAllowed,
            99_991_661 => Self::TokenMissing,
            99_991_663 | 99_991_664 | 99_991_665 | 99_991_671 | 10_013 | 4_001 => Self::TokenInvalid,
            10_015 => Self::AppSecretWrong,
            10_014 | 99_991_662 | 99_991_673 => Self::AppNotUsable,
            10_012 => Self::AppTicketWrong,
            99_991_201 | 99_991_301 | 4_005 => Self::NoSuchApi,
            1_390_013 | 60_011 | 60_013 => Self::Unsupported,
            _ => Self::Unknown,
        }
    }

    /// How to fix it, as a sentence; `None` if there is no general advice.
    #[must_use]
    pub fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::Parameter => "check what was sent against the API's page",
            Self::JsonType => {
                "a member has the wrong JSON type; `texts` is a list of {key, value} in definitions and instances, a map in messages"
            }
            Self::Field => "fix the named member and try again: the platform reports one layer at a time",
            Self::DefinitionUnknown => {
                "use the real approval_code, the one that creating the definition returned (it is in the admin console's URL too); only creating takes the custom one"
            }
            Self::DefinitionDeleted | Self::DefinitionInactive => {
                "look at the definition in the approval admin console"
            }
            Self::InstanceUnknown => {
                "check the instance_code; instances that were synchronised are found by `center instances --external-id`"
            }
            Self::TaskUnknown => "check the task_id",
            Self::UserUnknown => {
                "check the id and its kind (user_id or open_id), and whether the app's contact scope has this user"
            }
            Self::UserIdForeign => "an open_id is of one app only: use one of this app, or the user_id",
            Self::NoPermission => "check the app's scopes and data permissions in the developer console",
            Self::ScopeMissing => {
                "apply for one of the listed scopes in the developer console, and release a version of the app"
            }
            Self::TenantOrTooSoon => {
                "either this tenant is unknown, or the same instance was synchronised again too soon: wait some seconds"
            }
            Self::TryLater => "try again later, and not the same instance again and again",
            Self::LockConflict => "another client is changing the same instance: try again",
            Self::RateLimited => "wait; 50 requests a second and 1000 a minute are allowed for each API",
            Self::QuotaSpent => "the plan's monthly quota is used up: buy more, or wait for the next month",
            Self::AddressNotAllowed => {
                "add this machine's address to the app's IP allow-list in the developer console"
            }
            Self::TokenMissing => "a proxy on the way may have dropped the Authorization header",
            Self::TokenInvalid => {
                "the token is fresh, so either this API takes no tenant token or does not exist there (check base_url), or the app's secret was reset"
            }
            Self::AppSecretWrong => "check approval_center.app_secret against the developer console",
            Self::AppNotUsable => "enable the app, and authorise it in this tenant; check app_id",
            Self::AppTicketWrong => {
                "the app_ticket is old or wrong; a new one was asked for, and the platform pushes it to the app's event URL"
            }
            Self::NoSuchApi => "check approval_center.base_url",
            Self::Unsupported => "the tenant's plan or this kind of definition does not offer it",
            Self::Unknown => return None,
        })
    }

    /// True if nothing was done and the same request may succeed later.
    #[must_use]
    pub(super) fn was_not_done(self) -> bool {
        matches!(self, Self::RateLimited | Self::LockConflict)
    }

    /// True if the request may have been executed, and may succeed later.
    #[must_use]
    pub(super) fn is_passing(self) -> bool {
        matches!(self, Self::TryLater)
    }

    /// True if another token may help. Excludes a missing token: a header is not lost just once.
    #[must_use]
    pub(super) fn is_of_the_token(self) -> bool {
        matches!(self, Self::TokenInvalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_the_reference_are_known() {
        for (code, fault) in [
            (1_390_001, Fault::Parameter),
            (1_390_002, Fault::DefinitionUnknown),
            (1_390_003, Fault::InstanceUnknown),
            (1_390_004, Fault::UserUnknown),
            (1_390_009, Fault::NoPermission),
            (1_390_014, Fault::TenantOrTooSoon),
            (1_390_016, Fault::DefinitionDeleted),
            (1_395_001, Fault::TryLater),
            (60_001, Fault::Parameter),
            (60_014, Fault::LockConflict),
            (9_499, Fault::JsonType),
            (10_012, Fault::AppTicketWrong),
            (10_015, Fault::AppSecretWrong),
            (99_991_400, Fault::RateLimited),
            (99_991_401, Fault::AddressNotAllowed),
            (99_991_403, Fault::QuotaSpent),
            (99_991_661, Fault::TokenMissing),
            (99_991_663, Fault::TokenInvalid),
            (99_991_671, Fault::TokenInvalid),
            (99_991_672, Fault::ScopeMissing),
            (99_992_402, Fault::Field),
            (41_050, Fault::UserUnknown),
            (1_234_567, Fault::Unknown),
        ] {
            assert_eq!(Fault::of(code), fault, "{code}");
            assert_eq!(fault.advice().is_none(), fault == Fault::Unknown, "{code} has words");
        }
    }

    #[test]
    fn only_what_cannot_have_been_done_is_always_safe_to_repeat() {
        assert!(Fault::RateLimited.was_not_done() && Fault::LockConflict.was_not_done());
        assert!(Fault::TryLater.is_passing() && !Fault::TryLater.was_not_done());
        for fault in [Fault::QuotaSpent, Fault::TenantOrTooSoon, Fault::Parameter, Fault::Unknown] {
            assert!(!fault.was_not_done() && !fault.is_passing(), "{fault:?}");
        }
    }
}
