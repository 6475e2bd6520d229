//! RabbitMQ over AMQP 0-9-1, using lapin.
//!
//! lapin logs every returned message, including its body, as a warning of the target `lapin::returned_messages`. The
//! body contains what approvers wrote, so the subscriber silences that target; the relay logs what matters about a
//! return. At level `trace` lapin logs every frame.

mod broker;
mod connection;
mod declare;
mod error;
mod examine;
mod existing;
mod permissions;
mod publisher;
mod settings;
pub mod signing;
mod spans;
pub mod tls;
pub mod topology;
mod url;
mod watch;
mod window;
mod words;

pub use broker::{Login, fault_of_url, login_of_url, oddities_of_url, sent_in_clear, vhost_of_url};
pub use connection::{Listening, listen_in};
pub use error::Error;
pub use examine::{Examined, Trouble, examine};
pub use existing::Existing;
pub use permissions::permissions;
pub use publisher::{ConfirmChannel, Publisher};
pub use settings::{Settings, Topology};
pub use spans::trace_of;
pub use topology::names;
pub use url::Address;
pub use watch::Watch;
pub use words::refusing_policy;

use broker::Broker;
use error::code;
