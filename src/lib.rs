//! countersign receives quick approval callbacks (三方快捷审批回调) from the Feishu/Lark approval center. It turns each
//! into a durable approve/reject command on RabbitMQ for the workers of a third-party approval system.
//!
//! # Promises
//! Code that keeps a promise is marked `INVARIANT n`.
//! 1. A callback is answered with success only after its command is committed and synced to the ledger.
//! 2. A repeated callback yields one command, and a contradicting one is answered as such. One function decides both
//!    ([`ledger::sqlite`], `accept`).
//! 3. A command leaves `pending` only by a confirmed, routed publish or by an operator's recorded action. Delivery is
//!    at least once, always with the same `message_id`.
//! 4. The accept path makes no remote call. Only disk and CPU are involved between request and answer (the platform
//!    gives up after 5 or 10 s, platform.md#callback-transport).
//! 5. Every refused callback has exactly one reason, named identically in the answer, the log and the metric.
//! 6. A secret is never in `Debug`, a log line, a metric label, an error message or a console page.
//!
//! # One callback
//! 1. [`http`] reads a bounded body for `/callbacks/{endpoint}` and passes the bytes to [`intake::Intake::receive`].
//! 2. [`callback::open`] decrypts and authenticates with that endpoint's credentials, then parses strictly.
//! 3. [`context::resolve`] finds the third party's task, using local data only.
//! 4. [`ledger::Accept::accept`] deduplicates and commits, many commands per sync, and returns a receipt.
//! 5. [`http::answer`] turns a receipt or refusal into the answer that the platform expects. The request is complete.
//! 6. [`relay`] gets fresh commands from the ledger's writer, in memory if it keeps up and from the log if not. It
//!    publishes them in order, persistent and mandatory. If the endpoint is configured so,
//!    [`enrichment`](center::enrichment) completes them first.
//! 7. Confirms without a return advance the cursor over the confirmed prefix. A nack or a return creates an exception.
//!    After a deadline or a closed channel, publishing restarts at the cursor.
//! 8. [`feedback`] keeps the workers' reports about the command in the ledger, and takes back commands that no worker
//!    took. An endpoint may hold the answer of step 5 for the report: after the commit, and without a remote call.
//! 9. If `[approval_center]` is configured, [`outcomes`](center::outcomes) shows what was reported on the card and in
//!    the instance. The loop is closed.
//!
//! # Map
//! Flow goes down the list, imports go to leaves. `tests/it/layering` enforces the imports and forbids import cycles
//! between files.
//!
//! | module | what lives there | may import |
//! |---|---|---|
//! | [`cli`] | the command line | all |
//! | [`app`] | composition: binds, wires, stops in order | http console intake command ledger relay |
//! | [`http`] | public listener: transport only | intake command |
//! | [`console`] | internal listener: health, metrics, API, registering contexts | command ledger |
//! | [`intake`] | the story of a callback; the closed list of refusals | callback context command ledger |
//! | [`callback`] | bytes to `Verified` | command |
//! | [`context`] | `Verified` to `TaskRef` | callback command |
//! | [`ledger`] | durable accept, sameness, cursor, exceptions | command |
//! | [`relay`] | from the ledger to a broker, whichever it is | command ledger |
//! | [`amqp`] | the one place that knows lapin: connections, topology, publishing | command ledger relay |
//! | [`feedback`] | what comes back from the broker, into the ledger: reports, dead letters, unrouted commands | command ledger relay amqp, the client's types |
//! | [`center`] | what stands round the callback, off unless configured: [`client`](center::client) of the platform's own APIs, [`enrichment`](center::enrichment), [`outcomes`](center::outcomes), [`reconcile`](center::reconcile) | command ledger relay |
//! | [`emulator`] | the approval center's stand-in, for newcomers and tests | callback, for its cipher |
//! | [`command`] | the domain, pure | nothing |
//! | [`config`] | the settings of all modules from file, environment, flags | the settings' modules |
//! | [`backoff`], [`certificates`], [`loopback`], [`proxy`], [`secret`], [`stop`], [`telemetry`], [`time`] | leaves that everybody may import | nothing |
//!
//! Terms: `docs/architecture.md#glossary`.

pub mod amqp;
pub mod app;
pub mod backoff;
pub mod callback;
pub mod center;
pub mod certificates;
pub mod cli;
pub mod command;
pub mod config;
pub mod console;
pub mod context;
pub mod emulator;
pub mod feedback;
pub mod http;
pub mod intake;
pub mod ledger;
pub mod loopback;
pub mod proxy;
pub mod relay;
pub mod secret;
pub mod stop;
pub mod telemetry;
pub mod time;
