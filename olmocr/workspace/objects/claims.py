"""Who is reading what: a claim on a document's content, which another process may take over if its owner is silent.

A claim is an object that is written only if it does not exist, so that only one of two machines gets it. It names its
owner, and each owner has one more object, which it writes again and again while it is alive. In a store that cannot
write this way, two machines may get one claim; then both read the document, and write the same.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import time
import uuid
from collections.abc import Callable

from olmocr.errors import OutputError
from olmocr.workspace.objects.place import STATE
from olmocr.workspace.objects.store import ObjectStore
from olmocr.workspace.records import STALE_SECONDS, is_dead, this_machine

_CLAIMS, _ALIVE = f"{STATE}/claims", f"{STATE}/alive"
_LOOKS = 3


class Claims:
    """The claims of this process, by name. *clock* returns elapsed seconds; no machine's time of day matters."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._held: dict[str, int] = {}
        self._beats = 0
        self._seen: dict[str, tuple[bytes, float]] = {}

    @property
    def owner(self) -> str:
        """The process's name in the workspace."""
        return self._owner

    def take(self, name: str) -> bool:
        """Take a claim if it is free, ours, or owned by a process that is dead or has been silent for long."""
        if name in self._held:
            return True
        if not self._beats:
            self.beat()  # whoever finds the claim can see at once that its owner is alive
        turn = 0
        for _ in range(_LOOKS):
            if self._store.create(self._object(name, turn), self._words(owner=self._owner)):
                self._held[name] = turn
                return True
            turns = self._turns(name)
            data = self._store.get(self._object(name, turns[-1])) if turns else None
            if data is not None and not self._is_abandoned(data):
                return False
            turn = turns[-1] + 1 if turns and data is not None else 0
        return False

    def beat(self) -> None:
        """Signal that this process is alive, by changing its object."""
        self._beats += 1
        self._store.put(f"{_ALIVE}/{self._owner}.json", self._words(beat=self._beats))

    def release(self, name: str) -> None:
        """Release a claim, unless another has taken it over."""
        turn = self._held.pop(name, None)
        if turn is None:
            return
        turns = {*self._turns(name), turn}
        if max(turns) == turn:
            self._store.remove(self._object(name, each) for each in sorted(turns))

    def release_all(self) -> None:
        """Release all claims, and signal that this process has ended."""
        with contextlib.suppress(OutputError):
            for name in list(self._held):
                self.release(name)
            if self._beats:
                self._store.remove([f"{_ALIVE}/{self._owner}.json"])

    def has_company(self) -> bool:
        """Return whether other processes work in the workspace, or were killed there."""
        return any(not name.endswith(f"/{self._owner}.json") for name in self._store.names(_ALIVE))

    def _object(self, name: str, turn: int) -> str:
        return f"{_CLAIMS}/{name}/{turn:04}.json"

    def _turns(self, name: str) -> list[int]:
        stems = (each.rpartition("/")[2].partition(".")[0] for each in self._store.names(f"{_CLAIMS}/{name}"))
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def _words(self, **more: str | int) -> bytes:
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")  # only for people to read
        words = {"host": this_machine(), "pid": os.getpid(), "at": at, **more}
        return json.dumps(words, sort_keys=True).encode()

    def _is_abandoned(self, claim: bytes) -> bool:
        try:
            words = json.loads(claim)
            owner, host, pid = str(words["owner"]), str(words["host"]), int(words["pid"])
        except (ValueError, KeyError, TypeError):
            return True  # nobody can show that it is theirs
        if owner == self._owner:
            return False
        return is_dead(host, pid) or self._seconds_silent(owner) > STALE_SECONDS

    def _seconds_silent(self, owner: str) -> float:
        """Return how long this process has seen an owner's object unchanged. No two clocks are compared."""
        now = self._clock()
        beat = self._store.get(f"{_ALIVE}/{owner}.json") or b""
        seen, since = self._seen.get(owner, (beat, now))
        if seen != beat:
            since = now
        self._seen[owner] = beat, since
        return now - since
