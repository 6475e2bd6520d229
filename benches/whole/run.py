"""The whole-service benchmark. Started by deploy/bench, which has the words about its options."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import report
import scenarios
from broker import Broker
from contestants import Bench, Http, all_contestants
from measure import conformance, measured
from quiet import Watch


def options():
    parser = argparse.ArgumentParser(prog="deploy/bench")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--seconds", type=int, default=8, metavar="N")
    parser.add_argument("--only", default="", metavar="A,B")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--soak", action="store_true")
    parser.add_argument("--soak-seconds", type=int, default=3600, metavar="N")
    parser.add_argument("--soak-rate", type=int, default=1000, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE")
    parser.add_argument("--broker-directory", type=Path, metavar="DIRECTORY")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--program", action="append", default=[], metavar="NAME=PATH")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = min(chosen.rounds, 1), min(chosen.seconds, 2)
    chosen.amqp_url = os.environ["AMQP_URL"]
    return chosen


def machine():
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    models = {line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
              if line.startswith("model name")}
    return {
        "cores": os.cpu_count(),
        "cpu": ", ".join(sorted(models)) or platform.processor(),
        "memory_gib": round(int(memory.split()[1]) / 2**20, 1),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
    }


def git_version():
    ran = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return ran.stdout.strip() or None


def main():
    # As an exception, so that whatever runs is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = options()
    programs = dict(part.split("=", 1) for part in chosen.program)
    programs["peers"] = Path(programs["peers"])
    broker = Broker(programs)
    bench = Bench(chosen, broker, chosen.scratch, programs)
    body = bench.body()
    about = {**machine(), "version": git_version(), "rounds": chosen.rounds, "seconds": chosen.seconds,
             "body_bytes": len(body), "connections": 64, "quick": chosen.quick}

    if chosen.soak:
        output = chosen.json or Path("soak.csv")
        rows = scenarios.soak(bench, chosen.soak_seconds, chosen.soak_rate, output.with_suffix(".csv"))
        panels = [("rss_mib", "memory of countersign, MiB"), ("ledger_mib", "ledger, MiB"), ("wal_mib", "its log, MiB"),
                  ("p50_ms", "p50, ms"), ("p99_ms", "p99, ms"), ("cpu_s_per_10k", "CPU-s per 10 000")]
        output.with_suffix(".svg").write_text(report.plots(rows, panels))
        print(f"{output.with_suffix('.csv')} and {output.with_suffix('.svg')} written")
        broker.close()
        return

    contestants = all_contestants(chosen, programs)
    further = scenarios.all_scenarios(chosen, contestants)
    wanted = set(filter(None, chosen.only.split(",")))
    unknown = wanted - {one.name for one in contestants} - {name for name, *_ in further}
    if unknown:
        names = [one.name for one in contestants] + [name for name, *_ in further]
        sys.exit(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    taking_part = [one for one in contestants if not wanted or one.name in wanted]

    # countersign in any case: the limits publish and keep messages as long as its own.
    bench.message_bytes = about["message_bytes"] = conformance(contestants[0], bench)
    print(json.dumps(about), flush=True)
    for contestant in taking_part:
        if isinstance(contestant, Http):
            conformance(contestant, bench)
            print(f"    {contestant.name} does the work", flush=True)
    rounds = []
    for number in range(chosen.rounds if taking_part else 0):
        figures = {}
        # Everybody comes first once: what runs after what is not always the same.
        order = taking_part[number % len(taking_part):] + taking_part[:number % len(taking_part)]
        for contestant in order:
            began = time.monotonic()
            watch = Watch(chosen.broker_directory)
            figures[contestant.name] = one = measured(contestant, bench)
            one["disturbances"] = watch.disturbances()
            print(f"    round {number + 1}: {contestant.name:<13} {one['end_to_end_per_s']:8.0f}/s "
                  f"{one['cpu_s_per_10k']:6.2f} CPU-s/10 000  ({time.monotonic() - began:.0f} s)"
                  + "".join(f"  ! {words}" for words in one["disturbances"]), flush=True)
        rounds.append(figures)
    done = {}
    for name, words, scenario, arguments in further:
        if not wanted or name in wanted:
            print(f"    {words}", flush=True)
            done[name] = (words, scenario(bench, chosen.rounds, *arguments))
            print("    " + json.dumps(done[name][1]), flush=True)
    broker.close()

    names = [one.name for one in taking_part]
    print()
    if rounds:
        print(report.table(rounds, names) + "\n")
        others = [name for name in names if name != "countersign" and "countersign" in names]
        ratios = [[name, *(f"{value:.2f}" for value in report.ratio(rounds, "countersign", name, "end_to_end_per_s"))]
                  for name in others]
        if ratios:
            print(report.aligned([["countersign / ...", "median", "least", "most"], *ratios]) + "\n")
    print(report.goals(rounds, done))
    disturbed = report.disturbed(rounds)
    if disturbed:
        print("\nnot quiet, so read the spread with care:\n" + disturbed)
    if chosen.json:
        chosen.json.write_text(json.dumps({
            "schema": "countersign.bench/1",
            "about": about,
            "rounds": rounds,
            "scenarios": {name: {"words": words, "rounds": measured} for name, (words, measured) in done.items()},
        }, indent=1) + "\n")
    if rounds and (chosen.chart or chosen.json):
        file = chosen.chart or chosen.json.with_suffix(".svg")
        file.write_text(report.chart(rounds, taking_part))
        print(f"\n{file} written")


main()
