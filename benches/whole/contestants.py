"""Who is measured: countersign, the limits beside it, the peers."""

import json
import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from process import Measured

# With the ids around it, an encrypted callback of about 700 bytes.
CONTEXT = json.dumps({"document": "PO-2026-001234", "node": "manager", "note": "x" * 198})
TOKEN = "fake-token-" + secrets.token_hex(8)
KEY = "fake-key-" + secrets.token_hex(8)
ENDPOINT = "bench"
# How the names of contestants begin that are countersign as of another commit.
BEFORE = "at-"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(seconds, what, look):
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class Bench:
    """What all contestants share."""

    def __init__(self, options, broker, scratch, programs):
        self.options, self.broker, self.scratch, self.programs = options, broker, Path(scratch), programs
        self.load_config = self.scratch / "load.toml"
        self.load_config.write_text(
            f'[[endpoints]]\nname = "{ENDPOINT}"\n'
            f'credentials = [ {{ action_callback_token = "{TOKEN}", action_callback_key = "{KEY}" }} ]\n'
        )
        self.scratch_number = 0
        # How long a message of countersign is: as long are those of the limits.
        self.message_bytes = None

    def directory(self, name):
        """A new directory; a ledger never stands beside an old one."""
        self.scratch_number += 1
        path = self.scratch / f"{self.scratch_number}-{name}"
        path.mkdir()
        return path

    def send(self, url, *arguments):
        """Plays the approval center; the object `summary` of what it says."""
        ran = subprocess.run(
            [self.programs["countersign"], "send", "--config", self.load_config, "--url", url, "--context", CONTEXT,
             "--reason", "within the budget", "--connections", "64", "--summary", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            return json.loads(ran.stdout)["summary"]
        except (ValueError, KeyError):
            raise RuntimeError(f"the load failed: {ran.stderr.decode()}") from None

    def body(self, token=TOKEN):
        """One body as it goes over the wire."""
        config = self.scratch / "one.toml"
        config.write_text(self.load_config.read_text().replace(TOKEN, token))
        ran = subprocess.run(
            [self.programs["countersign"], "send", "--config", config, "--context", CONTEXT,
             "--reason", "within the budget", "--dry-run"],
            check=True,
            capture_output=True,
        )
        return ran.stdout.strip()


def post(url, body):
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def filled(environment, bench):
    """What a contestant is told of countersign's messages, once that is known."""
    return {name: value.replace("{bytes}", str(bench.message_bytes)) for name, value in environment.items()}


@contextmanager
def stopped_on_failure(service):
    """A service that does not become ready is nobody's to stop later."""
    try:
        yield
    except BaseException:
        service.stop()
        raise


class Http:
    """A contestant that takes callbacks."""

    publishes = True
    environment = {}
    program = "countersign"  # whose topology it publishes to

    def __init__(self, name, words, command, environment=None, publishes=True):
        self.name, self.words, self.command = name, words, command
        self.environment, self.publishes = environment or {}, publishes

    def start(self, bench):
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}/callbacks/{ENDPOINT}"
        environment = {
            "LISTEN": address,
            "AMQP_URL": bench.options.amqp_url,
            "EXCHANGE": bench.broker.exchange,
            "TOKEN": TOKEN,
            "KEY": KEY,
            **filled(self.environment, bench),
        }
        command = [part.replace("{port}", address.split(":")[1]) for part in map(str, self.command)]
        service = Measured(command, bench.directory(self.name) / "log", environment)
        with stopped_on_failure(service):
            self.until_open(service, address)
        return service

    @staticmethod
    def until_open(service, address):
        host, port = address.split(":")

        def is_open():
            service.check()
            with socket.socket() as client:
                return client.connect_ex((host, int(port))) == 0

        until(30, f"{address} to open", is_open)


class Countersign(Http):
    """countersign itself, on a ledger of its own."""

    def __init__(self, name="countersign", ledger=None, amqp_url=None, program="countersign", words="countersign"):
        super().__init__(name, words, [])
        self.ledger, self.amqp_url, self.program = ledger, amqp_url, program

    def config(self, bench, more=""):
        directory = bench.directory(self.name)
        address, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self.url = f"http://{address}/callbacks/{ENDPOINT}"
        self.file = self.ledger or directory / "ledger.db"
        config = directory / "countersign.toml"
        config.write_text(
            f'[http]\nlisten = "{address}"\n[admin]\nlisten = "{self.admin}"\n'
            f'[ledger]\nurl = "sqlite://{self.file}"\n{more}'
            f'[amqp]\nurl = "{self.amqp_url or bench.options.amqp_url}"\n'
            + bench.load_config.read_text()
        )
        return config, directory / "log"

    def start(self, bench, more="", connected=True):
        config, log = self.config(bench, more)
        service = Measured([bench.programs[self.program], "serve", "--config", config], log)
        with stopped_on_failure(service):
            self.until_ready(service)
            if connected and self.amqp_url is None:
                until(30, "the connection to the broker", lambda: self.metric("countersign_amqp_connected") == 1)
        return service

    def until_ready(self, service):
        """Asks every millisecond; returns how long it took from the start of the process, in seconds."""
        while True:
            service.check()
            try:
                with urllib.request.urlopen(f"http://{self.admin}/readyz", timeout=5):
                    return time.monotonic() - service.started
            except OSError:
                if time.monotonic() - service.started > 60:
                    raise RuntimeError("countersign did not become ready") from None
            time.sleep(0.001)

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " ") or line.startswith(name + "{"):
                    return float(line.rsplit(" ", 1)[1])
        return None


