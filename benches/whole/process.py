"""Processes under measurement: what they use, read from /proc, children included."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _stat(pid):
    # The name in parentheses may hold anything; what counts comes after the last of them.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {"parent": int(fields[1]), "cpu": sum(int(field) for field in fields[11:15]), "rss": int(fields[21]) * PAGE}


class Measured:
    """A program that runs until it is stopped."""

    def __init__(self, command, log, environment=None, directory=None):
        self.log = Path(log)
        self.started = time.monotonic()
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )
        self._peak = 0
        self._sampling = None

    def _family(self):
        stats = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stats[int(entry)] = _stat(entry)
                except (FileNotFoundError, ProcessLookupError):
                    pass  # ended since the listing
        family = {self.process.pid} & stats.keys()
        grown = True
        while grown:
            children = {pid for pid, stat in stats.items() if stat["parent"] in family}
            grown = not children <= family
            family |= children
        return [stats[pid] for pid in family]

    def cpu_seconds(self):
        return sum(stat["cpu"] for stat in self._family()) / TICKS

    def rss_mib(self):
        return sum(stat["rss"] for stat in self._family()) / 2**20

    def sample_rss(self):
        """Begins to watch for the peak."""
        self._peak = 0
        self._sampling = threading.Event()
        sampling = self._sampling

        def sample():
            while not sampling.wait(0.25):
                self._peak = max(self._peak, self.rss_mib())

        threading.Thread(target=sample, daemon=True).start()

    def peak_rss_mib(self):
        self._sampling.set()
        return max(self._peak, self.rss_mib())

    def check(self):
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.process.args[0]} ended with {self.process.returncode}:\n{tail}")

    def stop(self, seconds=20):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        # Workers of a cluster outlive their parent by a moment.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
