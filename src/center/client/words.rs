//! The platform's closed lists of words, kept open: an unknown word is an `Other`, which reads and writes unchanged.
//! APIs spell the same thing differently (platform.md#inconsistent-spellings), so each has its own list.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $variant,)+
            /// A word unknown to this version, unchanged.
            Other(String),
        }

        impl $name {
            /// All known words.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The platform's spelling.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }

            /// True if this version knows the word.
            #[must_use]
            pub fn is_known(&self) -> bool {
                !matches!(self, Self::Other(_))
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl Default for $name {
            /// The empty word.
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                super::lenient::text(deserializer).map(|word| Self::from(word.as_str()))
            }
        }
    };
}

words! {
    /// Status of an instance, when synchronised (platform.md#third-party-instances) and when read
    /// (platform.md#instance-details).
    ///
    /// `external_tasks` documents no `TERMINATED`; native instances have neither `HIDDEN` nor `TERMINATED`.
    InstanceStatus {
        Pending = "PENDING",
        Approved = "APPROVED",
        Rejected = "REJECTED",
        Canceled = "CANCELED",
        Deleted = "DELETED",
        Hidden = "HIDDEN",
        Terminated = "TERMINATED",
    }
}

words! {
    /// Status of a task (platform.md#task-status).
    TaskStatus {
        Pending = "PENDING",
        Approved = "APPROVED",
        Rejected = "REJECTED",
        Transferred = "TRANSFERRED",
        Done = "DONE",
    }
}

words! {
    /// Status filter of the instance query (platform.md#instance-query), with its own spelling.
    FilterStatus {
        Pending = "PENDING",
        Recall = "RECALL",
        Reject = "REJECT",
        Deleted = "DELETED",
        Approved = "APPROVED",
        All = "ALL",
    }
}

words! {
    /// Status of a found instance (platform.md#instance-query), again with its own spelling.
    ListedStatus {
        Rejected = "rejected",
        Pending = "pending",
        Canceled = "canceled",
        Deleted = "deleted",
        Approved = "approved",
    }
}

impl ListedStatus {
    /// Converts to the spelling of an instance.
    #[must_use]
    pub fn as_instance(&self) -> InstanceStatus {
        match self {
            Self::Rejected => InstanceStatus::Rejected,
            Self::Pending => InstanceStatus::Pending,
            Self::Canceled => InstanceStatus::Canceled,
            Self::Deleted => InstanceStatus::Deleted,
            Self::Approved => InstanceStatus::Approved,
            Self::Other(word) => InstanceStatus::from(word.to_ascii_uppercase().as_str()),
        }
    }
}

words! {
    /// Status that a card can show (platform.md#updating-a-card). Here `CANCELLED` has two Ls.
    MessageStatus {
        Approved = "APPROVED",
        Rejected = "REJECTED",
        Cancelled = "CANCELLED",
        Forwarded = "FORWARDED",
        Rollback = "ROLLBACK",
        Add = "ADD",
        Deleted = "DELETED",
        Processed = "PROCESSED",
        Custom = "CUSTOM",
    }
}

words! {
    /// Type of an event in an instance (platform.md#instance-details).
    MomentType {
        Start = "START",
        Pass = "PASS",
        Reject = "REJECT",
        AutoPass = "AUTO_PASS",
        AutoReject = "AUTO_REJECT",
        RemoveRepeat = "REMOVE_REPEAT",
        Transfer = "TRANSFER",
        AddApproverBefore = "ADD_APPROVER_BEFORE",
        AddApprover = "ADD_APPROVER",
        AddApproverAfter = "ADD_APPROVER_AFTER",
        DeleteApprover = "DELETE_APPROVER",
        RollbackSelected = "ROLLBACK_SELECTED",
        Rollback = "ROLLBACK",
        Cancel = "CANCEL",
        Delete = "DELETE",
        Cc = "CC",
    }
}

words! {
    /// Kind of user id (platform.md#user-ids).
    UserIdType {
        OpenId = "open_id",
        UnionId = "union_id",
        UserId = "user_id",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_nobody_has_heard_of_reads_and_writes_as_it_came() {
        let status: TaskStatus = serde_json::from_str("\"SNOOZED\"").unwrap();
        assert_eq!(status, TaskStatus::Other("SNOOZED".to_owned()));
        assert!(!status.is_known());
        assert_eq!(serde_json::to_string(&status).unwrap(), "\"SNOOZED\"");
        for known in TaskStatus::ALL {
            assert_eq!(&TaskStatus::from(known.as_str()), known);
        }
    }

    #[test]
    fn the_spellings_of_one_status_are_told_apart_and_brought_together() {
        assert_eq!(FilterStatus::Recall.as_str(), "RECALL");
        assert_eq!(MessageStatus::Cancelled.as_str(), "CANCELLED");
        assert_eq!(ListedStatus::from("canceled").as_instance(), InstanceStatus::Canceled);
        assert_eq!(ListedStatus::from("rejected").as_instance().as_str(), "REJECTED");
        assert_eq!(ListedStatus::from("terminated").as_instance(), InstanceStatus::Terminated);
    }
}
