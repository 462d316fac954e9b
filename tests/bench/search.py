"""What lists and searches cost among many certificates, through the admin API.

    scripts/bench-search [--certificates 1000000] [--rounds 5] [--folder FOLDER]

The rows are made by PostgreSQL. Certificates: two years of them, of two issuers one after the other, four profiles and some
twenty services, from one that has nearly half of all to one that has fifty. As many orders, of a tenth as many accounts,
and half as many audit events again. The server is a real one with one worker and the embedded PostgreSQL, in a
temporary folder, or in FOLDER, where it is found again. Each filter, and each pair of filters, is asked in each order for
a page of 100 over one connection: filters `rounds` times, pairs once. What is printed is the table of docs/performance.md.
The last column is the CPU time of PostgreSQL, on which other work on the machine has less influence.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from acme_ca.storage.embedded import EmbeddedPostgres
from tests.support.server import Server, running

PAGE = 100
AIM = 100
"""Milliseconds."""
WORST = 5
"""Pairs that are named."""


def main() -> None:
    wanted = _arguments()
    place = wanted.folder or Path(tempfile.mkdtemp(prefix="acme-ca-bench-"))
    place.mkdir(exist_ok=True)
    place.chmod(0o755)  # PostgreSQL's own user passes through
    filled = place / "filled"
    try:
        with running(place, WORKERS="1") as server:
            said = server.operate(
                "token", "create", "--name", f"bench{time.time():.0f}", "--role", "security_officer", "--json"
            )
            if not filled.exists():
                server.stop()
                _say("rows made", f"{_fill(server, wanted.certificates):.0f} s", "", "", "")
                filled.touch()
                server.start_again()
            _measure(server, json.loads(said)["token"], wanted.rounds)
    finally:
        if wanted.folder is None:
            shutil.rmtree(place)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures lists and searches over many certificates.")
    parser.add_argument("--certificates", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, help="how often each filter is asked for")
    parser.add_argument(
        "--folder", type=Path, help="keep everything there, and take it from there the next time"
    )
    return parser.parse_args()


def _say(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |", flush=True)  # noqa: T201  it is what this is for


# ---------------------------------------------------------------- the certificates


def _fill(server: Server, certificates: int) -> float:
    """Makes the rows while the server is down; the seconds it took."""
    postgres = EmbeddedPostgres(server.data / "postgres", settings={"maintenance_work_mem": "1GB"})
    begin = time.monotonic()
    try:
        dsn = postgres.start()
        asyncio.run(make_rows(dsn, certificates))
        asyncio.run(make_others(dsn, certificates))
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


async def make_others(dsn: str, certificates: int) -> None:
    """Orders, accounts and audit events beside them."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(_PROFILES)
            for letter in "ab":
                await connection.execute(_ISSUERS, letter * 32, _certificate(letter))
            for statement in (_EAB_KEYS, _ACCOUNTS, _ORDERS, _AUTHORIZATIONS, _EVENTS):
                await connection.execute(statement.replace("$1", f"{certificates:d}"))
        for table in ("eab_key", "account", "orders", "authz", "audit_event"):
            await connection.execute(f"VACUUM ANALYZE {table}")
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


def _certificate(name: str) -> bytes:
    """Something that can be read as a CA certificate."""
    key, moment = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        subject, subject, key.public_key(), 1, moment, moment + timedelta(days=1)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


_PROFILES = """
    INSERT INTO profile (name, version, body, built_in, created)
    SELECT another, 1, body, false, now() FROM unnest(ARRAY['short', 'code_signing']) AS another, profile WHERE name = 'server'
    ON CONFLICT DO NOTHING"""
_ISSUERS = """
    INSERT INTO issuer (id, der, kind, spki_sha256, state, not_before, not_after, created, activated, retired)
    VALUES ($1, $2, 'cross', $2, 'retired', now(), now(), now(), now(), now())"""
_EAB_KEYS = """
    INSERT INTO eab_key (id, hmac_key, owner, service, created)
    SELECT md5('eab' || k), decode(repeat(md5('x'), 1), 'hex') || decode(md5('y'), 'hex'), 'owner ' || k,
           CASE WHEN k = 0 THEN 'shop' WHEN k = 1 THEN NULL WHEN k = 2 THEN 'tiny' ELSE 'service' || k % 20 END, now()
    FROM generate_series(0, 199) AS k"""
