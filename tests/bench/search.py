"""What lists and searches cost among many certificates, through the admin API.

    scripts/bench-search [--certificates 1000000] [--rounds 5]

The certificates are rows made by PostgreSQL: two years of them, of two issuers one after the other, four profiles and
some twenty services, from one that has nearly half of all to one that has fifty. The server is a real one with one worker
and the embedded PostgreSQL, in a temporary folder. Each filter is asked in each order for a page of 100, `rounds` times,
over one connection; what is printed is the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

import asyncpg

from acme_ca.storage.embedded import EmbeddedPostgres
from tests.support.server import Server, running

SORTS = ("-recorded", "recorded", "-not_after", "not_after")
PAGE = 100


def main() -> None:
    wanted = _arguments()
    place = Path(tempfile.mkdtemp(prefix="acme-ca-bench-"))
    place.chmod(0o755)  # PostgreSQL's own user passes through
    try:
        with running(place, WORKERS="1") as server:
            token = json.loads(
                server.operate("token", "create", "--name", "bench", "--role", "viewer", "--json")
            )
            server.stop()
            _say("rows made", f"{_fill(server, wanted.certificates):.0f} s", "", "")
            server.start_again()
            _measure(server, token["token"], wanted.certificates, wanted.rounds)
    finally:
        shutil.rmtree(place)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures lists and searches over many certificates.")
    parser.add_argument("--certificates", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, help="how often each page is asked for")
    return parser.parse_args()


def _say(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |", flush=True)  # noqa: T201  it is what this is for


# ---------------------------------------------------------------- the certificates


def _fill(server: Server, certificates: int) -> float:
    """Makes the rows while the server is down; the seconds it took."""
    postgres = EmbeddedPostgres(server.data / "postgres", settings={"maintenance_work_mem": "1GB"})
    begin = time.monotonic()
    try:
        asyncio.run(make_rows(postgres.start(), certificates))
    finally:
        postgres.stop()
    return time.monotonic() - begin


async def make_rows(dsn: str, certificates: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")  # no foreign keys
            await connection.execute("TRUNCATE certificate")
            indexes = await connection.fetch(_INDEXES)
            for index in indexes:
                await connection.execute(f"DROP INDEX {index['name']}")
            await connection.execute(_ROWS, certificates)
            for index in indexes:
                await connection.execute(index["definition"])
        await connection.execute("VACUUM ANALYZE certificate")
    finally:
        await connection.close()


_INDEXES = """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
    WHERE indrelid = 'certificate'::regclass
      AND indexrelid NOT IN (SELECT conindid FROM pg_constraint WHERE conrelid = 'certificate'::regclass)"""
_ROWS = """
    INSERT INTO certificate (serial, issuer_id, account_id, order_id, profile, profile_version, identifiers, spki_sha256,
                             not_before, not_after, shard, recorded, der, revoked, reason, status_changed, service, words)
    SELECT number, repeat(CASE WHEN i < $1 * 0.6 THEN 'a' ELSE 'b' END, 32),
           md5('account' || CASE WHEN i % 2 = 0 THEN 0 ELSE i % 1999 END), md5('order' || i), profile, 1, names,
           decode(number || number, 'hex'), made, ends, i / 20000, made, decode(repeat(number, 45), 'hex'), gone,
           CASE WHEN gone IS NULL THEN NULL WHEN i % 30000 = 0 THEN 6 ELSE 4 END, gone,
           CASE WHEN i < $1 * 0.05 THEN 'retired' WHEN i % 20000 = 7 THEN 'tiny' WHEN i % 10 < 3 THEN NULL
                WHEN i % 10 < 7 THEN 'shop' ELSE 'service' || i % 20 END,
           (SELECT array_to_tsvector(array_agg(word)) FROM (
                SELECT '=' || substr(name, 5) AS word FROM unnest(names) AS name
                UNION SELECT array_to_string(labels[place:], '.')
                FROM unnest(names) AS name, LATERAL (SELECT string_to_array(substr(name, 5), '.') AS labels) AS split,
                     LATERAL generate_subscripts(labels, 1) AS place) AS said)
    FROM (SELECT i, md5(i::text) AS number, now() - interval '730 days' * (1 - i::float8 / $1::integer) AS made
          FROM generate_series(0, $1::integer - 1) AS i) AS counted,
         LATERAL (SELECT CASE WHEN i % 1000 = 3 AND i < $1 * 0.5 THEN 'code_signing' WHEN i % 1000 = 4 THEN 'operator'
                              WHEN i % 20 = 5 THEN 'short' ELSE 'server' END AS profile,
                         CASE WHEN i % 50000 = 1 THEN ARRAY['dns:vcc.internal']
                              WHEN i % 10000 = 2 THEN ARRAY['dns:box' || i || '.lab.example.org']
                              ELSE ARRAY['dns:host' || i % 150000 || '.team' || i % 37 || '.vcc.internal'] END AS names) AS kinds,
         LATERAL (SELECT made + interval '1 day' * CASE profile WHEN 'server' THEN 90 WHEN 'short' THEN 7 ELSE 365 END AS ends)
             AS ending,
         LATERAL (SELECT CASE WHEN i % 30 = 0 THEN made + (least(now(), ends) - made) / 2 END AS gone) AS leaving"""


# ---------------------------------------------------------------- the questions


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


FILTERS: dict[str, dict[str, str]] = {
    "none": {},
    **{f"status {status}": {"status": status} for status in ("good", "expired", "revoked", "on_hold")},
    "service with 40 %": {"service": "shop"},
    "service with 50 certificates": {"service": "tiny"},
    "service, all of it long ago": {"service": "retired"},
    "service that is not there": {"service": "nothing"},
    "name with a few": {"name": "host77.team3.vcc.internal"},
    "name of the apex": {"name": "vcc.internal"},
    "name that is not there": {"name": "nothing.internal"},
    "below .vcc.internal (nearly all)": {"name": ".vcc.internal"},
    "below .team3.vcc.internal (3 %)": {"name": ".team3.vcc.internal"},
    "below .lab.example.org (100)": {"name": ".lab.example.org"},
    "below a domain that is not there": {"name": ".example.net"},
    "profile with 95 %": {"profile": "server"},
    "profile with 0.1 %": {"profile": "operator"},
    "profile that is not there": {"profile": "nothing"},
    "issuer that was retired": {"issuer": "a" * 32},
    "issuer in use": {"issuer": "b" * 32},
    "account with 50 %": {"account": _md5("account0")},
    "account with 250": {"account": _md5("account7")},
    "account that is not there": {"account": "f" * 32},
    "serial": {"serial": _md5("77")},
    "serial, 5 digits of it": {"serial": _md5("77")[:5]},
    "key hash": {"key_sha256": _md5("77") * 2},
    "expiring within 30 days": {"expiring_within": "30 days"},
    "text `host` (nearly all)": {"text": "host"},
    "text `host123` (0.7 %)": {"text": "host123"},
    "text `lab` (100)": {"text": "lab"},
    "text that is nowhere": {"text": "zzz"},
    "text, 10 digits of a serial": {"text": _md5("77")[:10]},
    "service and status good": {"service": "shop", "status": "good"},
    "service and status expired": {"service": "shop", "status": "expired"},
    "service and below": {"service": "shop", "name": ".team3.vcc.internal"},
    "issuer retired and status good": {"issuer": "a" * 32, "status": "good"},
    "account and text": {"account": _md5("account0"), "text": "host12"},
    "profile and revoked": {"profile": "operator", "status": "revoked"},
}


@dataclass(frozen=True, slots=True)
class Asker:
    connection: http.client.HTTPSConnection
    token: str

    def ask(self, **query: str) -> tuple[float, dict[str, object]]:
        """Milliseconds and the page."""
        begin = time.perf_counter()
        path = f"/api/v1/certificates?{urlencode({'limit': str(PAGE), **query})}"
        self.connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = self.connection.getresponse()
        content = answer.read()
        spent = (time.perf_counter() - begin) * 1000
        assert answer.status == 200, content
        return spent, json.loads(content)


def _measure(server: Server, token: str, certificates: int, rounds: int) -> None:
    asker = Asker(http.client.HTTPSConnection("localhost", server.https_port, context=server.tls()), token)
    _say("filter", "first page, ms", "in the other orders, ms", "found")
    pages: list[float] = []
    for name, query in FILTERS.items():
        usual = [asker.ask(**query) for _ in range(rounds)]
        others = [median(asker.ask(**query, sort=sort)[0] for _ in range(rounds)) for sort in SORTS]
        first = median(spent for spent, _ in usual)
        pages += [first, *others]
        found = usual[0][1]["items"]
        assert isinstance(found, list)
        _say(name, f"{first:.0f}", f"{min(others):.0f} to {max(others):.0f}", str(len(found)))
    pages.sort()
    _say("**median of all**", f"**{median(pages):.1f}**", f"p95 {pages[int(len(pages) * 0.95)]:.0f}", "")
    deep = list(_deep(asker))
    _say("the hundredth page", f"{deep[-1]:.0f}", "", "")
    _say("statistics", f"{_statistics(server, token):.0f}", "", str(certificates))


def _deep(asker: Asker) -> Iterator[float]:
    cursor: dict[str, str] = {}
    for _ in range(100):
        spent, page = asker.ask(**cursor)
        yield spent
        cursor = {"cursor": str(page["next"])}


def _statistics(server: Server, token: str) -> float:
    connection = http.client.HTTPSConnection("localhost", server.https_port, context=server.tls())
    begin = time.perf_counter()
    connection.request("GET", "/api/v1/statistics", headers={"Authorization": f"Bearer {token}"})
    assert connection.getresponse().status == 200
    return (time.perf_counter() - begin) * 1000


if __name__ == "__main__":
    main()
