//! A limit: what group commit alone can do. One SQLite file (WAL, synchronous=FULL), one thread that writes, rows of the
//! size and shape of a ledger's, 64 tasks that each wait for their row.
//!
//! usage: commit DIRECTORY SECONDS BYTES [WAITERS]
//! Prints one JSON line.

use std::{
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use tokio::sync::oneshot;

const MAX_BATCH: usize = 256;

type Job = (u64, oneshot::Sender<()>);

fn write(file: &Path, jobs: &mpsc::Receiver<Job>, message: &[u8]) -> anyhow::Result<()> {
    let mut connection = Connection::open(file)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(
        "CREATE TABLE commands (seq INTEGER PRIMARY KEY, command_id BLOB NOT NULL, received_at INTEGER NOT NULL,
            endpoint TEXT NOT NULL, action TEXT NOT NULL, action_type TEXT NOT NULL, user_id TEXT NOT NULL,
            approval_code TEXT, instance_id TEXT, task_id TEXT, task_key INTEGER NOT NULL, fingerprint BLOB NOT NULL,
            decision_key BLOB NOT NULL, message BLOB NOT NULL) STRICT;
         CREATE UNIQUE INDEX commands_by_id ON commands (command_id);",
    )?;
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO commands VALUES (?1, ?2, 1, 'bench', 'approve', 'APPROVE', 'bench-user',
                    '0F0E0D0C-1111-4222-8333-444455556666', 'bench-instance', ?3, ?1, ?4, ?5, ?6)",
            )?;
            for (number, _) in &batch {
                let id = uuid::Uuid::now_v7();
                let task = format!("bench-task-{number}");
                let hash = [*number as u8; 32];
                insert.execute(params![
                    *number as i64,
                    &id.as_bytes()[..],
                    task,
                    &hash[..],
                    &hash[..16],
                    message
                ])?;
            }
        }
        transaction.commit()?;
        for (_, reply) in batch {
            reply.send(()).ok();
        }
    }
    Ok(())
}

#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, seconds, bytes, rest @ ..] = &arguments[..] else {
        anyhow::bail!("usage: commit DIRECTORY SECONDS BYTES [WAITERS]");
    };
    let waiters: u64 = rest.first().map_or(Ok(64), |text| text.parse())?;
    let (file, message) = (Path::new(directory).join("commit.db"), vec![b'x'; bytes.parse()?]);
    let limit = Duration::from_secs(seconds.parse()?);
    let (jobs, receiver) = mpsc::channel::<Job>();
    let writer = std::thread::spawn(move || write(&file, &receiver, &message));
    let began = Instant::now();
    let tasks: Vec<_> = (0..waiters)
        .map(|waiter| {
            let jobs = jobs.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while began.elapsed() < limit {
                    let (reply, answer) = oneshot::channel();
                    if jobs.send((waiter + waiters * done + 1, reply)).is_err() || answer.await.is_err() {
                        break;
                    }
                    done += 1;
                }
                done
            })
        })
        .collect();
    drop(jobs);
    let mut count = 0;
    for task in tasks {
        count += task.await?;
    }
    let elapsed = began.elapsed().as_secs_f64();
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    println!(
        "{}",
        serde_json::json!({ "count": count, "elapsed_s": elapsed, "per_second": count as f64 / elapsed })
    );
    Ok(())
}
