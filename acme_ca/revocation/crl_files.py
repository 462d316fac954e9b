"""The CRLs as they are served: from memory, and never long behind the database."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

from acme_ca.core.crl import History
from acme_ca.storage import crls
from acme_ca.storage.crls import Files, Shard
from acme_ca.storage.database import Database

MEMORY = 256 * 1024 * 1024
"""Bytes of CRLs that a worker keeps; those asked for last."""


@dataclass(frozen=True, slots=True)
class CrlFile:
    der: bytes = field(repr=False)
    etag: str
    this_update: datetime


@dataclass(frozen=True, slots=True)
class _Pair:
    number: int
    full: CrlFile
    delta: CrlFile | None

    @property
    def size(self) -> int:
        return len(self.full.der) + (len(self.delta.der) if self.delta else 0)


class CrlFiles:
    """What was asked for once stays in memory. `look` brings it up to date; without the database the old ones serve on."""

    def __init__(self, *, database: Database, history: History, memory: int = MEMORY) -> None:
        self._database = database
        self._history = history
        self._memory = memory
        self._kept: OrderedDict[Shard, _Pair] = OrderedDict()
        self._size = 0
        self._loading = asyncio.Lock()

    async def get(self, shard: Shard, *, delta: bool) -> CrlFile | None:
        """None: there is no such CRL."""
        pair = self._kept.get(shard) or await self._load_once(shard)
        if pair is None:
            return None
        if shard in self._kept:
            self._kept.move_to_end(shard)
        return pair.delta if delta else pair.full

    async def look(self) -> None:
        """Load again what has another number in the database now."""
        known = self._history.numbers()  # before the question: the publisher goes on meanwhile
        for shard, found in (await crls.numbers(self._database)).items():
            self._history.look(
                shard, number=found.number, base_number=found.base_number, known=known.get(shard, 0)
            )
            kept = self._kept.get(shard)
            if kept is not None and kept.number != found.number:
                await self._load(shard)

    async def _load_once(self, shard: Shard) -> _Pair | None:
        """Of many who ask at once for what is not in memory, one asks the database."""
        async with self._loading:
            return self._kept.get(shard) or await self._load(shard)

    async def _load(self, shard: Shard) -> _Pair | None:
        found = await crls.files(self._database, shard)
        if found is None:
            return None
        pair = _pair(found)
        self._keep(shard, pair)
        return pair

    def _keep(self, shard: Shard, pair: _Pair) -> None:
        before = self._kept.pop(shard, None)
        self._kept[shard] = pair
        self._size += pair.size - (before.size if before else 0)
        while self._size > self._memory:
            _, forgotten = self._kept.popitem(last=False)
            self._size -= forgotten.size


def _pair(files: Files) -> _Pair:
    full = _file(files.der, files.this_update)
    delta = None if files.delta is None else _file(files.delta, files.this_update)
    return _Pair(files.number, full, delta)


def _file(der: bytes, this_update: datetime) -> CrlFile:
    return CrlFile(der, hashlib.sha256(der).hexdigest()[:32], this_update)
