//! Telemetry of the service: logs and metrics. Imports no other module of ours; any module may import it.

pub mod exposition;
pub mod failpoint;
pub mod log;
pub mod metrics;
pub mod taming;