class Alone:
    """A limit that makes its own load and prints one JSON line."""

    publishes = False
    program = "countersign"

    def __init__(self, name, words, command, publishes, environment=None):
        self.name, self.words, self.command, self.publishes = name, words, command, publishes
        self.environment = environment or {}

    def run(self, bench, *more):
        directory = bench.directory(self.name)
        environment = {
            "LISTEN": "-",
            "AMQP_URL": bench.options.amqp_url,
            "EXCHANGE": bench.broker.exchange,
            "TOKEN": TOKEN,
            "KEY": KEY,
            **filled(self.environment, bench),
        }
        places = {"{directory}": str(directory), "{bytes}": str(bench.message_bytes)}
        command = [places.get(str(part), str(part)) for part in [*self.command, *more]]
        program = Measured(command, directory / "log", environment)
        _pid, status, usage = os.wait4(program.process.pid, 0)
        if status != 0:
            raise RuntimeError(f"{self.name} failed: {program.log.read_text()[-2000:]}")
        told = json.loads(program.log.read_text().splitlines()[-1])
        return {**told, "cpu_s": usage.ru_utime + usage.ru_stime}


def all_contestants(options, programs):
    peers = programs["peers"]
    node = [programs["node"], programs["node_server"]]
    uvicorn = [programs["python"], "-m", "uvicorn", "server:app", "--app-dir", programs["python_server"],
               "--host", "127.0.0.1", "--port", "{port}", "--no-access-log", "--log-level", "warning"]
    seconds = str(options.seconds)
    # Messages like countersign's own: its contract has six headers, and the broker reads and keeps each of them.
    same = {"DRESSED": "{bytes}"}
    before = [Countersign(name, program=name, words=f"countersign as of {name.removeprefix(BEFORE)}")
              for name in programs if name.startswith(BEFORE)]
    return [
        Countersign(),
        *before,
        Http("floor", "actix-web, bare lapin, confirm; no ledger", [peers / "floor"]),
        Http("floor-same", "the same, its messages like countersign's", [peers / "floor"], same),
        Http("node-1", "Node: fastify, amqplib, confirm; 1 process", node),
        Http("node-2", "Node: the same; 2 processes", node, {"PROCESSES": "2"}),
        Http("python", "Python: FastAPI, aio-pika, confirm", uvicorn),
        Http("rust-handler", "Rust: axum, lapin, no confirm", [peers / "handler"]),
        Http("bare-post", "limit: actix-web answers a POST", [peers / "post"], publishes=False),
        Alone("bare-publish", "limit: bare lapin with confirms", [peers / "publish", seconds, "{bytes}"], True),
        Alone("publish-same", "limit: the same, messages like countersign's",
              [peers / "publish", seconds, "{bytes}"], True, same),
        Alone("bare-commit", "limit: bare group commit, 64 waiters",
              [peers / "commit", "{directory}", seconds, "{bytes}"], False),
    ]
