//! The chart of accepted decisions.

use std::time::Duration;

use super::{Unread, Viewer};
use crate::{
    command::Seq,
    ledger::{Filter, Lookup},
    time::Timestamp,
};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Bars of the chart.
const BARS: usize = 30;

pub(super) struct Bar {
    pub(super) x: usize,
    pub(super) y: u64,
    pub(super) height: u64,
    pub(super) count: u64,
    pub(super) from: String,
}

pub(super) struct Chart {
    pub(super) width: usize,
    pub(super) label: String,
    pub(super) bars: Vec<Bar>,
    pub(super) from: String,
    pub(super) to: String,
}

/// Accepted decisions of the last hour, in [`BARS`] equal parts. The log is in order of time, so a few binary searches
/// find them, however long it is.
pub(super) async fn counts(
    viewer: &Viewer,
    ledger: &(impl Lookup + ?Sized),
    now: Timestamp,
) -> Result<Vec<u64>, Unread> {
    let newest = viewer.look(ledger.list(Filter { limit: 1, ..Filter::default() })).await?;
    let head = newest.first().map_or(0, |newest| newest.seq);
    let step = HOUR / BARS as u32;
    let (mut counts, mut later) = (Vec::with_capacity(BARS), head + 1);
    for bar in 1..=BARS as u32 {
        let first = first_since(viewer, ledger, now - step * bar, later).await?;
        counts.push(later - first);
        later = first;
    }
    counts.reverse();
    Ok(counts)
}

/// The first place in the log that is not before a time, below `end`; `end` if there is none.
async fn first_since(
    viewer: &Viewer,
    ledger: &(impl Lookup + ?Sized),
    at: Timestamp,
    end: Seq,
) -> Result<Seq, Unread> {
    // Steps that double find the near end of a long log without looking at the middle of it.
    let (mut low, mut high, mut stride) = (1, end, 16);
    let is_since = async |seq| {
        let id = viewer.look(ledger.id_at(seq)).await?;
        // What was pruned was before.
        Ok(id.and_then(|id| id.received_at()).is_some_and(|received| received >= at))
    };
    while high > stride && is_since(high - stride).await? {
        high -= stride;
        stride *= 2;
    }
    low = low.max(high.saturating_sub(stride));
    while low < high {
        let middle = low + (high - low) / 2;
        if is_since(middle).await? { high = middle } else { low = middle + 1 }
    }
    Ok(high)
}

pub(super) fn chart(counts: &[u64], viewer: &Viewer, now: Timestamp) -> Chart {
    const HEIGHT: u64 = 58;
    let most = counts.iter().copied().max().unwrap_or(0);
    let step = HOUR / BARS as u32;
    let bars = counts.iter().enumerate().map(|(place, count)| {
        let height = if most == 0 { 0 } else { (count * HEIGHT).div_ceil(most) };
        // A foot, so that nothing and no chart look different.
        let height = height.max(1);
        let from = now - step * (BARS - place) as u32;
        Bar { x: place * 10 + 1, y: 60 - height, height, count: *count, from: viewer.shown(from) }
    });
    let total: u64 = counts.iter().sum();
    Chart {
        width: BARS * 10,
        label: (viewer.t().chart_label)(&total.to_string(), &most.to_string()),
        bars: bars.collect(),
        from: viewer.shown(now - HOUR),
        to: viewer.shown(now),
    }
}
