//! Errors of the ledger.

/// Why nothing was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The writer's queue is full.
    #[error("the ledger's writer queue is full")]
    Overloaded,
    /// The disk has less free space than [`Limits::min_free_bytes`](super::Limits::min_free_bytes).
    #[error("the ledger's disk is low on space")]
    NoRoom,
    /// The server does not keep commits as `ledger.durability` demands. The cause is logged.
    #[error("the ledger's server does not keep commits as ledger.durability demands")]
    NotDurable,
    /// The disk is full, read-only or broken, or the writer has stopped. The writer logs the cause.
    #[error("the ledger cannot store anything now")]
    Unavailable,
}

/// A lookup failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the ledger")]
pub struct LookError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
