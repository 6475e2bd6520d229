"""One contestant in one round, and whether it does the work at all."""

import json
import time

from contestants import Alone, post


def conformance(contestant, bench):
    """A good callback is answered 200 and is in the queue; a wrong token is answered 403 and is not.

    Returns how long the message is that it published.
    """
    length = None
    bench.broker.fresh(contestant.program)
    service = contestant.start(bench)
    try:
        good, bad = post(contestant.url, bench.body()), post(contestant.url, bench.body("fake-other-token"))
        if contestant.publishes:
            if (good, bad) != (200, 403):
                raise RuntimeError(f"{contestant.name} answers {good} to a good callback and {bad} to a wrong token")
            bench.broker.wait_for_depth(1, 15)
            message = bench.broker.take()
            command, length = json.loads(message), len(message)
            user = command.get("user_id") or command["operator"]["user_id"]
            if user != "demo-user" or bench.broker.depth() != 0:
                raise RuntimeError(f"{contestant.name} publishes something else: {command}")
        elif good != 200:
            raise RuntimeError(f"{contestant.name} answers {good}")
    finally:
        service.stop()
    return length


def closed_loop(contestant, bench, service, seconds):
    """As much as 64 connections can do, and until the last of it is in the queue."""
    before = bench.broker.depth() if contestant.publishes else 0
    cpu = service.cpu_seconds()
    service.sample_rss()
    sent = bench.send(contestant.url, "--duration", f"{seconds}s")
    sent_at = time.monotonic()
    if sent["accepted"] != sent["sent"]:
        raise RuntimeError(f"{contestant.name} did not accept everything: {sent}")
    whole = sent["elapsed_ms"] / 1e3
    if contestant.publishes:
        whole += max(0.0, bench.broker.wait_for_depth(before + sent["accepted"]) - sent_at)
    service.check()
    return {
        "answered_per_s": sent["rate_per_s"],
        "end_to_end_per_s": sent["accepted"] / whole,
        "cpu_s_per_10k": (service.cpu_seconds() - cpu) / sent["accepted"] * 1e4,
        "rss_load_mib": service.peak_rss_mib(),
        "closed_p50_ms": sent["latency_us"]["p50"] / 1e3,
        "closed_p99_ms": sent["latency_us"]["p99"] / 1e3,
    }


def open_loop(contestant, bench, rate, seconds):
    """Latencies at a rate, counted from the moment when each callback was due."""
    sent = bench.send(contestant.url, "--rate", f"{rate:.0f}", "--duration", f"{seconds}s")
    return {
        "half_rate": rate,
        "half_achieved": sent["rate_per_s"],
        "half_p50_ms": sent["latency_us"]["p50"] / 1e3,
        "half_p99_ms": sent["latency_us"]["p99"] / 1e3,
        "half_failed": sent["sent"] - sent["accepted"] + sent["unsent"],
    }


def measured(contestant, bench):
    """All figures of one contestant in one round."""
    if contestant.publishes or not isinstance(contestant, Alone):
        bench.broker.fresh(contestant.program)
    if isinstance(contestant, Alone):
        told = contestant.run(bench)
        return {
            "answered_per_s": told["per_second"],
            "end_to_end_per_s": told["per_second"],
            "cpu_s_per_10k": told["cpu_s"] / told["count"] * 1e4,
        }
    seconds = bench.options.seconds
    service = contestant.start(bench)
    try:
        time.sleep(1)  # what it does at its start is not idling
        idle = service.rss_mib()
        closed_loop(contestant, bench, service, max(1, seconds // 4))  # warms up compilers, caches, the broker's queue
        figures = {"rss_idle_mib": idle, **closed_loop(contestant, bench, service, seconds)}
        rate = figures["end_to_end_per_s"] / 2
        if contestant.publishes:
            # At half load consumers keep up; what the closed loop left behind is the broker's load and not the rate's.
            bench.broker.empty()
            open_loop(contestant, bench, rate, max(1, seconds // 4))  # while the broker clears away
        figures |= open_loop(contestant, bench, rate, seconds)
        return figures
    finally:
        service.stop()
