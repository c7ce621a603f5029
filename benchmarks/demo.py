"""What `vans demo` takes: seconds of an answer with warm models, memory over many answers, twenty requests at once.

    python benchmarks/demo.py [--root .] [--answers 200]

Starts `vans demo` on the trained models of `root` and asks as the page does, over HTTP. Seconds are from the request to
the news that the answer is there; CPU seconds are the server's own, which is what an answer takes where nothing else
runs (it computes on one thread). Each of the twenty is asked again alone: captions and pictures have to be the same.
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.demo_helpers import Browser

AT_ONCE = 20
TICK = os.sysconf("SC_CLK_TCK")
MARKS = (1, 2, 5, 10, 20, 50, 100, 150, 200)


class Server:
    """`vans demo` as a process; its address space and CPU time."""

    def __init__(self, root: Path, history: str) -> None:
        command = [sys.executable, "-m", "vans.cli", "demo", "--port", "0", "--history", history]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        began = time.perf_counter()
        self.process = subprocess.Popen(command, cwd=root, env=environment, text=True, **pipes)  # type: ignore[call-overload]
        said = ""
        while not (found := re.search(r"open http://127\.0\.0\.1:(\d+)/", said)):
            line = self.process.stdout.readline()
            if not line:
                sys.exit(f"the server ended: {said}")
            said += line
        self.port, self.started = int(found[1]), time.perf_counter() - began

    def memory(self) -> float:
        """MB that are resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024

    def cpu(self) -> float:
        """Seconds of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait()


class Asker:
    """Asks the held-out samples' own questions, in turn; looks at every answer."""

    def __init__(self, port: int) -> None:
        self.browser = Browser(port)
        told = self.browser.ask("start")
        self.samples, self.defaults, self.version = told["samples"], told["defaults"], told["version"]

    def send(self, n: int, questions: int = 1) -> str:
        """The run of the n-th."""
        sample = self.samples[n % len(self.samples)]
        given = {**self.defaults, "seed": n}
        return self.browser.run(*sample["questions"][:questions], source=sample["source"], **given)

    def until(self, id: str) -> dict:
        """What is told of a run when it is over."""
        while True:
            news = self.browser.ask("news", version=self.version)
            self.version = news["version"]
            for run in news["runs"]:
                if run["id"] == id and run["state"] in ("done", "failed", "stopped"):
                    return run

    def seen(self, run: dict) -> list:
        """Captions and pictures of a run, which has to be whole."""
        assert run["state"] == "done", run
        return [(part["caption"], self.browser.clip(part["clip"]).tobytes()) for part in run["parts"]]


def quartiles(values: list[float]) -> str:
    """Median and quartiles of seconds."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} s [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path("."), help="a repository with trained models")
    parser.add_argument("--answers", type=int, default=200)
    given = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as history:
        server = Server(given.root, history)
        try:
            measure(server, given.answers)
        finally:
            server.end()


def measure(server: Server, answers: int) -> None:
    """Everything, on a server that runs."""
    asker = Asker(server.port)
    print(f"started in {server.started:.1f} s, {server.memory():.0f} MB")
    for questions in (1, 3):
        taken, cpu = [], []
        for n in range(answers if questions == 1 else max(8, answers // 10)):
            began, before = time.perf_counter(), server.cpu()
            run = asker.until(asker.send(n, questions))
            taken.append(time.perf_counter() - began)
            cpu.append(server.cpu() - before)
            asker.seen(run)
            if questions == 1 and n + 1 in MARKS:
                print(f"after {n + 1:3d} answers: {server.memory():.0f} MB", flush=True)
        whose = "an answer" if questions == 1 else f"{questions} questions at once"
        print(f"{whose}: first {taken[0]:.2f} s, then {quartiles(taken[1:])}, of CPU {quartiles(cpu[1:])}")
    ids: dict[int, str] = {}
    threads = [threading.Thread(target=lambda n=n: ids.update({n: asker.send(n)})) for n in range(AT_ONCE)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queued = time.perf_counter() - began
    asker.version = 0
    together = [asker.seen(run) for run in asker.browser.until(*(ids[n] for n in range(AT_ONCE)))]
    seconds = time.perf_counter() - began
    print(f"{AT_ONCE} at once: taken in {queued:.2f} s, all there after {seconds:.1f} s", flush=True)
    same = sum(asker.seen(asker.until(asker.send(n))) == together[n] for n in range(AT_ONCE))
    print(f"{same} of {AT_ONCE} are what they are when asked alone; {server.memory():.0f} MB at the end")
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
