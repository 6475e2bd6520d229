//! What a token claims, and what it has to.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_with::skip_serializing_none;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::super::{ContextError, json};
use crate::time::Timestamp;

/// The claims that mean something here; others are ignored.
#[skip_serializing_none]
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Claims {
    /// The third party's instance.
    pub instance_id: Option<Box<RawValue>>,
    /// The third party's task.
    pub task_id: Option<Box<RawValue>>,
    /// Which round of the task.
    pub round: Option<Box<RawValue>>,
    /// Stands for the round if there is none: a token is for one decision.
    pub jti: Option<String>,
    /// The document number.
    pub business_key: Option<Box<RawValue>>,
    /// The `user_id`s that may decide; absent: anybody.
    pub operators: Option<Vec<String>>,
    /// The `action_type`s that may be taken; absent: any that the endpoint allows.
    pub actions: Option<Vec<String>>,
    /// The definition the token is for.
    pub approval_code: Option<String>,
    /// The endpoint the token is for.
    pub endpoint: Option<String>,
    /// From when on the token counts no more; see [`Self::times`].
    pub exp: Option<Box<RawValue>>,
    /// Before when it does not count.
    pub nbf: Option<Box<RawValue>>,
    /// When it was made.
    pub iat: Option<Box<RawValue>>,
    /// Who made it.
    pub iss: Option<String>,
    /// Whom it is for.
    pub aud: Option<Audience>,
    /// Free data for the worker.
    pub data: Option<Box<RawValue>>,
}

/// RFC 7519 §4.1.3: one text, or several.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// For one.
    One(String),
    /// For each of them.
    Several(Vec<String>),
}

impl Audience {
    /// True if one of `names` is among those that are meant.
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
    /// From then on it counts no more.
    pub exp: Option<Timestamp>,
    /// Before then it does not count.
    pub nbf: Option<Timestamp>,
    /// It was made then.
    pub iat: Option<Timestamp>,
}

/// What is said of a time that is none.
struct Words {
    no_number: &'static str,
    millis: &'static str,
    beyond: &'static str,
}

/// The same three sentences for each claim: what is refused is told by a text that was written here.
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
    /// Reads the times: any finite number (RFC 7519 §2), with a fraction, an exponent or a sign, up to the year 9999. Finer
    /// than a millisecond is cut off; what lies before the year 0 counts as its beginning.
    ///
    /// # Errors
    /// [`ContextError::Forged`] with what is wrong with which of them.
    pub fn times(&self) -> Result<Times, ContextError> {
        Ok(Times {
            exp: numeric_date(self.exp.as_deref(), &words!("exp"))?,
            nbf: numeric_date(self.nbf.as_deref(), &words!("nbf"))?,
            iat: numeric_date(self.iat.as_deref(), &words!("iat"))?,
        })
    }

    /// Those of `required` that the token does not have. Null and the empty text are none.
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
    // Floats hold milliseconds of these years exactly, to the last digit but one.
    let (first, last) = (Timestamp::MIN.as_millisecond() as f64, Timestamp::MAX.as_millisecond() as f64);
    let millis = (seconds * 1000.0).floor();
    if millis > last {
        // 2001 to 2286, if it were milliseconds.
        let looks = (1e12..1e13).contains(&seconds);
        return Err(ContextError::Forged(if looks { words.millis } else { words.beyond }));
    }
    let millis = millis.max(first) as i64;
    Ok(Some(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MIN)))
}

/// What a token has to say before it is taken for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum Requirement {
    /// When it ends. Without, a card that was captured once can be pressed for ever.
    Exp,
    /// `round`, or a `jti` in its place. Without, the same decision counts again after `dedupe_window`.
    Round,
    /// Who may decide. Without, a captured token can be sent in any name.
    Operators,
    /// Which actions may be taken.
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
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// As in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What makes a signed context safe, and is asked for unless the configuration says otherwise.
    pub const SAFE: [Self; 3] = [Self::Exp, Self::Round, Self::Operators];

    /// The claim, or the claims of which one is enough.
    #[must_use]
    pub fn claims(self) -> &'static str {
        match self {
            Self::Round => "round or jti",
            other => other.as_str(),
        }
    }

    /// What is said where it is missing.
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

/// What is asked of a token beside a good signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demands {
    /// Seconds that clocks may differ.
    pub leeway_seconds: u64,
    /// What it has to have.
    pub require: Vec<Requirement>,
    /// Its `aud` names one of these; empty: it is not looked at.
    pub aud: Vec<String>,
    /// Its `iss` is one of these; empty: it is not looked at.
    pub iss: Vec<String>,
    /// Its header `typ` is this; `None`: it is not looked at.
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
