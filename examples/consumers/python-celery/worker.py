#!/usr/bin/env python3
"""A worker for countersign's commands, with Celery. See ../README.md.

The endpoint has to say profile = "celery": a plain command is no call of a task.
"""

import argparse
import hmac
import os
import signal
import sqlite3
import sys
import threading
import time
from base64 import b64decode
from datetime import datetime, timezone

from celery import Celery
from celery.exceptions import Reject
from celery.worker.consumer import Consumer
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from kombu import Queue
from standardwebhooks.webhooks import Webhook

QUEUE = os.environ.get("QUEUE", "countersign.commands")
STORE = os.environ.get("STORE", "handled.db")
REPORT = os.environ.get("REPORT")  # tell countersign what became of each command: countersign.outcomes
# If there are any, only what one of them has signed is taken: whsec_… or whpk_…, separated by blanks. Two while rotating.
KEYS = os.environ.get("VERIFY_KEYS", "").split()


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


class KeepPoison(Consumer):
    """Celery's own consumer acknowledges a message that it cannot decode, so that it is gone, and dies of a plain command,
    whose member `task` it takes for the name of one. This one rejects both."""

    class Blueprint(Consumer.Blueprint):
        # Celery sees a quorum queue and would declare 28 queues for tasks with an ETA, which commands never have.
        default_steps = [step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in step]

    def create_task_handler(self, *arguments, **options):
        receive = super().create_task_handler(*arguments, **options)

        def handle(message):
            if KEYS:
                try:
                    # kombu may have decoded it, by its content_encoding, which is utf-8.
                    verify(message.headers, message.body.encode() if isinstance(message.body, str) else bytes(message.body))
                except ValueError as problem:
                    message.reject()
                    return tell(f"rejected {message.properties.get('message_id')}: {problem}")
            return receive(message) if "task" in message.headers else self.on_unknown_message(None, message)

        return handle

    def on_decode_error(self, message, exc):
        message.reject()
        tell(f"rejected {message.properties.get('message_id')}: {type(exc).__name__}")

    def on_unknown_message(self, body, message):
        super().on_unknown_message(body, message)
        tell(f"rejected {message.properties.get('message_id')}: not a call of a task")

    def on_unknown_task(self, body, message, exc):
        super().on_unknown_task(body, message, exc)
        tell(f"rejected {message.headers.get('id')}: no task {exc}")


app = Celery("approvals", broker=os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"))
app.conf.update(
    # The queue is countersign's, and declared by it. Celery has to know that it is a quorum queue: such have no
    # global prefetch.
    task_queues=[Queue(QUEUE, no_declare=True, queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue=QUEUE,
    worker_consumer=KeepPoison,
    worker_prefetch_multiplier=20,
    task_acks_late=True,  # acknowledge after the task, not before it
    task_acks_on_failure_or_timeout=False,  # what fails goes to countersign.dead
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,  # no queues beside the one
    worker_redirect_stdouts=False,
)


@app.task(name="approval.command", bind=True)
def approval_command(self, command=None, *_arguments):
    """Reject(requeue=False) and every other exception send the message to countersign.dead."""
    message_id = self.request.id
    task = command.get("task") if isinstance(command, dict) else None
    if (
        not isinstance(task, dict)
        or command.get("schema") != "approval.command/1"
        or command.get("action") not in ("approve", "reject", "custom")
        or command.get("command_id") != message_id
    ):
        tell(f"rejected {message_id}: not an approval.command/1")
        raise Reject("not an approval.command/1", requeue=False)
    with sqlite3.connect(STORE) as database:  # one transaction: the decision and the memory of it
        fresh = database.execute("INSERT OR IGNORE INTO handled VALUES (?)", (message_id,)).rowcount
        if fresh:
            act(database, command)
    database.close()
    if REPORT:
        report(command)
    line = f"{'handled' if fresh else 'duplicate'} {message_id} {command['action']} {task.get('task_id')}"
    for earlier in ("repeats", "conflicts_with"):
        if command.get(earlier):
            line += f" {earlier} {command[earlier]}"
    tell(line)


def act(database, command):
    """Tell your approval system. What you write into `database` here is kept together with the id or not at all.

    If command["repeats"] is set, the same decision came before, as the command of that id: act only if your task has been
    opened again since; if not, it is a replay: change nothing, and report `refused`. command["conflicts_with"] names an
    opposite decision of the same operator: the later one counts, unless it repeats one that is older still."""


def report(command):
    """Tells countersign, which shows it to the approver; see ../python-pika/worker.py for all that can be told. To tell it
    again changes nothing. Raises if it is not in the queue then, and the command goes to countersign.dead."""
    outcome = {
        "schema": "approval.outcome/1",
        "command_id": command["command_id"],
        "outcome": "applied",
        "status": None,
        "message": None,
        "instance": None,
    }
    with app.connection_for_write(transport_options={"confirm_publish": True}) as connection:
        producer = connection.Producer(serializer="json")
        # To the queue of that name, by an exchange for reports alone; both are countersign's.
        producer.publish(
            outcome, exchange="countersign.outcomes", routing_key=REPORT, type="approval.outcome.v1", delivery_mode=2, mandatory=True
        )


with sqlite3.connect(STORE) as _database:
    _database.execute("CREATE TABLE IF NOT EXISTS handled (message_id TEXT PRIMARY KEY)")

# What follows makes the example end by itself. Without --count and --idle it runs until SIGTERM, as any worker of
# Celery does, which then finishes what it has begun; `celery -A worker worker` serves as well.

seen, last, count = 0, time.monotonic(), None


def tell(line):
    global seen, last
    print(line, flush=True)
    seen, last = seen + 1, time.monotonic()
    if seen == count:
        os.kill(os.getpid(), signal.SIGTERM)


def main():
    global count
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, help="end after so many messages")
    arguments.add_argument("--idle", type=float, help="end after so many seconds without a message")
    options = arguments.parse_args()
    count = options.count

    def end_when_idle():
        while time.monotonic() - last < options.idle:
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    if options.idle:
        threading.Thread(target=end_when_idle, daemon=True).start()
    alone = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
    worker = app.Worker(pool="solo", loglevel="WARNING", **alone)
    worker.start()
    sys.exit(worker.exitcode)  # app.worker_main() would end with 0 whatever happened


if __name__ == "__main__":
    main()
