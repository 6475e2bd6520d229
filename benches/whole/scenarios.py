"""The further lines: without the broker, a backlog, a ledger with a million rows, an hour."""

import csv
import json
import subprocess
import time

from contestants import Alone, Countersign, free_port, until
from measure import closed_loop
from process import Measured


def _nowhere():
    """A broker that is away: nobody listens on this port."""
    return f"amqp://guest:guest@127.0.0.1:{free_port()}/%2f"


def _fill(bench, rows, pending):
    """A ledger with so many rows, the last of them pending, all received before the window of any endpoint."""
    file = bench.directory("ledger") / "ledger.db"
    began = time.monotonic()
    subprocess.run([bench.programs["fill"], file, str(rows), str(pending)], check=True, stderr=subprocess.DEVNULL)
    print(f"    filled {rows} rows in {time.monotonic() - began:.0f} s", flush=True)
    return file


def _accepts(bench, contestant, seconds):
    """The accept path alone: what is published meanwhile is not waited for."""
    service = contestant.start(bench)
    try:
        contestant.publishes = False
        closed_loop(contestant, bench, service, max(1, seconds // 4))
        return closed_loop(contestant, bench, service, seconds)
    finally:
        service.stop()


def without_broker(bench, rounds):
    """Accepts while the broker is away, beside accepts while it is there."""
    result = []
    for number in range(rounds):
        pair = [("away", Countersign("without-broker", amqp_url=_nowhere())), ("there", Countersign("with-broker"))]
        figures = {}
        for name, contestant in pair if number % 2 else reversed(pair):
            bench.broker.fresh()
            figures[name] = _accepts(bench, contestant, bench.options.seconds)["answered_per_s"]
        result.append({**figures, "ratio": figures["away"] / figures["there"]})
    return result


def drain(bench, rounds, limits, rows):
    """A backlog that goes out when the broker is back, beside as many messages from bare lapin."""
    result = []
    names = ["countersign", *limits]
    for number in range(rounds):
        figures = {}
        for name in names[number % len(names):] + names[:number % len(names)]:
            bench.broker.fresh()
            if name in limits:
                figures[name] = limits[name].run(bench, str(rows))["per_second"]
                continue
            contestant = Countersign("drain", ledger=_fill(bench, rows, rows))
            service = contestant.start(bench)
            try:
                # From the connection on: how long it takes to notice a broker is another question.
                began, already = time.monotonic(), bench.broker.depth()
                ended = bench.broker.wait_for_depth(rows)
                cpu = service.cpu_seconds()
                figures |= {name: (rows - already) / (ended - began), "cpu_s_per_10k": cpu / rows * 1e4}
                # The cursor follows the confirms.
                until(30, "an empty backlog", lambda: contestant.metric('countersign_ledger_rows{state="pending"}') == 0)
            finally:
                service.stop()
                contestant.file.unlink()
        ratios = {f"ratio_{name}": figures["countersign"] / figures[name] for name in limits}
        result.append({**figures, **ratios, "ratio": figures["countersign"] / figures["bare"]})
    return result


def _ready_ms(bench, contestant):
    """From the start of the process until it is ready; then it is stopped."""
    config, log = contestant.config(bench)
    service = Measured([bench.programs["countersign"], "serve", "--config", config], log)
    try:
        return contestant.until_ready(service) * 1e3
    finally:
        service.stop()


def million(bench, rounds, rows):
    """How soon it is ready over a ledger with many rows, and how fast it accepts there, beside an empty one."""
    file, result = _fill(bench, rows, rows // 10), []
    nowhere = _nowhere()
    full = Countersign("million", ledger=file, amqp_url=nowhere)
    # Before any load: a start reads what was accepted within the window, and it is the rows that this asks about.
    ready_ms = [_ready_ms(bench, full) for _ in range(rounds)]
    for number in range(rounds):
        figures = {"ready_ms": ready_ms[number], "ready_after_load_ms": _ready_ms(bench, full) if number else None}
        pair = [("full", full), ("empty", Countersign("empty", amqp_url=nowhere))]
        for name, contestant in pair if number % 2 else reversed(pair):
            figures[name] = _accepts(bench, contestant, bench.options.seconds)["answered_per_s"]
        result.append({**figures, "ratio": figures["full"] / figures["empty"]})
    file.unlink()
    return result


def flat(bench, rounds, few, many):
    """What a callback costs with few and with many commands pending."""
    files = {"few": _fill(bench, few, few), "many": _fill(bench, many, many)}
    nowhere, result = _nowhere(), []
    for number in range(rounds):
        figures = {}
        for name in ("few", "many") if number % 2 else ("many", "few"):
            contestant = Countersign(name, ledger=files[name], amqp_url=nowhere)
            accepted = _accepts(bench, contestant, bench.options.seconds)
            figures |= {name: accepted["cpu_s_per_10k"], f"{name}_per_s": accepted["answered_per_s"]}
        result.append({**figures, "ratio": figures["many"] / figures["few"]})
    for file in files.values():
        file.unlink()
    return result


def all_scenarios(options, contestants):
    """Name, words, and how to run it; in this order."""
    alone = {one.name: one for one in contestants if isinstance(one, Alone)}
    limits = {"bare": alone["bare-publish"], "same": alone["publish-same"]}
    rows, backlog = (20_000, 5_000) if options.quick else (1_000_000, 200_000)
    return [
        ("without-broker", "accepts/s with the broker away / with it there", without_broker, ()),
        ("drain", f"draining a backlog of {backlog} / bare lapin", drain, (limits, backlog)),
        ("million", f"accepts/s over {rows} rows (10 % pending) / over none", million, (rows,)),
        ("flat", f"CPU per callback with {rows} pending / with 1000", flat, (1_000, rows)),
    ]


def soak(bench, seconds, rate, output):
    """A steady rate for a long time; a line of CSV for each half minute."""
    every = 30 if seconds >= 600 else 5
    known = subprocess.run([bench.programs["countersign"], "config", "defaults"], capture_output=True, text=True)
    # Short enough to prune most of the time.
    retention = 'retention = "10m"\n' if "retention" in known.stdout else ""
    if not retention:
        print("    this version has no ledger.retention: the ledger grows", flush=True)
    bench.broker.fresh()
    contestant, rows = Countersign("soak"), []
    service = contestant.start(bench, more=retention)
    began = time.monotonic()
    try:
        with open(output, "w", newline="") as file:
            table = None
            while time.monotonic() - began < seconds:
                cpu = service.cpu_seconds()
                sent = bench.send(contestant.url, "--rate", str(rate), "--duration", f"{every}s")
                service.check()
                # The queue is emptied, as consumers would: it is not the broker's memory that is looked at.
                bench.broker.wait_for_depth(min(1, sent["accepted"]))
                bench.broker.empty()
                sizes = {path.name: path.stat().st_size for path in contestant.file.parent.glob("ledger.db*")}
                rows.append({
                    "elapsed_s": round(time.monotonic() - began, 1),
                    "accepted": sent["accepted"],
                    "failed": sent["sent"] - sent["accepted"] + sent["unsent"],
                    "p50_ms": sent["latency_us"]["p50"] / 1e3,
                    "p99_ms": sent["latency_us"]["p99"] / 1e3,
                    "max_ms": sent["latency_us"]["max"] / 1e3,
                    "cpu_s_per_10k": round((service.cpu_seconds() - cpu) / max(1, sent["accepted"]) * 1e4, 3),
                    "rss_mib": round(service.rss_mib(), 1),
                    "ledger_mib": round(sizes.get("ledger.db", 0) / 2**20, 1),
                    "wal_mib": round(sizes.get("ledger.db-wal", 0) / 2**20, 1),
                    "pending": contestant.metric('countersign_ledger_rows{state="pending"}'),
                })
                if table is None:
                    table = csv.DictWriter(file, rows[0])
                    table.writeheader()
                table.writerow(rows[-1])
                file.flush()
                print("    " + json.dumps(rows[-1]), flush=True)
    finally:
        service.stop()
    return rows
