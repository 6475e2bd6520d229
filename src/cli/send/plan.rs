//! Combines the arguments and the configuration into what `send` sends.

use super::{
    Arguments, Origin,
    body::{self, Decision},
    template::{Marks, Template},
};
use crate::{
    callback::cipher::Key,
    cli::{
        credentials::{choose, envelope, random, secret_from},
        exit::Failure,
    },
    config::Loaded,
    intake::EndpointSettings,
    secret::Secret,
};

/// Everything that is constant across callbacks.
pub(super) struct Plan<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) endpoint: Option<&'a EndpointSettings>,
    pub(super) endpoint_name: String,
    pub(super) token: Secret,
    pub(super) key: Option<Secret>,
    /// Prefix of fresh ids, so that two runs do not collide.
    pub(super) run: String,
    pub(super) first_message_id: u64,
    /// Instance and task that `--context` names.
    pub(super) named: (Option<String>, Option<String>),
}

/// Rejects a callback whose ids contradict its context. The service always refuses it, so it must be a mistake.
fn contradiction(arguments: &Arguments, named: &(Option<String>, Option<String>)) -> Result<(), Failure> {
    for (flag, what, given, named) in [
        ("--instance", "the instance", &arguments.instance, &named.0),
        ("--task", "the task", &arguments.task, &named.1),
    ] {
        if let (Some(given), Some(named)) = (given, named)
            && given != named
        {
            return Err(Failure::Usage(format!(
                "{flag} says {given:?} and --context names {what} {named:?}; countersign refuses such a callback as \
                 context_invalid. Leave one of the two out: without --context, one that fits is made"
            )));
        }
    }
    let many = arguments.count.is_some_and(|count| count > 1) || arguments.load.wanted();
    if let (true, Some(task), Origin::List | Origin::Search) = (many, &named.1, arguments.origin) {
        return Err(Failure::Usage(format!(
            "each of many callbacks is about a task of its own, and --context names {task:?} for all of them; \
             countersign refuses such callbacks as context_invalid. Leave --context out: one that fits is made for each"
        )));
    }
    Ok(())
}

impl<'a> Plan<'a> {
    /// Fails if the endpoint or the token is missing, or if the arguments contradict each other.
    pub(super) fn new(arguments: &'a Arguments, loaded: &'a Loaded) -> Result<Self, Failure> {
        let by_file = arguments.token_file.is_some();
        let endpoint = match loaded.endpoints() {
            Ok(endpoints) => match choose(endpoints, arguments.endpoint.as_deref()) {
                Ok(endpoint) => Some(endpoint),
                // With a token given, the endpoint may belong to another machine's configuration.
                Err(_) if by_file && (endpoints.is_empty() || arguments.endpoint.is_some()) => None,
                Err(failure) => return Err(failure),
            },
            Err(_) if by_file => None,
            Err(faults) => return Err(faults.into()),
        };
        let credential = endpoint.and_then(|endpoint| endpoint.credentials.first());
        let token = match (&arguments.token_file, credential) {
            (Some(path), _) => secret_from(path, "--token-file")?,
            (None, Some(credential)) => credential.action_callback_token.clone(),
            (None, None) => return Err(Failure::Usage("there is no token; use --token-file".to_owned())),
        };
        let key = match &arguments.key_file {
            Some(path) => Some(secret_from(path, "--key-file")?),
            None => credential.and_then(|credential| credential.action_callback_key.clone()),
        };
        let name = endpoint.map(|endpoint| endpoint.name.clone()).or_else(|| arguments.endpoint.clone());
        let fresh = u64::from_be_bytes(random());
        let plan = Self {
            arguments,
            endpoint,
            endpoint_name: name.unwrap_or_else(|| "default".to_owned()),
            token,
            key: key.filter(|_| !arguments.plain),
            run: format!("demo-{:08x}", fresh >> 32),
            // 19 digits, like the captured one: beyond the exact range of a double.
            first_message_id: arguments
                .message_id
                .unwrap_or(7_000_000_000_000_000_000 + fresh % 1_000_000_000_000_000_000),
            named: (None, None),
        };
        let named = match plan.endpoint.filter(|_| arguments.context.is_some()) {
            Some(endpoint) => {
                body::named(endpoint, &plan.decision_about(String::new(), plan.first_message_id))
            }
            None => (None, None),
        };
        contradiction(arguments, &named)?;
        Ok(Self { named, ..plan })
    }

    /// Callback `number`, counted from 0.
    fn decision(&self, number: u64) -> Decision {
        let task = match self.arguments.count {
            Some(2..) => format!("{}{}", self.task_prefix(), number + 1),
            _ => self.task(),
        };
        self.decision_about(task, self.first_message_id.wrapping_add(number))
    }

    /// The task that callback `number` names; `None` if it has none and its context is not known to name one.
    pub(super) fn task_told(&self, number: u64) -> Option<String> {
        match (self.arguments.origin, &self.arguments.context) {
            (Origin::Card, Some(_)) => self.named.1.clone(),
            _ => Some(self.decision(number).task),
        }
    }

    fn task(&self) -> String {
        let given = self.arguments.task.as_ref().or(self.named.1.as_ref());
        given.cloned().unwrap_or_else(|| format!("{}-task", self.run))
    }

    /// Prefix of the task ids of many callbacks; a number follows.
    pub(super) fn task_prefix(&self) -> String {
        format!("{}-", self.task())
    }

    fn decision_about(&self, task: String, message_id: u64) -> Decision {
        let arguments = self.arguments;
        let origin = arguments.origin;
        let instance = arguments.instance.as_ref().or(self.named.0.as_ref());
        let instance = instance.unwrap_or(&self.run).clone();
        let formats = self.endpoint.map_or(&[][..], |endpoint| &endpoint.context.formats);
        let context = arguments.context.clone().or_else(|| body::context(origin, formats, &instance, &task));
        let approval_code = arguments.approval_code.clone().or_else(|| match origin {
            Origin::Card => None,
            Origin::List | Origin::Search => Some(
                self.endpoint
                    .and_then(|endpoint| endpoint.approval_codes.first().cloned())
                    .unwrap_or_else(|| "demo".to_owned()),
            ),
        });
        Decision {
            action: arguments.action.clone(),
            user: arguments.user.clone(),
            approval_code,
            instance,
            task,
            message_id,
            context,
            reason: arguments.reason.clone(),
        }
    }

    /// The body as sent.
    pub(super) fn body(&self, number: u64) -> Vec<u8> {
        let plain = body::render(self.arguments.origin, &self.decision(number), self.token.expose());
        match &self.key {
            Some(key) => envelope(key, &plain).into_bytes(),
            None => plain,
        }
    }

    /// A template for many callbacks.
    pub(super) fn template(&self) -> Template {
        let marks = Marks::draw();
        let decision =
            self.decision_about(format!("{}{}", self.task_prefix(), marks.number), marks.message_id);
        let plain = body::render(self.arguments.origin, &decision, self.token.expose());
        Template::new(&plain, &marks, self.first_message_id, self.key.as_ref().map(Key::derive))
    }
}
