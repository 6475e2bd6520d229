//! A node of a cluster; `tests/faults/cluster` makes three of them one.
#![allow(dead_code, reason = "not all test programs have a cluster")]

use super::Broker;
use std::net::SocketAddr;

impl Broker {
    /// A node of a cluster, not started yet. It asks for the other nodes, and makes itself known, on `epmd_port`, which
    /// somebody else serves.
    pub(crate) fn member(name: String, epmd_port: u16, config: &str) -> Self {
        Self::prepare(name, Some(epmd_port), |dir| {
            let cookie = dir.join(".erlang.cookie");
            std::fs::write(&cookie, "fake-cookie").expect("the node's directory is writable");
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o400);
            std::fs::set_permissions(&cookie, private).expect("our own file");
            config.to_owned()
        })
    }

    /// Kills the node with SIGKILL and returns when it is gone. Its data stay.
    pub(crate) fn kill(&self) {
        self.end(|| {});
    }

    pub(crate) fn node_name(&self) -> &str {
        &self.node_name
    }

    pub(crate) fn epmd_port(&self) -> u16 {
        self.epmd_port
    }

    /// Where the other nodes of a cluster connect to.
    pub(crate) fn dist_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.dist_port))
    }

    pub(crate) fn amqp_port(&self) -> u16 {
        self.amqp_port
    }
}
