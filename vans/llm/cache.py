"""Every answer that was ever given, kept on disk by what was asked: nothing is asked or paid for twice.

One SQLite file, because each answer is then a transaction: after a kill at any moment it is in the file whole or
not at all, 400,000 answers are one file and not 400,000, and several processes may share it. (The library
diskcache, which is also there, stores Python pickles.) The file also holds what was spent in all, so that a
budget is one for the data set and not one for each run. It is not for network disks: SQLite's locks fail there.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vans.errors import UserError

WAIT = 60.0  # s that a writer waits for another process
SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, task TEXT NOT NULL, model TEXT NOT NULL,
    text TEXT NOT NULL, finish TEXT NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, cost REAL NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (one INTEGER PRIMARY KEY CHECK (one = 1), calls INTEGER NOT NULL,
    input INTEGER NOT NULL, output INTEGER NOT NULL, cost REAL NOT NULL, lost INTEGER NOT NULL);
INSERT OR IGNORE INTO spent VALUES (1, 0, 0, 0, 0.0, 0);
"""


@dataclass(frozen=True)
class Reply:
    """What a model said. finish: stop, or why it ended otherwise. input, output: tokens it took.

    likely: where it was asked for, for each token of the text the likeliest ones and their log-probabilities; not kept.
    """

    text: str
    finish: str = "stop"
    input: int = 0
    output: int = 0
    likely: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class Spent:
    """Since the file was made. lost: calls that may have been charged though no answer arrived (in the rest too)."""

    calls: int
    input: int
    output: int
    cost: float
    lost: int


class Cache:
    """`Cache(path)` opens or makes the file; UserError if it cannot be used. Any thread may call any method."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=WAIT, check_same_thread=False, isolation_level=None)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")  # an answer survives a power cut too
            self._base.executescript(SCHEMA)

    def get(self, key: str) -> Reply | None:
        """The kept answer."""
        with self._errors(), self._lock:
            query = "SELECT text, finish, input, output FROM answers WHERE key = ?"
            row = self._base.execute(query, (key,)).fetchone()
        return None if row is None else Reply(*row)

    def knows(self, model: str) -> bool:
        """Has this model ever answered?"""
        with self._errors(), self._lock:
            return self._base.execute("SELECT 1 FROM answers WHERE model = ? LIMIT 1", (model,)).fetchone() is not None

    def put(self, key: str, task: str, model: str, reply: Reply, cost: float) -> None:
        """Keep an answer (under "" not) and add what it cost; on the disk when this returns."""
        row = (key, task, model, reply.text, reply.finish, reply.input, reply.output, cost)
        with self._errors(), self._lock, self._transaction():
            if key:
                self._base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            self._add(1, reply.input, reply.output, cost, 0)

    def lost(self, input: int, output: int, cost: float) -> None:
        """Add a call that may have been charged though no answer arrived."""
        with self._errors(), self._lock, self._transaction():
            self._add(1, input, output, cost, 1)

    def spent(self) -> Spent:
        """Everything so far, other processes' included."""
        with self._errors(), self._lock:
            return Spent(*self._base.execute("SELECT calls, input, output, cost, lost FROM spent").fetchone())

    def _add(self, *values: float) -> None:
        columns = ("calls", "input", "output", "cost", "lost")
        self._base.execute(f"UPDATE spent SET {', '.join(f'{c} = {c} + ?' for c in columns)}", values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"{self.path}: the answers kept here cannot be used ({error}); free some space, or move the file away"
            ) from error
