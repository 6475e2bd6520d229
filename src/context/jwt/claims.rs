//! The claims of a token, and the required ones.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_with::skip_serializing_none;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::super::{ContextError, json};
use crate::time::Timestamp;

/// The supported claims; others are ignored.
#[skip_serializing_none]
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Claims {
    /// The third party's instance.
    pub instance_id: Option<Box<RawValue>>,
    /// The third party's task.
    pub task_id: Option<Box<RawValue>>,
    /// The round of the task.
    pub round: Option<Box<RawValue>>,
    /// Replaces an absent round: a token is for one decision.
    pub jti: Option<String>,
    /// The document number.
    pub business_key: Option<Box<RawValue>>,
    /// The `user_id`s that may decide; absent means anybody.
    pub operators: Option<Vec<String>>,
    /// The allowed `action_type`s; absent means any that the endpoint allows.
    pub actions: Option<Vec<String>>,
    /// The definition the token is for.
    pub approval_code: Option<String>,
    /// The endpoint the token is for.
    pub endpoint: Option<String>,
    /// The token is invalid from then on; see [`Self::times`].
    pub exp: Option<Box<RawValue>>,
    /// The token is invalid before then.
    pub nbf: Option<Box<RawValue>>,
    /// When it was issued.
    pub iat: Option<Box<RawValue>>,
    /// Who issued it.
    pub iss: Option<String>,
    /// The intended audience.
    pub aud: Option<Audience>,
    /// Free data for the worker.
    pub data: Option<Box<RawValue>>,
}

/// RFC 7519 §4.1.3: one text, or several.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// A single name.
    One(String),
    /// Several names.
    Several(Vec<String>),
}

impl Audience {
    /// True if the audience includes one of `names`.
    pub(super) fn is_for(&self, names: &[String]) -> bool {
        match self {
            Self::One(meant) => names.contains(meant),
            Self::Several(meant) => meant.iter().any(|meant| names.contains(meant)),
        }
    }
}

/// The times of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The token is invalid from then on.
    pub exp: Option<Timestamp>,
    /// The token is invalid before then.
    pub nbf: Option<Timestamp>,
    /// When it was issued.
    pub iat: Option<Timestamp>,
}

/// The messages for an invalid time.
struct Words {
    no_number: &'static str,
    millis: &'static str,
    beyond: &'static str,
}

/// The same three sentences for each claim: refusals use only texts written here.
macro_rules! words {
    ($claim:literal) => {
        Words {
            no_number: concat!("the token's ", $claim, " is not a number of seconds since 1970"),
            millis: concat!(
                "the token's ",
                $claim,
                " looks like milliseconds, and a JWT counts seconds since 1970"
            ),
            beyond: concat!("the token's ", $claim, " lies beyond the year 9999"),
        }
    };
}

impl Claims {
    /// Parses the times: any finite number (RFC 7519 §2), with a fraction, an exponent or a sign, up to the year
    /// 9999. Fractions of a millisecond are truncated; times before the year 0 are clamped to its start.
    ///
    /// # Errors
    /// [`ContextError::Forged`] with the faulty claim and the reason.
    pub fn times(&self) -> Result<Times, ContextError> {
        Ok(Times {
            exp: numeric_date(self.exp.as_deref(), &words!("exp"))?,
            nbf: numeric_date(self.nbf.as_deref(), &words!("nbf"))?,
            iat: numeric_date(self.iat.as_deref(), &words!("iat"))?,
        })
    }

