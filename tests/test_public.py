"""What anyone may read, on both listeners: health, the root, the chain, the issuers' certificates."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from cryptography import x509

from acme_ca import __version__
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.problems import ErrorType
from acme_ca.expiry import WARNING
from acme_ca.public import KEY_CHECK, Public
from acme_ca.refreshing import Remembered
from acme_ca.storage.database import Database
from tests.support.client import assert_problem
from tests.support.fixtures import (
    IN_SESSION_LOOP,
    account,
    ca,
    hierarchy,
    hierarchy_place,
    new_ca,
    outside,
    stranger,
)

__all__ = ["account", "ca", "hierarchy", "hierarchy_place", "new_ca", "outside", "stranger"]

pytestmark = IN_SESSION_LOOP

# No CRL is made in a test without background loops.
CHECKS = {
    "database": "ok",
    "issuer_key": "ok",
    "issuer_life": "ok",
    "ocsp": "ok",
    "crl": "stale",
    "audit": "ok",
}
BOTH = pytest.mark.parametrize("listener", ["client", "plain"])


@BOTH
async def test_the_root(ca, listener):
    client = getattr(ca, listener)
    answer = await client.request("GET", client.public_url + "/ca/root.pem")
    assert (answer.status, answer.content_type) == (200, "application/x-pem-file")
    assert x509.load_pem_x509_certificates(answer.body) == [ca.hierarchy.root.certificate]
    assert "max-age" in answer.headers["Cache-Control"]
    assert "Replay-Nonce" not in answer.headers


@BOTH
async def test_the_bundle(ca, listener):
    client = getattr(ca, listener)
    answer = await client.request("GET", client.public_url + "/ca/bundle.pem")
    issuers = [ca.hierarchy.intermediate.certificate, ca.hierarchy.root.certificate]
    assert x509.load_pem_x509_certificates(answer.body) == issuers


@BOTH
@pytest.mark.parametrize("which", ["root", "intermediate"])
async def test_the_certificate_of_an_issuer(ca, listener, which):
    """DER (RFC 5280 §4.2.2.1), at the place that certificates name."""
    client, issuer = getattr(ca, listener), getattr(ca.hierarchy, which)
    answer = await client.request("GET", f"{client.public_url}/ca/{issuer.id}.cer")
    assert (answer.status, answer.content_type) == (200, "application/pkix-cert")
    assert hashlib.sha256(answer.body).hexdigest() == issuer.fingerprint


@BOTH
async def test_health(ca, listener):
    client = getattr(ca, listener)
    answer = await client.request("GET", client.public_url + "/health")
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    assert answer.json == {
        "status": "ok",
        "version": __version__,
        "ca_initialized": True,
        "development_mode": False,
        "counts": answer.json["counts"],
        "checks": CHECKS,
        "issuer_expires_in_days": answer.json["issuer_expires_in_days"],
    }
    assert 1800 < answer.json["issuer_expires_in_days"] < 1827
    assert set(answer.json["counts"]) == {"certificates", "accounts", "services"}
    for path in ("/api/health", "/api/v1/health"):
        again = await client.request("GET", client.public_url + path)
        assert (again.status, again.json["status"]) == (200, "ok")


async def test_health_counts(new_ca):
    async with new_ca() as ca:
        order = await (await ca.account()).order(ca.name())
        await order.issue(ca.web)
        health = await ca.plain.request("GET", "http://ca.test/health")
        assert health.json["counts"] == {"certificates": 3, "accounts": 1, "services": 0}


@pytest.mark.parametrize("path", ["/health", "/ca/root.pem", "/ca/bundle.pem"])
async def test_only_reading(ca, path):
    head = await ca.plain.request("HEAD", "http://ca.test" + path)
    assert (head.status, head.body) == (200, b"")
    answer = await ca.plain.request("POST", "http://ca.test" + path)
    assert_problem(answer, ErrorType.MALFORMED, status=405)
    assert answer.headers["Allow"] == "GET,HEAD"


async def test_the_listener_without_tls_speaks_no_acme(ca):
    """RFC 8555 §6.1: over HTTPS only."""
    for path in ("/acme/directory", "/acme/new-nonce"):
        answer = await ca.plain.request("GET", "http://ca.test" + path)
        assert answer.status == 404


@pytest.mark.parametrize(
    "path", ["/ca/root.key", "/ca/..%2froot.key", "/ca/intermediate.key", "/ca/", "/ca/%00.cer"]
)
async def test_nothing_else_is_served(ca, path):
    answer = await ca.plain.request("GET", "http://ca.test" + path)
    assert_problem(answer, ErrorType.MALFORMED, status=404)


# ---------------------------------------------------------------- when something is wrong


async def test_without_its_database(new_ca, postgres):
    """503 for ACME and for health, with a time to try again; the directory and the root are still there."""
    name = await postgres.create()
    async with new_ca(dsn=postgres.url(name)) as broken:
        someone = await broken.account()
        await postgres.drop(name)
        answer = await someone.read(someone.url, failing=True)
        assert_problem(answer, ErrorType.SERVER_INTERNAL, "database", status=503)
        assert answer.headers["Retry-After"] == "5"
        assert answer.nonce
        assert broken.logged("database unavailable")
        health = await broken.plain.request("GET", "http://ca.test/health", failing=True)
        assert (health.status, health.json["status"]) == (503, "failing")
        assert health.json["checks"]["database"] == "unreachable"
        assert (await broken.client.request("GET", broken.client.directory_url)).status == 200
        assert (await broken.plain.request("GET", "http://ca.test/ca/root.pem")).status == 200


async def test_when_the_database_is_back(new_ca, postgres):
    """No restart is needed: connections that were lost are made again."""
    name = await postgres.create()
    async with new_ca(dsn=postgres.url(name)) as suffering:
        someone = await suffering.account()
        await interrupt(postgres, name)
        answers = [await someone.read(someone.url, failing=True) for _ in range(20)]
        assert {answer.status for answer in answers} <= {200, 503}
        assert answers[-1].status == 200
    await postgres.drop(name)


async def interrupt(postgres, name: str) -> None:
    """As a restart of PostgreSQL does to those who are connected."""
    connection = await asyncpg.connect(postgres.url("postgres"))
    ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1"
    assert await connection.fetchval(ended, name)
    await connection.close()


async def test_with_a_database_that_is_not_as_it_should_be(new_ca):
    """A table is missing: 500, no word of it to the client, the whole trace in the log."""
    async with new_ca() as broken:
        someone = await broken.account()
        await broken.sql("ALTER TABLE authz RENAME TO missing")
        answer = await someone.post(
            broken.client.url("new-order"),
            {"identifiers": [{"type": "dns", "value": broken.name()}]},
            failing=True,
        )
        problem = assert_problem(answer, ErrorType.SERVER_INTERNAL, status=500)
        assert not any(word in problem["detail"] for word in ("authz", "relation", "Undefined", "asyncpg"))
        assert answer.headers["X-Request-Id"] in problem["detail"]
        (failure,) = broken.logged("request failed")
        assert "UndefinedTableError" in failure["exception"]
        assert failure["request"] == answer.headers["X-Request-Id"]
        assert (await someone.read(someone.url)).status == 200


async def health_at(public: Public, when: datetime) -> tuple[bool, str]:
    healthy, report = await replace(public, clock=lambda: when).health()
    return healthy, report["checks"]["issuer_life"]


async def test_health_looks_at_the_issuers_life(ca, hierarchy):
    end = hierarchy.intermediate.not_after
    async with Database.open(ca.dsn, connections=1) as database:
        public = Public(
            issuers=ca.application.issuers,
            database=database,
            can_sign=answering(True),
            ocsp=lambda: "ok",
            crls=answering("ok"),
            audit=answering("ok"),
            clock=lambda: datetime.now(UTC),
            dev=False,
        )
        assert await health_at(public, end - WARNING[IssuerKind.INTERMEDIATE] - timedelta(days=1)) == (
            True,
            "ok",
        )
        assert await health_at(public, end - timedelta(days=1)) == (True, "expires soon")
        healthy, report = await replace(public, can_sign=answering(False), _works=Remembered()).health()
        assert (healthy, report["checks"]["issuer_key"]) == (False, "does not sign")


async def test_health_without_an_active_issuer(new_ca):
    async with new_ca() as ca:
        end = "state = 'retired', retired = now()"
        await ca.sql(f"UPDATE issuer SET {end} WHERE id = '{ca.hierarchy.intermediate.id}'")
        await ca.application.issuers.refresh()
        health = await ca.plain.request("GET", "http://ca.test/health", failing=True)
        assert (health.status, health.json["checks"]["issuer_life"]) == (503, "expired")
        assert (await ca.plain.request("GET", "http://ca.test/ca/root.pem")).status == 200


def answering(answer):
    async def answered(*_) -> bool:
        return answer

    return answered


async def test_health_tells_of_responders_and_stays_up(ca):
    """Certificates are issued all the same."""
    async with Database.open(ca.dsn, connections=1) as database:
        public = Public(
            issuers=ca.application.issuers,
            database=database,
            can_sign=answering(True),
            ocsp=lambda: "missing",
            crls=answering("stale"),
            audit=answering("ok"),
            clock=lambda: datetime.now(UTC),
            dev=False,
        )
        healthy, report = await public.health()
    assert (healthy, report["checks"]) == (True, CHECKS | {"ocsp": "missing"})


async def test_health_asks_the_key_only_now_and_then(ca, hierarchy):
    """Anyone may ask for health; a key may lie in a device that takes its time."""
    asked, now = [], datetime.now(UTC)

    async def can_sign(issuer) -> bool:
        asked.append(issuer)
        return True

    async with Database.open(ca.dsn, connections=1) as database:
        public = Public(
            issuers=ca.application.issuers,
            database=database,
            can_sign=can_sign,
            ocsp=lambda: "ok",
            crls=answering("ok"),
            audit=answering("ok"),
            clock=lambda: now,
            dev=False,
        )
        for passed in (timedelta(0), KEY_CHECK - timedelta(seconds=1), KEY_CHECK, KEY_CHECK * 2):
            now = datetime.now(UTC) + passed
            assert (await public.health())[0]
        assert len(asked) == 3
        now -= timedelta(hours=6)  # the clock is set back
        assert (await public.health())[0]
        assert len(asked) == 4
