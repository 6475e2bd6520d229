//! User ids (platform.md#user-ids).

use serde::{Deserialize, Serialize};

use super::{api::Api, call::Center, error::Error, lenient, transport::Call, words::UserIdType};

/// Maximum users per call.
const MOST: usize = 50;

/// A user. Ids that the app may not read are empty: `user_id` needs its own scope.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, expecting = "an object")]
pub struct User {
    /// Id in the tenant.
    #[serde(deserialize_with = "lenient::text")]
    pub user_id: String,
    /// Id in this app.
    pub open_id: String,
    /// Id for this developer.
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
    /// The user with this id.
    ///
    /// # Errors
    /// [`super::Fault::UserUnknown`] or [`super::Fault::Parameter`] if the app may see no such user.
    pub async fn user(&self, id: &str, kind: &UserIdType) -> Result<User, Error> {
        let call = Call::new(Api::GetUser).segment(id).query("user_id_type", Some(kind));
        self.call(call).await.map(|one: One| one.user)
    }

    /// The users that the app may see, at most 50 per call.
    ///
    /// # Errors
    /// More than 50 ids, or the platform refuses the call.
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
