//! The limit of open files, and the public listener's share of it.
//!
//! When all descriptors are taken, nothing can be opened: no broker connection, no ledger file, no scrape. So
//! strangers at the public listener never get the last ones.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Maximum connections of the public listener, if descriptors suffice. One costs some 30 KiB. Strangers' connections
/// are short, but while there are this many nobody else gets in; this leaves room for some thousand new ones a second.
const MOST_CONNECTIONS: u64 = 16_384;

/// Descriptors kept from the public listener: 256 connections of the internal one, and as many for the ledger, the
/// connections to the broker and the approval center, the needs of each runtime thread, and files read now and then.
const RESERVE: u64 = 512;

/// With fewer connections than this, starting is pointless.
const FEWEST_CONNECTIONS: u64 = 64;

/// Raises the soft limit of descriptors as far as useful; returns how many connections the public listener may have.
///
/// # Errors
/// There are too few.
pub(super) fn connections() -> anyhow::Result<usize> {
    let most = within(raised(MOST_CONNECTIONS + RESERVE))?;
    if most < MOST_CONNECTIONS {
        tracing::warn!(
            connections = most,
            wanted = MOST_CONNECTIONS,
            "this process may open few files, so that the public listener takes fewer connections at a time; raise \
             the limit (LimitNOFILE of the systemd unit, ulimit -n)"
        );
    }
    Ok(usize::try_from(most).unwrap_or(usize::MAX))
}

/// Raises the soft limit to `wanted`, or as near as the hard limit allows, and returns it; `None` means unlimited.
fn raised(wanted: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current?;
    let target = limit.maximum.map_or(wanted, |hard| hard.min(wanted));
    if soft >= target {
        return Some(soft);
    }
    // Some sandboxes do not permit this; the limit then stays.
    match setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: limit.maximum }) {
        Ok(()) => Some(target),
        Err(_) => Some(soft),
    }
}

fn within(descriptors: Option<u64>) -> anyhow::Result<u64> {
    let Some(descriptors) = descriptors else { return Ok(MOST_CONNECTIONS) };
    let connections = descriptors.saturating_sub(RESERVE).min(MOST_CONNECTIONS);
    if connections < FEWEST_CONNECTIONS {
        bail!(
            "this process may have {descriptors} files open, and needs {} at the least: {RESERVE} for itself and the \
             internal listener, and one for each connection of the public one. Raise the limit: LimitNOFILE=65536 in the \
             systemd unit, `ulimit -n` in a shell, `--ulimit nofile=65536` for docker",
            RESERVE + FEWEST_CONNECTIONS
        );
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_listener_never_gets_the_last_descriptors() {
        assert_eq!(within(None).unwrap(), 16_384);
        assert_eq!(within(Some(1 << 20)).unwrap(), 16_384);
        assert_eq!(within(Some(1024)).unwrap(), 512);
        assert_eq!(within(Some(576)).unwrap(), 64);
        let refused = within(Some(575)).unwrap_err().to_string();
        assert!(refused.contains("may have 575 files open, and needs 576 at the least"), "{refused}");
        assert!(within(Some(0)).is_err());
    }
}
