"""What revocation costs where many certificates were issued: CRL shards, OCSP, and how soon a revocation is seen.

    scripts/bench-revocation [--certificates 10000000] [--seconds 5]

Every tenth certificate is revoked. The certificates are rows made by PostgreSQL, with bytes that are no DER in place of
the certificates: neither CRLs nor OCSP read those. The server is a real one with one worker and the embedded
PostgreSQL, in a temporary folder; what is printed is the table of docs/performance.md. 10,000,000 certificates take
about 16 GB of disk and ten minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import asyncpg
import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from acme_ca.config import CrlSettings
from acme_ca.core.actors import Actor
from acme_ca.core.crl import ENTRY_SIZE
from acme_ca.core.ids import serial_text
from acme_ca.core.revocation import RevocationReason
from acme_ca.revocation.revoke import Revocation
from acme_ca.storage import embedded
from acme_ca.storage.database import Database
from acme_ca.storage.embedded import EmbeddedPostgres
from tests.support.server import Server, running

REVOKED_EVERY = 10
DER_BYTES = 720
"""Of a certificate for one name with P-256 keys."""
CONNECTIONS = 16
SHARD_CERTIFICATES = CrlSettings().shard_budget // ENTRY_SIZE
REVOCATIONS = 10
"""That are watched until they are seen."""
QUESTIONS = 50_000
"""OCSP requests that are made beforehand."""
PATIENCE = 1200.0
"""Seconds."""


def main() -> None:
    wanted = _arguments()
    place = Path(tempfile.mkdtemp(prefix="acme-ca-bench-"))
    place.chmod(0o755)  # PostgreSQL's own user passes through
    try:
        with running(place, WORKERS="1") as server:
            server.stop()
            _print("rows made", f"{_fill(server, wanted.certificates):.0f} s")
            server.start_again()
            asyncio.run(_measure(server, wanted.certificates, wanted.seconds))
    finally:
        shutil.rmtree(place)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures CRLs and OCSP over many certificates.")
    parser.add_argument("--certificates", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement of OCSP")
    return parser.parse_args()


def _print(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)  # noqa: T201  it is what this is for


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
    """In one transaction that empties the table first: so PostgreSQL writes the rows without its log."""
    async with _connected(dsn) as connection:
        async with connection.transaction():
            await connection.execute(
                "SET LOCAL session_replication_role = replica"
            )  # no look at foreign keys
            await connection.execute("TRUNCATE certificate")
            indexes = await connection.fetch(_INDEXES)
            for index in indexes:
                await connection.execute(index["without"])
            await connection.execute(_ROWS, certificates, DER_BYTES // 16, REVOKED_EVERY, SHARD_CERTIFICATES)
            for index in indexes:
                await connection.execute(index["again"])
            await connection.execute(
                "UPDATE issuer SET open_shard = $1 WHERE kind = 'intermediate'",
                certificates // SHARD_CERTIFICATES,
            )
        # A vacuum would write every page once more.
        await connection.execute("ALTER TABLE certificate SET (autovacuum_enabled = false)")
        await connection.execute("ANALYZE certificate")


_INDEXES = """
    SELECT 'ALTER TABLE certificate DROP CONSTRAINT ' || conname AS without,
           'ALTER TABLE certificate ADD CONSTRAINT ' || conname || ' ' || pg_get_constraintdef(oid) AS again
    FROM pg_constraint WHERE conrelid = 'certificate'::regclass AND contype IN ('p', 'u')
    UNION ALL
    SELECT 'DROP INDEX ' || indexrelid::regclass, pg_get_indexdef(indexrelid)
    FROM pg_index WHERE indrelid = 'certificate'::regclass
        AND indexrelid NOT IN (SELECT conindid FROM pg_constraint WHERE conrelid = 'certificate'::regclass)"""
_ROWS = """
    INSERT INTO certificate (serial, issuer_id, profile, profile_version, identifiers, spki_sha256, not_before, not_after,
                             shard, recorded, der, revoked, reason, status_changed, words)
    SELECT number, issuer, 'server', 1, ARRAY['dns:host' || i || '.example.org'], decode(number || number, 'hex'),
           made, made + interval '90 days', i / $4, made, decode(repeat(number, $2), 'hex'), gone, CASE WHEN gone IS NOT NULL THEN 4 END, gone,
           array_to_tsvector(ARRAY['=host' || i || '.example.org', 'host' || i || '.example.org', 'example.org', 'org'])
    FROM (SELECT id AS issuer FROM issuer WHERE kind = 'intermediate') AS one,
         (SELECT i, md5(i::text) AS number, now() - interval '80 days' * (1 - i::float8 / $1::integer) AS made
          FROM generate_series(0, $1::integer - 1) AS i) AS counted,
         LATERAL (SELECT CASE WHEN i % $3 = 0 THEN made + (now() - made) / 2 END AS gone) AS chosen"""


def serial_of(number: int) -> int:
    """As PostgreSQL made it."""
    return int(hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest(), 16)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


# ---------------------------------------------------------------- OCSP


class Asker:
    """Asks a responder over connections that stay open, each for one answer after the other."""

    def __init__(self, server: Server, issuer: x509.Certificate) -> None:
        self._server = server
        key = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self._hashes = _sha1(issuer.subject.public_bytes()), _sha1(key)

    def request(self, serial: int, *, nonce: bytes | None = None) -> bytes:
        """The whole HTTP request."""
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(*self._hashes, serial, hashes.SHA1())
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        body = builder.build().public_bytes(Encoding.DER)
        head = f"POST /ocsp HTTP/1.1\r\nHost: bench\r\nContent-Type: application/ocsp-request\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def ask(self, requests: Sequence[bytes], seconds: float) -> int:
        """How many answers came in that time, or fewer seconds when the requests come to their end."""
        deadline, waiting = time.monotonic() + seconds, iter(requests)
        return sum(await asyncio.gather(*(self._ask(waiting, deadline) for _ in range(CONNECTIONS))))

    async def is_revoked(self, serial: int) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.http_port)
        writer.write(self.request(serial))
        answer = ocsp.load_der_ocsp_response(await _answer(reader))
        writer.close()
        return answer.certificate_status is ocsp.OCSPCertStatus.REVOKED

    async def _ask(self, waiting: Iterator[bytes], deadline: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.http_port)
        answers = 0
        for request in waiting:
            writer.write(request)
            await _answer(reader)
            answers += 1
            if time.monotonic() > deadline:
                break
        writer.close()
        return answers


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The body of an answer that is an OCSP response with an answer in it."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    body = await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
    assert b" 200 " in head, head
    assert b"\x0a\x01\x00" in body[:8], body
    return body


def _sha1(content: bytes) -> bytes:
    return hashlib.sha1(content, usedforsecurity=False).digest()


# ---------------------------------------------------------------- the measurements


async def _measure(server: Server, certificates: int, seconds: float) -> None:
    url = embedded.url_of_running(server.data / "postgres")
    assert url is not None
    async with _connected(url) as connection:
        await _all_shards(server, connection)
        await _full_shard(server, connection)
        await _answers(server, certificates, seconds)
    async with Database.open(url, connections=1) as database:
        await _visible(server, Revocation(database=database, clock=lambda: datetime.now(UTC)), certificates)


async def _all_shards(server: Server, connection: asyncpg.Connection) -> None:
    """Once the first CRLs are there: all of them made anew, as every hour."""
    shards = await connection.fetchval("SELECT sum(open_shard + 1) FROM issuer")
    await _until(connection, "SELECT count(*) = $1 FROM crl", shards)
    newest = await connection.fetchval("SELECT max(number) FROM crl")
    with _watched(server) as watched:
        await connection.execute(
            "INSERT INTO crl_due (issuer_id, shard, at) SELECT issuer_id, shard, now() FROM crl"
        )
        await _until(connection, "SELECT min(number) > $1 FROM crl", newest)
    found = await connection.fetchrow(
        "SELECT sum(entries) AS entries, max(entries) AS most, max(octet_length(der)) AS size FROM crl"
    )
    _print("CRLs", f"{shards}, with {found['entries']:,} revoked certificates")
    _print("the largest", f"{found['most']:,} entries, {found['size']:,} bytes")
    _print("all made anew", f"{watched.seconds:.1f} s; {watched.spent(shards)} of CPU for each")
    _print("memory of the worker, at most", f"{watched.memory >> 20} MB")


async def _full_shard(server: Server, connection: asyncpg.Connection) -> None:
    """One of which every certificate is revoked: the most that a shard can be."""
    await connection.execute(
        """UPDATE certificate SET revoked = recorded, reason = 4, status_changed = recorded
           WHERE serial IN (SELECT md5(i::text) FROM generate_series($1::integer, 2 * $1 - 1) AS i) AND revoked IS NULL""",
        SHARD_CERTIFICATES,
    )
    number = await connection.fetchval("SELECT number FROM crl WHERE shard = 1")
    with _watched(server) as watched:
        await connection.execute(
            "INSERT INTO crl_due (issuer_id, shard, at) SELECT issuer_id, shard, now() FROM crl WHERE shard = 1"
        )
        await _until(connection, "SELECT number > $1 FROM crl WHERE shard = 1", number)
    row = await connection.fetchrow(
        "SELECT entries, octet_length(der) AS size, octet_length(delta) AS delta FROM crl WHERE shard = 1"
    )
    _print(
        "one shard of which all are revoked",
        f"{row['entries']:,} entries, {row['size']:,} bytes, its delta {row['delta']:,}",
    )
    _print(
        "made anew",
        f"within {watched.seconds:.1f} s; {watched.spent(1)} of CPU, the worker then had {watched.memory >> 20} MB at most",
    )


async def _answers(server: Server, certificates: int, seconds: float) -> None:
    """Of certificates at random, one in ten of them revoked."""
    asker = Asker(server, await _issuer(server))
    chosen = random.sample(range(certificates), min(certificates, QUESTIONS))
    serials = [serial_of(number) for number in chosen]
    known = [asker.request(serial) for serial in serials[:5000]]
    await asker.ask(known, PATIENCE)
    for what, requests in {
        "certificates that nobody has asked about": [asker.request(serial) for serial in serials[5000:]],
        "certificates that were asked about before": known * 20,
        "with nonces": [asker.request(serial, nonce=random.randbytes(16)) for serial in serials],
    }.items():
        with _watched(server) as watched:
            answers = await asker.ask(requests, seconds)
        _print(
            f"OCSP: {what}",
            f"{answers / watched.seconds:,.0f} answers a second; {watched.spent(answers)} of CPU for each",
        )


async def _visible(server: Server, revocation: Revocation, certificates: int) -> None:
    """From a revocation to the first CRL and the first OCSP answer that have it."""
    asker = Asker(server, await _issuer(server))
    by_ocsp, by_crl = [], []
    good = range(1, min(certificates, SHARD_CERTIFICATES), REVOKED_EVERY)  # in a shard of the usual kind
    for number in random.sample(good, REVOCATIONS):
        serial = serial_of(number)
        certificate = await revocation.find(serial_text(serial))
        url = f"{server.http_base}/crl/{certificate.issuer}/{certificate.shard}.crl"
        await revocation.take_back(
            certificate.serial, by=Actor("operator"), reason=RevocationReason.SUPERSEDED
        )
        begin = time.monotonic()
        while not await asker.is_revoked(serial):
            pass
        by_ocsp.append(time.monotonic() - begin)
        while serial.to_bytes(16) not in _fetched(url):
            pass
        by_crl.append(time.monotonic() - begin)
    for what, times in {"OCSP": by_ocsp, "the CRL": by_crl}.items():
        _print(
            f"revoked at T, seen in {what}",
            f"T + {median(times):.3f} s, at most {max(times):.3f} s, of {REVOCATIONS}",
        )


def _fetched(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:
        content: bytes = answer.read()
    return content


async def _issuer(server: Server) -> x509.Certificate:
    return x509.load_pem_x509_certificates(_fetched(f"{server.http_base}/ca/bundle.pem"))[0]


async def _until(connection: asyncpg.Connection, condition: str, *arguments: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await connection.fetchval(condition, *arguments):
        assert time.monotonic() < deadline, f"not so in {PATIENCE} s: {condition}"
        await asyncio.sleep(0.1)


# ---------------------------------------------------------------- what the server spends


@dataclass(slots=True)
class Watched:
    """What a piece of work took, when it is over."""

    seconds: float = 0.0
    cpu: float = 0.0
    """Seconds, of the server and its PostgreSQL."""
    postgres: float = 0.0
    """Of it PostgreSQL's."""
    memory: int = 0
    """Bytes that the worker had at most."""

    def spent(self, parts: int) -> str:
        return f"{self.cpu / parts * 1000:.2f} ms (PostgreSQL {self.postgres / parts * 1000:.2f})"


@contextmanager
def _watched(server: Server) -> Iterator[Watched]:
    watched, begin, before = Watched(), time.monotonic(), _spent(server)
    for process in _workers(server):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak is counted anew
    yield watched
    watched.seconds = time.monotonic() - begin
    watched.cpu, watched.postgres = (
        after - spent for after, spent in zip(_spent(server), before, strict=True)
    )
    watched.memory = max(_peak(process) for process in _workers(server))


def _spent(server: Server) -> tuple[float, float]:
    """Seconds of CPU so far: all, and PostgreSQL's."""
    root = psutil.Process(server.process.pid)
    tree = [root, *root.children(recursive=True)]
    times = [(sum(process.cpu_times()[:4]), process.name()) for process in tree]
    return sum(cpu for cpu, _ in times), sum(cpu for cpu, name in times if name == "postgres")


def _workers(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if child.name() != "postgres"]


def _peak(process: psutil.Process) -> int:
    (line,) = (
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
