//! Telemetry of the service: logs, metrics and spans. Imports no other module of ours; any module may import it.

pub mod exposition;
pub mod failpoint;
pub mod log;
pub mod metrics;
pub mod taming;
pub mod traces;
