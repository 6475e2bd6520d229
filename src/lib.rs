//! countersign receives the quick approval callbacks (三方快捷审批回调) of the Feishu/Lark approval center and turns each
//! into a durable approve/reject command on RabbitMQ, from which the workers of a third-party approval system act.
//!
//! # Promises
//! The code that keeps one says `INVARIANT n`.
//! 1. A callback is answered with success only after its command is committed and synced to the ledger.
//! 2. The same callback received twice is one command; a contradicting one is answered as such, by a rule written in one
//!    place ([`ledger::sqlite`], `accept`).
//! 3. A command leaves `pending` only by a confirmed, routed publish or by an operator's recorded act. Delivery is at
//!    least once, always with the same `message_id`.
//! 4. The accept path makes no remote call. Only disk and CPU stand between request and answer (the platform gives up
//!    after 5 or 10 s, platform.md#callback-transport).
//! 5. Every refused callback has exactly one reason, the same word in the answer, the log and the metric.
//! 6. A secret is never in `Debug`, a log line, a metric label, an error message or a console page.
//!
//! # One callback
//! 1. [`http`] reads a bounded body for `/callbacks/{endpoint}` and hands the bytes to [`intake::Intake::receive`].
//! 2. [`callback::open`] decrypts and authenticates with that endpoint's credentials and reads strictly.
//! 3. [`context::resolve`] finds the third party's task, by local data only.
//! 4. [`ledger::Accept::accept`] looks for sameness and commits, many commands per sync, and gives a receipt.
//! 5. [`http::answer`] turns receipt or refusal into what the platform expects to see. The request is over.
//! 6. [`relay`] gets fresh commands from the ledger's writer, in memory if it keeps up and from the log if not, and
//!    publishes them in order, persistent and mandatory; completed before by [`enrichment`](center::enrichment) where an endpoint is configured so.
//! 7. Confirms without a return move the cursor over the confirmed prefix; a nack or a return makes an exception; a
//!    deadline or a closed channel starts again at the cursor.
//! 8. If `[approval_center]` is configured, [`outcomes`](center::outcomes) takes what the workers report of the command, keeps it in the
//!    ledger, and shows it on the card and in the instance. The loop is closed.
//!
//! # Map
//! Flow goes down the list, imports go to leaves; `tests/it/layering` holds the arrows, and that no files import each other
//! in a circle.
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
//! | [`center`] | what stands round the callback, off unless configured: [`client`](center::client) of the platform's own APIs, [`enrichment`](center::enrichment), [`outcomes`](center::outcomes), [`reconcile`](center::reconcile) | command ledger relay amqp |
//! | [`emulator`] | the approval center's stand-in, for newcomers and tests | callback, for its cipher |
//! | [`command`] | the domain, pure | nothing |
//! | [`config`] | the settings of all modules from file, environment, flags | the settings' modules |
//! | [`backoff`], [`certificates`], [`loopback`], [`proxy`], [`secret`], [`stop`], [`telemetry`], [`time`] | leaves that everybody may import | nothing |
//!
//! The words: `docs/architecture.md#glossary`.

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
