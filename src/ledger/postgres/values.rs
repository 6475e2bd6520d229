//! Values as their columns hold them.

use std::{borrow::Cow, str::FromStr};

use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};
use uuid::Uuid;

use super::Error;
use crate::{
    command::{Action, CommandId, Seq, TaskKey},
    time::Timestamp,
};

/// A value that knows its SQL type. Statements are sent with the types of their values and are not prepared: behind
/// PgBouncer in transaction mode the next transaction may go to another session.
pub(super) trait Typed: ToSql + Sync {
    fn sql_type() -> Type;
}

macro_rules! typed {
    ($($rust:ty => $one:ident, $many:ident;)+) => {$(
        impl Typed for $rust {
            fn sql_type() -> Type {
                Type::$one
            }
        }
        impl Typed for Vec<$rust> {
            fn sql_type() -> Type {
                Type::$many
            }
        }
        impl Typed for Vec<Option<$rust>> {
            fn sql_type() -> Type {
                Type::$many
            }
        }
    )+};
}

typed! {
    i32 => INT4, INT4_ARRAY;
    i64 => INT8, INT8_ARRAY;
    bool => BOOL, BOOL_ARRAY;
    &str => TEXT, TEXT_ARRAY;
    String => TEXT, TEXT_ARRAY;
    Cow<'_, str> => TEXT, TEXT_ARRAY;
    Uuid => UUID, UUID_ARRAY;
    &[u8] => BYTEA, BYTEA_ARRAY;
    Vec<u8> => BYTEA, BYTEA_ARRAY;
}

impl<T: Typed> Typed for Option<T> {
    fn sql_type() -> Type {
        T::sql_type()
    }
}

/// A value of any type with its SQL type.
pub(super) fn typed<T: Typed>(value: &T) -> (&(dyn ToSql + Sync), Type) {
    (value, T::sql_type())
}

/// The values of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::ledger::postgres::values::typed(&$value)),*] };
}
pub(super) use values;

/// A text column holds no zero byte. Only words of workers, brokers and strangers can have one, which are shown to people.
pub(super) fn text(words: &str) -> Cow<'_, str> {
    if words.contains('\0') { Cow::Owned(words.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(words) }
}

pub(super) fn uuid(id: CommandId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// A place in the log, or any other count; what is larger than the column can hold is its largest value.
pub(super) fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Reads columns by name.
pub(super) trait Columns {
    fn id(&self, column: &str) -> Result<CommandId, Error>;
    fn seq(&self, column: &str) -> Result<Seq, Error>;
    fn time(&self, column: &str) -> Result<Timestamp, Error>;
    fn time_if_any(&self, column: &str) -> Result<Option<Timestamp>, Error>;
    fn count(&self, column: &str) -> Result<u32, Error>;
    fn task_key(&self, column: &str) -> Result<TaskKey, Error>;
    fn action(&self, column: &str) -> Result<Action, Error>;
    /// A word of a closed list; a newer program may have written one that is not known here.
    fn word<T: FromStr>(&self, column: &str) -> Result<Option<T>, Error>;
    /// A word of a closed list that a check of the column holds closed.
    fn known_word<T: FromStr>(&self, column: &str) -> Result<T, Error>;
}

impl Columns for Row {
    fn id(&self, column: &str) -> Result<CommandId, Error> {
        Ok(CommandId::from_bytes(*self.try_get::<_, Uuid>(column)?.as_bytes()))
    }

    fn seq(&self, column: &str) -> Result<Seq, Error> {
        Ok(self.try_get::<_, i64>(column)?.cast_unsigned())
    }

    fn time(&self, column: &str) -> Result<Timestamp, Error> {
        Ok(Timestamp::from_millisecond(self.try_get(column)?).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    fn time_if_any(&self, column: &str) -> Result<Option<Timestamp>, Error> {
        let millis: Option<i64> = self.try_get(column)?;
        Ok(millis.map(|millis| Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)))
    }

    fn count(&self, column: &str) -> Result<u32, Error> {
        Ok(u32::try_from(self.try_get::<_, i32>(column)?).unwrap_or(0))
    }

    fn task_key(&self, column: &str) -> Result<TaskKey, Error> {
        Ok(TaskKey::from_value(self.try_get::<_, i64>(column)?.cast_unsigned()))
    }

    fn action(&self, column: &str) -> Result<Action, Error> {
        Ok(match self.try_get(column)? {
            "approve" => Action::Approve,
            "reject" => Action::Reject,
            _ => Action::Custom,
        })
    }

    fn word<T: FromStr>(&self, column: &str) -> Result<Option<T>, Error> {
        Ok(self.try_get::<_, Option<&str>>(column)?.and_then(|word| word.parse().ok()))
    }

    fn known_word<T: FromStr>(&self, column: &str) -> Result<T, Error> {
        self.word(column)?.ok_or_else(|| Error::Unreadable(column.to_owned(), "an unknown word".into()))
    }
}
