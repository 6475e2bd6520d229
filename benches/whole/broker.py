"""The broker as the benchmark sees it: topology, depth of the queue."""

import json
import os
import subprocess
import time

import pika


class Broker:
    """The topology is countersign's own, for all contestants: what it prints is declared."""

    def __init__(self, programs, queue="countersign.commands"):
        self.programs, self.topologies, self.there = programs, {}, None
        self.queue = queue
        self.exchange = queue
        self.connection = None
        self.connect()

    def topology(self, program):
        """What this program wants of the broker: another version may want something else."""
        if program not in self.topologies:
            printed = subprocess.run(
                [self.programs[program], "topology", "print", "--set", "amqp.url=amqp://127.0.0.1"],
                check=True,
                capture_output=True,
                env={"COUNTERSIGN_ACTION_CALLBACK_TOKEN": "fake-token-to-measure", "COUNTERSIGN__ENDPOINTS__0__PLAIN": "true", "PATH": os.environ["PATH"]},
            )
            self.topologies[program] = json.loads(printed.stdout)
        return self.topologies[program]

    def connect(self):
        parameters = pika.URLParameters(os.environ["AMQP_URL"])
        parameters.heartbeat = 0  # there are minutes between two questions
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()

    def fresh(self, program="countersign"):
        """An empty queue, made anew: the last contestant's messages are nobody else's load."""
        wanted = self.topology(program)
        for old in filter(None, (self.there, wanted)):
            for queue in old["queues"]:
                self.channel.queue_delete(queue["name"])
            for exchange in old["exchanges"]:
                self.channel.exchange_delete(exchange["name"])
        self.there = wanted
        for exchange in wanted["exchanges"]:
            self.channel.exchange_declare(
                exchange["name"], exchange["type"], durable=exchange["durable"], arguments=exchange["arguments"]
            )
        for queue in wanted["queues"]:
            self.channel.queue_declare(queue["name"], durable=queue["durable"], arguments=queue["arguments"])
        for binding in wanted["bindings"]:
            self.channel.queue_bind(binding["destination"], binding["source"], binding["routing_key"])

    def depth(self):
        return self.channel.queue_declare(self.queue, passive=True).method.message_count

    def wait_for_depth(self, wanted, seconds=120):
        """When the queue held so many, by the monotonic clock; fails if nothing moves for so long."""
        seen, moved = -1, time.monotonic()
        while True:
            depth = self.depth()
            now = time.monotonic()
            if depth >= wanted:
                return now
            if depth > seen:
                seen, moved = depth, now
            if now - moved > seconds:
                raise RuntimeError(f"the queue stands at {depth} of {wanted} messages")
            time.sleep(0.005)

    def empty(self):
        """Takes what is there away, as consumers would."""
        self.channel.queue_purge(self.queue)

    def take(self):
        """One message's body, or None."""
        method, _properties, body = self.channel.basic_get(self.queue, auto_ack=True)
        return body if method else None

    def close(self):
        self.fresh()
        self.connection.close()
