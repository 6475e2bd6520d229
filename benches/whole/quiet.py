"""Tells what else the machine did while something was measured: that is what explains an outlier."""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()

# Of one core, while a contestant was measured. Above it the round is marked.
MOST_FOREIGN = 0.05
# Of all cores: what the hypervisor gave to others.
MOST_STOLEN = 0.01


class Watch:
    """From now on, until `disturbances` is asked."""

    def __init__(self, broker_directory=None):
        self.broker_directory = broker_directory
        self.began = time.monotonic()
        self.stolen = _stolen()
        self.foreign = _foreign()
        self.logs = self._logs()

    def _logs(self):
        """The write-ahead logs of the broker's quorum queues: one more is there as soon as one is full."""
        return {path.name for path in self.broker_directory.rglob("*.wal")} if self.broker_directory else set()

    def disturbances(self):
        """What happened meanwhile that is not the measurement's, in words; none on a quiet machine."""
        seconds = time.monotonic() - self.began
        found = []
        stolen = (_stolen() - self.stolen) / seconds / CORES
        if stolen > MOST_STOLEN:
            found.append(f"the hypervisor took {stolen:.0%}")
        foreign = {}
        for (name, started, pid), cpu in _foreign().items():
            foreign[name] = foreign.get(name, 0.0) + cpu - self.foreign.get((name, started, pid), 0.0)
        for name, cpu in sorted(foreign.items(), key=lambda one: -one[1]):
            if cpu / seconds > MOST_FOREIGN:
                found.append(f"{name} took {cpu / seconds:.0%} of a core")
        rolled = len(self._logs() - self.logs)
        if rolled:
            found.append(f"the broker began {rolled} new log{'s' if rolled > 1 else ''}")
        return found


def _stolen():
    """CPU seconds that a hypervisor gave to others."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8]) / TICKS


def _foreign():
    """CPU seconds of each process that the benchmark has not started: neither below deploy/bench, nor an Erlang node or the kernel."""
    processes = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                head, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
            except (FileNotFoundError, ProcessLookupError):
                continue
            fields = rest.split()
            processes[int(entry)] = (head.partition("(")[2], int(fields[1]), fields[19], sum(map(int, fields[11:13])) / TICKS)
    own = {os.getpid(), os.getppid()}
    grown = True
    while grown:
        more = {pid for pid, (_, parent, *_) in processes.items() if parent in own} - own
        own |= more
        grown = bool(more)
    kernel = {2} | {pid for pid, (_, parent, *_) in processes.items() if parent == 2}
    return {
        (name, started, pid): cpu
        for pid, (name, _, started, cpu) in processes.items()
        if pid not in own | kernel and not name.startswith(("beam", "erl_", "epmd", "inet_gethost"))
    }