_ACCOUNTS = """
    INSERT INTO account (id, status, jwk, thumbprint, spki_sha256, contact, eab_key_id, eab_binding, created, created_from, frozen)
    SELECT md5('account' || i), CASE WHEN i % 100 = 3 THEN 'deactivated' WHEN i % 10000 = 5 THEN 'revoked' ELSE 'valid' END,
           json_build_object('kty', 'EC', 'crv', 'P-256', 'x', repeat('x', 43), 'y', repeat('y', 43)),
           substr(md5('t' || i) || md5('u' || i), 1, 43), decode(md5('t' || i) || md5('u' || i), 'hex'),
           CASE WHEN i % 3 = 0 THEN ARRAY['mailto:ops' || i % 1000 || '@example.org'] ELSE '{}' END,
           CASE WHEN i % 4 = 0 THEN NULL ELSE md5('eab' || i % 200) END, CASE WHEN i % 4 = 0 THEN NULL ELSE '{}'::json END,
           now() - interval '730 days' * random(), '192.0.2.' || i % 250, CASE WHEN i % 5000 = 7 THEN now() END
    FROM generate_series(0, $1 / 10 - 1) AS i"""
_ORDERS = """
    INSERT INTO orders (id, account_id, status, identifiers, authzs, expires, profile, profile_version, issuer_id, serial, error, created)
    SELECT lpad(to_hex((extract(epoch FROM now() - interval '730 days' * (1 - i / $1.0)) * 1000)::bigint), 12, '0') ||
           substr(md5('order' || i), 1, 20),
           md5('account' || CASE WHEN i % 2 = 0 THEN 0 ELSE i % ($1 / 10 - 1) END),
           CASE WHEN i % 50 = 1 THEN 'invalid' WHEN i % 50 = 2 THEN 'pending' WHEN i = $1 - 10 THEN 'processing' ELSE 'valid' END,
           ARRAY['dns:host' || i % 150000 || '.team' || i % 37 || '.vcc.internal'], ARRAY[md5('authz' || i)],
           now() - interval '723 days' + interval '730 days' * i / $1.0,
           CASE WHEN i % 1000 = 3 AND i < $1 / 2 THEN 'code_signing' WHEN i % 1000 = 4 THEN 'operator'
                WHEN i % 20 = 5 THEN 'short' ELSE 'server' END, 1,
           repeat(CASE WHEN i < $1 * 0.6 THEN 'a' ELSE 'b' END, 32),
           CASE WHEN i % 50 IN (1, 2) THEN NULL ELSE md5(i::text) END,
           CASE WHEN i % 50 = 1 THEN '{"type":"urn:ietf:params:acme:error:badCSR","detail":"No."}'::json END,
           now() - interval '730 days' * (1 - i / $1.0)
    FROM generate_series(0, $1 - 1) AS i"""
_AUTHORIZATIONS = """
    INSERT INTO authz (id, account_id, identifier, status, expires, token, offered, challenge, validated, created)
    SELECT md5('authz' || i), md5('account' || CASE WHEN i % 2 = 0 THEN 0 ELSE i % ($1 / 10 - 1) END),
           'dns:host' || i % 150000 || '.team' || i % 37 || '.vcc.internal',
           CASE WHEN i % 100 IN (2, 51) THEN 'pending' WHEN i % 50 = 1 THEN 'deactivated' ELSE 'valid' END,
           now() - interval '723 days' + interval '730 days' * i / $1.0, 'token', ARRAY['http-01'],
           CASE WHEN i % 100 IN (2, 51) THEN NULL ELSE 'http-01' END,
           CASE WHEN i % 100 NOT IN (2, 51) THEN now() - interval '730 days' * (1 - i / $1.0) END,
           now() - interval '730 days' * (1 - i / $1.0)
    FROM generate_series(0, $1 - 1) AS i"""
