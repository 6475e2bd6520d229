//! Where a node finds the others: `epmd` for one node of a cluster. It gives the port of a wire to each other node, so
//! that all that goes between two nodes can be held up.
//!
//! The protocol: <https://www.erlang.org/doc/apps/erts/erl_dist_protocol.html>

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NAMES_REQ: u8 = b'n';
const ALIVE2_REQ: u8 = b'x';
const ALIVE2_X_RESP: u8 = b'v';
const PORT_PLEASE2_REQ: u8 = b'z';
const PORT2_RESP: u8 = b'w';

/// Two incarnations of a node must differ in this, or processes of the first are taken for those of the second.
static CREATION: AtomicU32 = AtomicU32::new(10);

/// Serves one node. `wires` has the ports at which it finds the others, by their names without the host.
pub(super) async fn serve(listener: TcpListener, wires: BTreeMap<String, u16>) {
    let names = Arc::new(Names { wires, registered: Mutex::default() });
    while let Ok((client, _)) = listener.accept().await {
        let names = Arc::clone(&names);
        tokio::spawn(async move {
            // How a connection ended does not matter.
            drop(names.answer(client).await);
        });
    }
}

struct Names {
    wires: BTreeMap<String, u16>,
    /// The node itself, while it runs.
    registered: Mutex<BTreeMap<String, u16>>,
}

impl Names {
    async fn answer(&self, mut client: TcpStream) -> io::Result<()> {
        let mut request = vec![0; usize::from(client.read_u16().await?)];
        client.read_exact(&mut request).await?;
        match request.split_first() {
            Some((&ALIVE2_REQ, node)) => self.register(node, client).await,
            Some((&PORT_PLEASE2_REQ, name)) => {
                let name = String::from_utf8_lossy(name).into_owned();
                client.write_all(&self.port_of(&name)).await
            }
            Some((&NAMES_REQ, _)) => {
                let mut reply = u32::from(client.local_addr()?.port()).to_be_bytes().to_vec();
                for (name, port) in self.registered().iter() {
                    reply.extend_from_slice(format!("name {name} at port {port}\n").as_bytes());
                }
                client.write_all(&reply).await
            }
            _ => Ok(()),
        }
    }

    fn registered(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u16>> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the name until the node closes the connection.
    async fn register(&self, node: &[u8], mut client: TcpStream) -> io::Result<()> {
        // Port, type, protocol, highest and lowest version, length of the name: 10 bytes; the name; more.
        let length = usize::from(u16_at(node, 8)?);
        let name = node.get(10..10 + length).ok_or(io::ErrorKind::InvalidData)?;
        let name = String::from_utf8_lossy(name).into_owned();
        self.registered().insert(name.clone(), u16_at(node, 0)?);
        let mut reply = vec![ALIVE2_X_RESP, 0];
        reply.extend_from_slice(&CREATION.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        client.write_all(&reply).await?;
        // Nothing more comes but the end.
        drop(client.read_u8().await);
        self.registered().remove(&name);
        Ok(())
    }

    fn port_of(&self, name: &str) -> Vec<u8> {
        let Some(port) = self.wires.get(name).copied().or_else(|| self.registered().get(name).copied())
        else {
            return vec![PORT2_RESP, 1];
        };
        let mut reply = vec![PORT2_RESP, 0];
        reply.extend_from_slice(&port.to_be_bytes());
        // An ordinary node, over TCP, version 6 of the protocol, or 5.
        reply.extend_from_slice(&[77, 0, 0, 6, 0, 5]);
        reply.extend_from_slice(&u16::try_from(name.len()).unwrap_or_default().to_be_bytes());
        reply.extend_from_slice(name.as_bytes());
        reply.extend_from_slice(&[0, 0]);
        reply
    }
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
