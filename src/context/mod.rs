//! From the `action_context` to the third party's task, by local data only.

/// How an endpoint's contexts are read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Tried in this order; never empty.
    pub formats: Vec<Format>,
    /// What to do when none fits.
    pub on_unresolved: OnUnresolved,
}

/// One way to read a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Passed on verbatim; the callback's own fields name the task.
    Opaque,
    /// A JSON object; the task is where the pointers point.
    Json(JsonFields),
}

/// JSON pointers (RFC 6901) into the context. At least `task_id` or `instance_id` is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonFields {
    /// Where the task id stands.
    pub task_id: Option<String>,
    /// Where the instance id stands.
    pub instance_id: Option<String>,
    /// Where the round stands.
    pub round: Option<String>,
    /// Where the document number stands.
    pub business_key: Option<String>,
    /// Where free data for the worker stands.
    pub data: Option<String>,
}

/// What to do with a callback whose context no format fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnresolved {
    /// Publish it with `"resolved_by": null`.
    #[default]
    Publish,
    /// Refuse it as `context_invalid`.
    Refuse,
}