_EVENTS = """
    INSERT INTO audit_event (at, event, actor, source, object, detail)
    SELECT now() - interval '730 days' * (1 - i / ($1 * 1.5)),
           CASE WHEN i % 3 < 2 THEN 'certificate.issued' WHEN i % 9 = 2 THEN 'account.created' WHEN i % 300 = 5 THEN 'certificate.revoked'
                WHEN i % 30000 = 8 THEN 'token.created' WHEN i % 300 = 11 AND i < 300000 THEN 'policy.changed' ELSE 'crl.published' END,
           CASE WHEN i % 3 < 2 OR i % 9 = 2 THEN 'account:' || md5('account' || CASE WHEN i % 2 = 0 THEN 0 ELSE i % 1999 END)
                WHEN i % 300 IN (5, 11) THEN 'operator:alice' WHEN i % 30000 = 8 THEN 'operator:bob' ELSE 'server' END, '192.0.2.' || CASE WHEN i % 3000 = 77 THEN 77 ELSE 1 END,
           CASE WHEN i % 3 < 2 OR i % 300 = 5 THEN 'certificate:' || md5((i / 3 * 2 + i % 3)::text)
                WHEN i % 9 = 2 THEN 'account:' || md5('account' || i)
                WHEN i % 30000 = 8 THEN 'token:x' WHEN i % 300 = 11 THEN 'policy:server' ELSE 'crl:' || repeat('b', 32) || '/' || i % 50 END,
           json_build_object('order', md5('order' || i), 'identifiers', ARRAY['dns:host' || i % 150000 || '.vcc.internal'])
    FROM generate_series(0, $1 / 2 * 3 - 1) AS i"""


# ---------------------------------------------------------------- the questions


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


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
    "issued in the last 30 days": {"issued_since": _days_ago(30)},
    "issued 600 days ago or earlier": {"issued_before": _days_ago(600)},
}
ORDERS: dict[str, dict[str, str]] = {
    "none": {},
    **{
        f"status {status}": {"status": status}
        for status in ("pending", "ready", "processing", "valid", "invalid")
    },
    "account with 50 %": {"account": _md5("account0")},
    "account with 5": {"account": _md5("account7")},
    "account that is not there": {"account": "f" * 32},
    "service with 4 % of the accounts": {"service": "service7"},
    "service that is not there": {"service": "nothing"},
    "name": {"name": "host77.team3.vcc.internal"},
    "name that is not there": {"name": "nothing.internal"},
    "profile with 95 %": {"profile": "server"},
    "profile with 0.1 %": {"profile": "operator"},
    "profile that is not there": {"profile": "nothing"},
}
ACCOUNTS: dict[str, dict[str, str]] = {
    "none": {},
    **{f"status {status}": {"status": status} for status in ("valid", "deactivated", "revoked")},
    "frozen": {"frozen": "true"},
    "not frozen": {"frozen": "false"},
    "EAB key": {"eab_key": _md5("eab7")},
    "service": {"service": "service7"},
    "service that is not there": {"service": "nothing"},
    "contact": {"contact": "ops33@example.org"},
    "contact that is not there": {"contact": "nobody@example.org"},
    "key": {"thumbprint": (_md5("t77") + _md5("u77"))[:43]},
}
EVENTS: dict[str, dict[str, str]] = {
    "none": {},
    "certificate": {"object": f"certificate:{_md5('77')}"},
    "CRL": {"object": f"crl:{'b' * 32}/7"},
    "object that is not there": {"object": "certificate:nothing"},
    "account with 50 %": {"actor": f"account:{_md5('account0')}"},
    "account with a few": {"actor": f"account:{_md5('account7')}"},
    "account without any": {"actor": f"account:{'f' * 32}"},
    "server": {"actor": "server"},
    "operator": {"actor": "operator:alice"},
    "operator without any": {"actor": "operator:nobody"},
    "address of a few": {"source": "192.0.2.77"},
    "address of most": {"source": "192.0.2.1"},
    "address of nobody": {"source": "198.51.100.1"},
    "certificates issued": {"event": "certificate.issued"},
    "CRLs published": {"event": "crl.published"},
    "policy changes, all long ago": {"event": "policy.changed"},
    "event that is not there": {"event": "nothing.done"},
    "in the last 30 days": {"since": _days_ago(30)},
    "a month long ago": {"since": _days_ago(600), "until": _days_ago(570)},
}


@dataclass(frozen=True, slots=True)
class Listing:
    path: str
    filters: dict[str, dict[str, str]]
    sorts: tuple[str, ...]


LISTINGS = (
    Listing("/certificates", FILTERS, ("-recorded", "recorded", "-not_after", "not_after")),
    Listing("/orders", ORDERS, ("-created", "created")),
    Listing("/accounts", ACCOUNTS, ("-created", "created")),
    Listing("/audit/events", EVENTS, ("-at", "at")),
)


