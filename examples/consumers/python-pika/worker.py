#!/usr/bin/env python3
"""A worker for countersign's commands, with pika. See ../README.md."""

import argparse
import hmac
import json
import os
import signal
import sqlite3
import sys
from base64 import b64decode
from datetime import datetime, timezone

import pika
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("--queue", default="countersign.commands")
arguments.add_argument("--store", default="handled.db", help="SQLite file that remembers what was done")
arguments.add_argument("--count", type=int, help="end after so many messages")
arguments.add_argument("--idle", type=float, help="end after so many seconds without a message")
arguments.add_argument("--report", metavar="QUEUE", help="tell countersign what became of each command: countersign.outcomes")
options = arguments.parse_args()

# If there are any, only what one of them has signed is taken: whsec_… or whpk_…, separated by blanks. Two while rotating.
KEYS = os.environ.get("VERIFY_KEYS", "").split()

stopping = False


def stop(_signal, _frame):
    global stopping
    stopping = True


def verify(headers, body):
    """ValueError unless one of KEYS has signed the message. Headers other than these three are not signed."""
    try:
        message_id, time, signatures = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        at = datetime.fromtimestamp(int(time), timezone.utc)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise ValueError("not signed") from None
    if not any(signed_by(key, message_id, at, signatures.split(" "), body) for key in KEYS):
        raise ValueError("not signed by a key that is known here")


def signed_by(key, message_id, at, signatures, body):
    if not key.startswith("whpk_"):
        # Not Webhook.verify(), which refuses what is older than five minutes: a command may wait in a queue for days, and
        # `handled` tells what comes again.
        wanted = Webhook(key).sign(message_id, at, body.decode("utf-8", "replace"))
        return any(hmac.compare_digest(wanted.encode(), signature.encode()) for signature in signatures)
    public = Ed25519PublicKey.from_public_bytes(b64decode(key[len("whpk_") :]))
    content = f"{message_id}.{int(at.timestamp())}.".encode() + body
    for signature in signatures:
        kind, _, signature = signature.partition(",")
        try:
            if kind == "v1a":
                public.verify(b64decode(signature), content)
                return True
        except (InvalidSignature, ValueError):
            pass  # by another key, or no signature at all
    return False


def read(properties, body):
    """The command; ValueError if it is none."""
    if KEYS:
        verify(properties.headers, body)
    command = json.loads(body)  # what is not JSON, or not UTF-8, is a ValueError too
    if not isinstance(command, dict) or command.get("schema") != "approval.command/1":
        raise ValueError("not an approval.command/1")
    if command.get("action") not in ("approve", "reject", "custom"):
        raise ValueError("no action that is known here")
    if not isinstance(command.get("task"), dict) or command.get("command_id") != properties.message_id:
        raise ValueError("not a whole command")
    return command


def act(database, command):
    """Tell your approval system. What you write into `database` here is kept together with the message_id or not at all.

    If command["repeats"] is set, the same decision came before, as the command of that id: act only if your task has been
    opened again since; if not, it is a replay: change nothing, and report `refused`. command["conflicts_with"] names an
    opposite decision of the same operator: the later one counts, unless it repeats one that is older still."""


def report(channel, command):
    """Tells countersign, which shows it to the approver. To tell it again changes nothing, so a command that comes again is
    told again: perhaps this worker died before it could. Raises if it is not in the queue then."""
    outcome = {
        "schema": "approval.outcome/1",
        "command_id": command["command_id"],
        "outcome": "applied",  # or refused, or failed, with a message for the approver
        "status": None,  # of the card; None: what the approver decided
        "message": None,
        "instance": instance(command),
    }
    properties = pika.BasicProperties(
        content_type="application/json", content_encoding="utf-8", type="approval.outcome.v1", delivery_mode=2
    )
    channel.basic_publish("countersign.outcomes", options.report, json.dumps(outcome).encode(), properties, mandatory=True)


def instance(command):
    """Your instance as it is now, as POST external_instances takes it; None if there is none to be synchronised. Here: a file
    INSTANCES/<instance_id>.json, in which the approver's task and the instance get the status of the decision; without such a
    file, none."""
    folder, instance_id = os.environ.get("INSTANCES"), command["task"].get("instance_id")
    if not folder or not instance_id or command["action"] == "custom":
        return None
    try:
        with open(os.path.join(folder, os.path.basename(instance_id) + ".json"), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return None
    found["status"] = "APPROVED" if command["action"] == "approve" else "REJECTED"
    found.pop("update_time", None)  # countersign finds one that the approval center does not ignore
    for task in found["task_list"]:
        if task["task_id"] == command["task"].get("task_id"):
            task["status"] = found["status"]
            task.pop("update_time", None)
    return found


def handle(database, properties, body):
    """The command, and what was done with the message, in a line. Commits before it returns; ValueError: poison."""
    command = read(properties, body)
    with database:  # one transaction: the decision and the memory of it
        fresh = database.execute("INSERT OR IGNORE INTO handled VALUES (?)", (properties.message_id,)).rowcount
        if fresh:
            act(database, command)
    word = "handled" if fresh else "duplicate"
    line = f"{word} {properties.message_id} {command['action']} {command['task'].get('task_id')}"
    for earlier in ("repeats", "conflicts_with"):
        if command.get(earlier):
            line += f" {earlier} {command[earlier]}"
    return command, line


def main():
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    database = sqlite3.connect(options.store)
    database.execute("CREATE TABLE IF NOT EXISTS handled (message_id TEXT PRIMARY KEY)")

    url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=20)  # without it the broker would hand over the whole queue
    channel.confirm_delivery()  # a report counts when the broker has it

    seen, quiet, look_every = 0, 0.0, 0.2
    # Yields (None, None, None) after `look_every` seconds of silence, so that a signal is noticed.
    for method, properties, body in channel.consume(options.queue, inactivity_timeout=look_every):
        if method is None:
            quiet += look_every
        else:
            quiet = 0.0
            try:
                command, line = handle(database, properties, body)
            except ValueError as problem:
                # Not to be had again, but not lost either: it goes to countersign.dead.
                print(f"rejected {properties.message_id}: {problem}", flush=True)
                channel.basic_reject(method.delivery_tag, requeue=False)
            else:
                if options.report:
                    report(channel, command)
                print(line, flush=True)
                channel.basic_ack(method.delivery_tag)
            seen += 1
        if stopping or seen == options.count or (options.idle and quiet >= options.idle):
            break
    channel.cancel()  # gives back what was fetched and not begun
    connection.close()
    database.close()


if __name__ == "__main__":
    try:
        main()
    except (pika.exceptions.UnroutableError, pika.exceptions.ChannelClosedByBroker) as problem:
        # Not routed, or no such exchange: countersign makes both unless its outcomes.queue is empty.
        sys.exit(f"cannot consume {options.queue}, or report to {options.report or 'nobody'}: {problem!r}")
    except pika.exceptions.AMQPError as problem:
        sys.exit(f"the broker is away: {problem!r}")  # systemd or Kubernetes starts it again
