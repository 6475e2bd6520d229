//! Log lines for the machine's notices.

use tracing::{error, info, warn};

use super::protocol::{Notice, Tally};

pub(super) fn say(notice: Notice) {
    match notice {
        Notice::Crowded { waiting } => {
            warn!(waiting, "too many refused commands; new ones stay in the ledger");
        }
        Notice::RoomAgain { waiting } => info!(waiting, "publishing new commands again"),
        Notice::Blocked => warn!("the broker blocks publishing (memory or disk alarm); waiting"),
        Notice::Unblocked => info!("the broker no longer blocks publishing"),
        Notice::SettlementFails { first: true } => {
            warn!("cannot record confirms in the ledger; retrying");
        }
        Notice::SettlementFails { first: false } => {
            error!(
                "still cannot record confirms in the ledger; these commands are published again if the program ends \
                 before that. The ledger's own lines say why; a ledger that has failed to sync needs a restart"
            );
        }
        Notice::SettlementTaken => info!("ledger records confirms again"),
        Notice::NoLongerPending { gone } => {
            info!(gone, "commands are no longer pending; their tasks continue")
        }
        Notice::Refusals(Tally { refused, parked, last }) => {
            let Some((seq, reason)) = last else { return };
            if parked > 0 {
                warn!(
                    refused,
                    parked,
                    seq,
                    reason,
                    "broker refused commands; operator action required for the parked ones"
                );
            } else {
                warn!(refused, seq, reason, "broker refused commands; retrying");
            }
        }
        Notice::Careful { in_flight } => {
            warn!(
                in_flight,
                "the broker ended the session over one of the commands in flight; publishing one at a time to find it"
            );
        }
        Notice::SetAside { seq, reason } => {
            error!(
                seq,
                reason,
                "set aside, so that the others can go on; it is tried again by itself. Fix what the reason says: give \
                 the broker's user the permission to write to that routing key, raise max_message_size; or park it"
            );
        }
        Notice::LateUnknown(late) => {
            warn!(command_id = %late.command_id, late.reason, "returned message is not in the ledger");
        }
        Notice::LateUnderWay(late) => {
            warn!(
                command_id = %late.command_id,
                late.reason, "command returned after its confirm; already being published again"
            );
        }
        Notice::LateAgain(late) => {
            warn!(command_id = %late.command_id, late.reason, "command returned after its confirm; publishing it again");
        }
    }
}
