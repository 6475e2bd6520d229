//! Which ids belong to one user (platform.md#user-ids).

use serde::{Deserialize, Serialize};

use super::{api::Api, call::Center, error::Error, lenient, transport::Call, words::UserIdType};

/// Users that may be asked for at once.
const MOST: usize = 50;

/// A user. An id that the app may not read is empty: `user_id` needs a scope of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct User {
    /// In the tenant.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// In this app.
    pub open_id: String,
    /// With this developer.
    pub union_id: String,
    /// The name.
    pub name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct One {
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
struct Many {
    items: Vec<User>,
}

impl Center {
    /// The user whom an id of this kind names.
    ///
    /// # Errors
    /// [`super::Fault::UserUnknown`] or [`super::Fault::Parameter`] if there is none whom the app may see.
    pub async fn user(&self, id: &str, kind: &UserIdType) -> Result<User, Error> {
        let call = Call::new(Api::GetUser).segment(id).query("user_id_type", Some(kind));
        self.call(call).await.map(|one: One| one.user)
    }

    /// Those of the users whom the app may see, 50 at the most in one call.
    ///
    /// # Errors
    /// More than 50, or what the platform refuses.
    pub async fn users(&self, ids: &[String], kind: &UserIdType) -> Result<Vec<User>, Error> {
        let api = Api::GetUsers;
        if ids.len() > MOST {
            let problem = format!("{} users are too many at once; at most {MOST}", ids.len());
            return Err(Error::Request { api, problem });
        }
        let mut call = Call::new(api).query("user_id_type", Some(kind));
        call.query.extend(ids.iter().map(|id| ("user_ids", id.clone())));
        self.call(call).await.map(|many: Many| many.items)
    }
}