    /// The claims of `required` that the token lacks. Null and the empty text count as absent.
    #[must_use]
    pub fn missing(&self, required: &[Requirement]) -> Vec<Requirement> {
        let text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let id =
            |value: &Option<Box<RawValue>>| value.as_deref().is_some_and(|value| json::id(value).is_some());
        let has = |required: &Requirement| match required {
            Requirement::Exp => self.exp.as_deref().is_some_and(|value| value.get() != "null"),
            Requirement::Round => id(&self.round) || text(&self.jti),
            Requirement::Operators => self.operators.is_some(),
            Requirement::Actions => self.actions.is_some(),
            Requirement::Endpoint => text(&self.endpoint),
            Requirement::ApprovalCode => text(&self.approval_code),
            Requirement::InstanceId => id(&self.instance_id),
            Requirement::TaskId => id(&self.task_id),
        };
        required.iter().copied().filter(|one| !has(one)).collect()
    }
}

fn numeric_date(value: Option<&RawValue>, words: &Words) -> Result<Option<Timestamp>, ContextError> {
    let Some(value) = value.map(RawValue::get).filter(|value| *value != "null") else { return Ok(None) };
    if !value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err(ContextError::Forged(words.no_number));
    }
    let seconds: f64 = value.parse().map_err(|_| ContextError::Forged(words.no_number))?;
    // Floats represent the milliseconds of these years exactly, to the last digit but one.
    let (first, last) = (Timestamp::MIN.as_millisecond() as f64, Timestamp::MAX.as_millisecond() as f64);
    let millis = (seconds * 1000.0).floor();
    if millis > last {
        // 2001 to 2286 if it were milliseconds.
        let looks = (1e12..1e13).contains(&seconds);
        return Err(ContextError::Forged(if looks { words.millis } else { words.beyond }));
    }
    let millis = millis.max(first) as i64;
    Ok(Some(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MIN)))
}

/// A claim that a token must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Requirement {
    /// The expiry. Without it, a captured card can be replayed forever.
    Exp,
    /// `round`, or a `jti` in its place. Without it, the same decision is accepted again after `dedupe_window`.
    Round,
    /// Who may decide. Without it, a captured token can be sent in any name.
    Operators,
    /// Which actions are allowed.
    Actions,
    /// The endpoint it is for.
    Endpoint,
    /// The definition it is for.
    ApprovalCode,
    /// The instance.
    InstanceId,
    /// The task.
    TaskId,
}

impl Requirement {
    /// All requirements.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// The requirements that make a signed context safe; the default.
    pub const SAFE: [Self; 3] = [Self::Exp, Self::Round, Self::Operators];

    /// The claim, or alternatives of which one is enough.
    #[must_use]
    pub fn claims(self) -> &'static str {
        match self {
            Self::Round => "round or jti",
            other => other.as_str(),
        }
    }

    /// The message if it is missing.
    pub(super) fn missing(self) -> &'static str {
        match self {
            Self::Exp => "the token has no exp, which jwt.require asks for",
            Self::Round => "the token has neither round nor jti, of which jwt.require asks for one",
            Self::Operators => "the token has no operators, which jwt.require asks for",
            Self::Actions => "the token has no actions, which jwt.require asks for",
            Self::Endpoint => "the token has no endpoint, which jwt.require asks for",
            Self::ApprovalCode => "the token has no approval_code, which jwt.require asks for",
            Self::InstanceId => "the token has no instance_id, which jwt.require asks for",
            Self::TaskId => "the token has no task_id, which jwt.require asks for",
        }
    }
}

/// Requirements for a token, in addition to a valid signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demands {
    /// Allowed clock skew in seconds.
    pub leeway_seconds: u64,
    /// Required claims.
    pub require: Vec<Requirement>,
    /// Its `aud` must name one of these; empty means unchecked.
    pub aud: Vec<String>,
    /// Its `iss` must be one of these; empty means unchecked.
    pub iss: Vec<String>,
    /// Its header `typ` must be this; `None` means unchecked.
    pub typ: Option<String>,
}

impl Default for Demands {
    fn default() -> Self {
        Self {
            leeway_seconds: 60,
            require: Requirement::SAFE.to_vec(),
            aud: Vec::new(),
            iss: Vec::new(),
            typ: None,
        }
    }
}
