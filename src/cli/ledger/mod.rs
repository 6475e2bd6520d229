//! `countersign ledger …`: works on the ledger, whether or not `serve` runs.

mod acts;
mod backup;
mod check;
mod copy;
mod requeue;
mod salvage;
mod strays;
mod view;

use clap::Subcommand;

use super::{
    block_on,
    exit::{Exit, Failure},
    opened::client,
};
use crate::config::Loaded;
use acts::{ParkArguments, PruneArguments, ShowAgainArguments};
use backup::{BackupArguments, RestoreArguments};
use check::CheckArguments;
use copy::CopyArguments;
use requeue::RequeueArguments;
use salvage::{ImportArguments, SalvageArguments};
use strays::StraysArguments;
use view::{ListArguments, ShowArguments, StatsArguments};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  countersign ledger stats                                  how many commands are in which state?
  countersign ledger list --user zhang3 --around 10:42      what did zhang3 decide at about 10:42?
  countersign ledger show 4711                              one command, whole
  countersign ledger requeue 4711 --reason 'the worker was down'
  countersign ledger check                                  is the ledger sound?")]
pub(super) enum LedgerCommand {
    /// List commands, newest first
    List(Box<ListArguments>),
    /// Show one command with its message
    Show(ShowArguments),
    /// Show the number of commands in each state, and how far publishing has come
    Stats(StatsArguments),
    /// Requeue commands that are parked or published, so that they are published again
    ///
    /// A running service finds them within seconds. Their message_id stays the same.
    #[command(after_help = requeue::EXAMPLES)]
    Requeue(Box<RequeueArguments>),
    /// Park pending commands until they are requeued
    Park(ParkArguments),
    /// Show outcomes again that the approval center rejected
    ///
    /// A running service finds them within seconds. What waits is tried at once; what is all shown is shown again, which
    /// changes nothing.
    ShowAgain(ShowAgainArguments),
    /// Show dead letters that are no command of this ledger
    ///
    /// They come from the queues of dead letters and of unrouted commands: reports that were refused, and messages of others.
    #[command(after_help = strays::EXAMPLES)]
    Strays(StraysArguments),
    /// Remove old published commands from the ledger
    ///
    /// A running service does this itself, by ledger.retention. What is not published, or came back, stays. The file does not
    /// shrink: its free pages are reused.
    Prune(PruneArguments),
    /// Copy a SQLite ledger to a PostgreSQL database, to serve from that
    ///
    /// Takes commands with their history, rounds, contexts and all else that is kept; refuses if something is not published
    /// yet, or if a service uses one of the two. One that is interrupted goes on when it is started again.
    #[command(after_help = copy::EXAMPLES)]
    Copy(Box<CopyArguments>),
    /// Copy a SQLite ledger to a file, while a service uses it
    ///
    /// Takes one consistent state without holding up callbacks, checks it, and gives it its name only then. A backup that is
    /// interrupted leaves nothing under that name.
    #[command(after_help = backup::EXAMPLES)]
    Backup(BackupArguments),
    /// Put a backup in the place of a SQLite ledger that no service uses
    ///
    /// Checks the backup, parks what is pending in it so that nothing is published twice, and moves the old files aside. Tells
    /// since when decisions are missing.
    #[command(after_help = backup::EXAMPLES)]
    Restore(RestoreArguments),
    /// Check pages, tables and invariants of the ledger
    ///
    /// Reads everything as of one moment, also beside a running service. Exits with 1 if something is wrong, and says what it
    /// means.
    Check(CheckArguments),
    /// Write what can be read of a damaged SQLite ledger as JSON lines
    ///
    /// Leaves the file as it is. Exits with 1 if something could not be read, and says what.
    #[command(after_help = salvage::EXAMPLES)]
    Salvage(SalvageArguments),
    /// Take what was salvaged into a new, empty ledger, of either kind
    ///
    /// All of it or nothing. Then checks the ledger.
    #[command(after_help = salvage::EXAMPLES)]
    Import(ImportArguments),
}

pub(super) fn run(command: LedgerCommand, loaded: &Loaded) -> Result<Exit, Failure> {
    block_on(async {
        let ledger = || client(loaded);
        match command {
            LedgerCommand::List(arguments) => view::list(&arguments, &*ledger().await?).await,
            LedgerCommand::Show(arguments) => view::show(&arguments, &*ledger().await?).await,
            LedgerCommand::Stats(arguments) => view::stats(&arguments, &*ledger().await?).await,
            LedgerCommand::Requeue(arguments) => requeue::requeue(&arguments, &*ledger().await?).await,
            LedgerCommand::Park(arguments) => acts::park(&arguments, &*ledger().await?).await,
            LedgerCommand::ShowAgain(arguments) => acts::show_again(&arguments, &*ledger().await?).await,
            LedgerCommand::Strays(arguments) => strays::strays(&arguments, &*ledger().await?).await,
            LedgerCommand::Prune(arguments) => acts::prune(&arguments, loaded).await,
            LedgerCommand::Copy(arguments) => copy::copy(&arguments, loaded).await,
            LedgerCommand::Backup(arguments) => backup::backup(&arguments, loaded).await,
            LedgerCommand::Restore(arguments) => backup::restore(&arguments, loaded).await,
            LedgerCommand::Check(arguments) => check::check(&arguments, loaded).await,
            LedgerCommand::Salvage(arguments) => salvage::salvage(&arguments),
            LedgerCommand::Import(arguments) => salvage::import(&arguments, loaded).await,
        }
    })
}
