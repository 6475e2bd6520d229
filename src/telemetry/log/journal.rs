//! Lines for systemd's journal: each begins with its priority, see sd-daemon(3).

use std::{
    env, fmt,
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Whether standard error is connected to the journal: systemd passes the device and inode it connected, and a shell
/// in between may have redirected it.
pub(super) fn is_read_by_it() -> bool {
    let Ok(named) = env::var("JOURNAL_STREAM") else { return false };
    let identity = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|descriptor| File::from(descriptor).metadata())
        .map(|metadata| (metadata.dev(), metadata.ino()));
    identity.is_ok_and(|identity| parse(&named) == Some(identity))
}

fn parse(named: &str) -> Option<(u64, u64)> {
    let (device, inode) = named.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// Prefixes each line with its priority if `journal` is set.
pub(super) struct Prioritised<F> {
    pub(super) inner: F,
    pub(super) journal: bool,
}

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.journal {
            writer.write_str(priority(*event.metadata().level()))?;
        }
        self.inner.format_event(context, writer, event)
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert_eq!(parse("8:1234"), Some((8, 1234)));
        for none in ["", "8", "8:", ":1", "a:1", "8:1:2"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
