//! Why the ledger did not do what it was asked to.

/// Why nothing was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The queue to the writer is full.
    #[error("the ledger's writer queue is full")]
    Overloaded,
    /// The disk has less room than [`Limits::min_free_bytes`](super::Limits::min_free_bytes).
    #[error("the ledger's disk is low on space")]
    NoRoom,
    /// The server does not keep commits as `ledger.durability` demands. The cause is logged.
    #[error("the ledger's server does not keep commits as ledger.durability demands")]
    NotDurable,
    /// The disk is full, read-only or broken, or the writer has stopped. The cause is logged by the writer.
    #[error("the ledger cannot store anything now")]
    Unavailable,
}

/// A look into the ledger failed. The cause is in `source`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the ledger")]
pub struct LookError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}