@dataclass(frozen=True, slots=True)
class Asker:
    connection: http.client.HTTPSConnection
    token: str

    def ask(self, path: str, **query: str) -> tuple[float, float, dict[str, Any]]:
        """Of a list: milliseconds, those of PostgreSQL's CPU, and the page."""
        return self.get(path, limit=str(PAGE), **query)

    def get(self, path: str, **query: str) -> tuple[float, float, dict[str, Any]]:
        used, begin = _cpu(), time.perf_counter()
        self.connection.request(
            "GET",
            f"/api/v1{path}{'?' * bool(query)}{urlencode(query)}",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        answer = self.connection.getresponse()
        content = answer.read()
        spent = (time.perf_counter() - begin) * 1000
        assert answer.status == 200, (path, query, content)
        return spent, _cpu() - used, json.loads(content)


def _cpu() -> float:
    """Milliseconds that PostgreSQL's processes for connections have run."""
    return sum(int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) for process in _backends) / 1e6


_backends: list[str] = []


def _find_backends(data: Path) -> None:
    postmaster = (data / "postgres" / "cluster" / "postmaster.pid").read_text().split()[0]
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    _backends[:] = [one for one in children if b"acme_ca" in Path(f"/proc/{one}/cmdline").read_bytes()]


def _measure(server: Server, token: str, rounds: int) -> None:
    asker = Asker(http.client.HTTPSConnection("localhost", server.https_port, context=server.tls()), token)
    asker.ask("/certificates")
    _find_backends(server.data)
    for listing in LISTINGS:
        _say(listing.path, "first page, ms", "in all orders, ms", "CPU, ms", "found")
        alone = [_filter(asker, listing, name, query, rounds) for name, query in listing.filters.items()]
        _summary("**all filters**", [one for asked in alone for one in asked])
        pairs = list(_pairs(asker, listing))
        _summary("**all pairs of filters**", [(spent, used) for spent, used, _ in pairs])
        for spent, used, what in sorted(pairs, key=lambda pair: pair[1], reverse=True)[:WORST]:
            _say(f"{what}", f"{spent:.0f}", "", f"{used:.0f}", "")
        deep = list(_deep(asker, listing.path))
        _say("the hundredth page", f"{deep[-1]:.0f}", "", "", "")
    _statistics(asker, rounds)


def _filter(
    asker: Asker, listing: Listing, name: str, query: dict[str, str], rounds: int
) -> list[tuple[float, float]]:
    medians, found = [], 0
    for sort in listing.sorts:
        asked = [asker.ask(listing.path, **query, sort=sort) for _ in range(rounds)]
        found = len(asked[0][2]["items"])
        medians.append((median(spent for spent, _, _ in asked), median(used for _, used, _ in asked)))
    times = [spent for spent, _ in medians]
    used = [used for _, used in medians]
    _say(
        name,
        f"{times[0]:.0f}",
        f"{min(times):.0f} to {max(times):.0f}",
        f"{min(used):.0f} to {max(used):.0f}",
        str(found),
    )
    return medians


def _pairs(asker: Asker, listing: Listing) -> Iterator[tuple[float, float, str]]:
    for one, other in itertools.combinations(listing.filters, 2):
        first, second = listing.filters[one], listing.filters[other]
        if first and second and not set(first) & set(second):
            for sort in listing.sorts:
                spent, used, _ = asker.ask(listing.path, **first, **second, sort=sort)
                yield spent, used, f"{one}; {other}; {sort}"


def _summary(what: str, asked: list[tuple[float, float]]) -> None:
    times, used = (sorted(column) for column in zip(*asked, strict=True))
    late = int(len(times) * 0.95)
    above = sum(spent > AIM for spent in times), sum(spent > AIM for spent in used)
    _say(
        f"{what}: {len(times)} pages",
        f"median {median(times):.1f}",
        f"p95 {times[late]:.0f}; {above[0]} above {AIM}",
        f"median {median(used):.1f}, p95 {used[late]:.0f}; {above[1]} above {AIM}",
        "",
    )


def _deep(asker: Asker, path: str) -> Iterator[float]:
    cursor: dict[str, str] = {}
    for _ in range(100):
        spent, _, page = asker.ask(path, **cursor)
        yield spent
        if page["next"] is None:
            return
        cursor = {"cursor": page["next"]}


def _statistics(asker: Asker, rounds: int) -> None:
    asked = [asker.get("/statistics") for _ in range(rounds)]
    spent, used = (median(one[place] for one in asked) for place in (0, 1))
    _say(
        "statistics", f"{spent:.0f}", "", f"{used:.0f}", str(asked[0][2]["counts"]["certificates"]["number"])
    )


if __name__ == "__main__":
    main()
