//! What the service tells about itself: logs and metrics. Imports nothing of ours; everybody may import it.

pub mod exposition;
pub mod failpoint;
pub mod log;
pub mod metrics;
pub mod taming;
