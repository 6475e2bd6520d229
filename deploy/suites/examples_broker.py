"""What the suite `examples` does to the broker, with pika.

usage: examples_broker.py depth QUEUE COUNT SECONDS      waits until COUNT messages stand ready
       examples_broker.py consumers QUEUE COUNT SECONDS  waits until there are COUNT consumers
       examples_broker.py disturb QUEUE                  adds one copy of a message that waits, and two poisoned ones,
                                                         and a plain command where the messages are calls for Celery
       examples_broker.py forge QUEUE                    adds two messages that nobody has signed: a copy of one that waits with
                                                         its own signatures and another decision, and one without signatures
       examples_broker.py drain QUEUE                    takes all messages; prints message_id and reason of each

The broker is that of AMQP_URL. What `disturb` adds is signed with SIGNING_SECRET, so that workers refuse it for what it is.
Exits 1, with what was seen last, if the time is over.
"""

import json
import os
import sys
import time
from datetime import datetime, timezone

import pika
from standardwebhooks.webhooks import Webhook


def wait(channel, queue, attribute, wanted, seconds):
    deadline = time.monotonic() + seconds
    while True:
        seen = getattr(channel.queue_declare(queue, passive=True).method, attribute)
        if seen == wanted:
            return
        if time.monotonic() >= deadline:
            sys.exit(f"{queue}: {attribute} is {seen} after {seconds:g} s, not {wanted}")
        time.sleep(0.1)


def publish(channel, queue, properties, body):
    channel.basic_publish("", queue, body, properties, mandatory=True)  # raises unless confirmed and routed


def disturb(channel, queue):
    channel.confirm_delivery()
    method, properties, body = channel.basic_get(queue)
    publish(channel, queue, properties, body)  # the same again, as after a lost acknowledgement
    channel.basic_nack(method.delivery_tag)

    # Poison, in the very dress of the real ones: cut off in the middle, and a schema that nobody knows.
    cut = body[: len(body) // 2]
    publish(channel, queue, signed(poisoned(properties, "poison-cut"), cut), cut)
    command = body.replace(b'"approval.command/1"', b'"approval.command/9"').replace(
        properties.message_id.encode(), b"poison-schema"
    )
    assert json.loads(command) != json.loads(body)
    publish(channel, queue, signed(poisoned(properties, "poison-schema"), command), command)
    if "task" in properties.headers:
        plain = poisoned(properties, "poison-plain")
        for name in ("lang", "task", "id", "root_id", "argsrepr", "kwargsrepr", "origin"):
            del plain.headers[name]
        command = json.dumps(json.loads(body)[0][0]).encode()
        publish(channel, queue, signed(plain, command), command)


def forge(channel, queue):
    channel.confirm_delivery()
    method, properties, body = channel.basic_get(queue)
    channel.basic_nack(method.delivery_tag)
    assert properties.headers["webhook-id"] == properties.message_id
    own = properties.message_id.encode()
    # With all headers of the real one, so that nothing but the decision differs.
    forged = body.replace(b'"approve"', b'"custom"').replace(b'"reject"', b'"custom"')
    assert forged != body
    publish(channel, queue, properties, forged)
    unsigned = poisoned(properties, "poison-unsigned")
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        del unsigned.headers[name]
    publish(channel, queue, unsigned, body.replace(own, b"poison-unsigned"))


def signed(properties, body):
    now = datetime.now(timezone.utc)
    properties.headers.update({"webhook-id": properties.message_id, "webhook-timestamp": str(int(now.timestamp()))})
    signature = Webhook(os.environ["SIGNING_SECRET"]).sign(properties.message_id, now, body.decode())
    properties.headers["webhook-signature"] = signature
    return properties


def poisoned(properties, message_id):
    headers = dict(properties.headers)
    for name in ("id", "root_id"):
        if name in headers:
            headers[name] = message_id
    return pika.BasicProperties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        delivery_mode=2,
        message_id=message_id,
        correlation_id=message_id,
        type=properties.type,
        headers=headers,
    )


def drain(channel, queue):
    while True:
        method, properties, _body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return
        deaths = (properties.headers or {}).get("x-death") or [{}]
        print(properties.message_id, deaths[0].get("reason"))


def main():
    what, queue, *numbers = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    if what in ("depth", "consumers"):
        attribute = {"depth": "message_count", "consumers": "consumer_count"}[what]
        wait(channel, queue, attribute, int(numbers[0]), float(numbers[1]))
    else:
        {"disturb": disturb, "forge": forge, "drain": drain}[what](channel, queue)
    connection.close()


main()
