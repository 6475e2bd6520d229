//! A limit: what a bare lapin publisher with confirms on one channel can do.
//!
//! usage: publish SECONDS BYTES [COUNT]     persistent messages of so many bytes, 1024 in flight; with COUNT until so
//!                                          many are confirmed
//! Prints one JSON line.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bench_peers::{Dress, ROUTING_KEY, Settings, channel};
use lapin::{Confirmation, options::BasicPublishOptions};

/// The same as `amqp.max_in_flight`.
const IN_FLIGHT: usize = 1024;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        || -> anyhow::Result<Option<u64>> { Ok(arguments.next().map(|text| text.parse()).transpose()?) };
    let (seconds, bytes) = (number()?.unwrap_or(5), number()?.unwrap_or(900));
    let count = number()?.unwrap_or(u64::MAX);
    let (settings, dress) = (Settings::from_environment()?, Dress::from_environment()?);
    let (connection, channel) = channel(&settings, true).await?;
    let body = vec![b'x'; usize::try_from(bytes)?];
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let (began, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut in_flight = VecDeque::with_capacity(IN_FLIGHT);
    let (mut published, mut confirmed) = (0_u64, 0_u64);
    loop {
        let more = published < count && (count != u64::MAX || began.elapsed() < limit);
        if more {
            let confirm = channel
                .basic_publish(
                    settings.exchange.as_str().into(),
                    ROUTING_KEY.into(),
                    options,
                    &body,
                    dress.properties(),
                )
                .await?;
            in_flight.push_back(confirm);
            published += 1;
        }
        if in_flight.len() >= IN_FLIGHT || !more {
            let Some(oldest) = in_flight.pop_front() else { break };
            anyhow::ensure!(matches!(oldest.await?, Confirmation::Ack(None)), "a message was not confirmed");
            confirmed += 1;
        }
    }
    let elapsed = began.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "count": confirmed, "elapsed_s": elapsed, "per_second": confirmed as f64 / elapsed })
    );
    connection.close(200, "done".into()).await?;
    Ok(())
}
