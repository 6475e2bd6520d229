//! Counts each peer's open connections.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::telling::key;

/// The number of connections per peer. Has at most one entry per open connection.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounts {
    taken: Mutex<HashMap<u128, u32>>,
}

/// A slot for one connection, released on drop.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    counts: Arc<ConnectionCounts>,
    key: u128,
}

impl ConnectionCounts {
    /// Takes a slot for one more connection of this peer, unless it already has `most`.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr, most: u32) -> Option<ConnectionSlot> {
        let key = key(peer);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(ConnectionSlot { counts: self.clone(), key })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.counts.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_so_many_places_and_gets_them_back() {
        let counts = Arc::new(ConnectionCounts::default());
        let take = |peer: &str| counts.take(peer.parse().unwrap(), 2);
        let (first, second) = (take("192.0.2.1"), take("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(take("192.0.2.1").is_none());
        assert!(take("192.0.2.2").is_some(), "another is not touched");
        drop(first);
        let third = take("192.0.2.1");
        assert!(third.is_some());
        assert!(take("192.0.2.1").is_none());
        drop((second, third));
        let sixty_four = [take("2001:db8::1"), take("2001:db8::ffff:1"), take("2001:db8::2")];
        assert_eq!(sixty_four.map(|slot| slot.is_some()), [true, true, false], "a /64 is one peer");
        assert!(counts.taken.lock().unwrap().is_empty(), "nothing is remembered of those that are gone");
    }
}
