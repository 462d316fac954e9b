"""The warnings that something nears its end."""

from datetime import datetime, timedelta

import pytest
import structlog
from structlog.testing import LogCapture

from acme_ca.core.actors import SERVER
from acme_ca.core.ids import IssuerId
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import IssuerState
from acme_ca.expiry import Expiry, needs_successor
from acme_ca.storage import issuers
from acme_ca.storage.database import Database
from tests.support import records
from tests.support.records import DAY, NOW

SECOND = timedelta(seconds=1)
RETIRED = {"state": IssuerState.RETIRED, "retired": NOW}
REVOKED = {"revoked": NOW, "reason": RevocationReason.SUPERSEDED}


@pytest.mark.parametrize(
    ("left", "fields", "needed"),
    [
        (60 * DAY, {}, True),
        (60 * DAY + SECOND, {}, False),
        (SECOND, {}, True),
        (timedelta(0), {}, False),
        (60 * DAY, {"state": IssuerState.STAGED}, True),
        (60 * DAY, RETIRED, False),
        (60 * DAY, REVOKED, False),
        (365 * DAY, {"kind": IssuerKind.ROOT}, True),
        (366 * DAY, {"kind": IssuerKind.ROOT}, False),
        (60 * DAY, {"kind": IssuerKind.CROSS}, True),
        (61 * DAY, {"kind": IssuerKind.CROSS}, False),
    ],
)
def test_which_issuers_need_a_successor(left, fields, needed):
    record = records.issuer_record(not_after=NOW + left, **fields)
    assert needs_successor(record, NOW) is needed


@pytest.fixture
def log() -> LogCapture:
    return LogCapture()


async def warned(database: Database, log: LogCapture, now: datetime) -> list[dict[str, object]]:
    logger = structlog.wrap_logger(None, processors=[log], wrapper_class=structlog.BoundLogger)
    await Expiry(database=database, clock=lambda: now, log=logger).warn()
    return log.entries


async def test_a_line_for_each_issuer(database_url, log):
    async with records.stocked(database_url) as database:
        ending = records.issuer_record(IssuerId("2" * 32), not_after=NOW + 10 * DAY)
        assert await issuers.register(database, ending, actor=SERVER)
        assert await warned(database, log, NOW) == [
            {
                "event": "an issuer nears its end",
                "log_level": "warning",
                "issuer": "2" * 32,
                "kind": "intermediate",
                "end": "2030-01-11T12:00:00+00:00",
                "days": 10,
            }
        ]


@pytest.mark.parametrize(
    ("passed", "warns"), [(5 * DAY, False), (5.5 * DAY, True), (8 * DAY, True), (1000 * DAY, False)]
)
async def test_a_crl_that_nobody_makes_anew(database_url, log, passed, warns):
    """Made for a week, by an issuer that has 900 days."""
    async with records.stocked(database_url) as database:
        await stored_crl(database, next_update=NOW + 7 * DAY)
        told = await warned(database, log, NOW + passed)
        events = {(entry["event"], entry["issuer"], entry["shard"]) for entry in told if "shard" in entry}
        assert events == ({("a CRL nears its end", records.ISSUER, 0)} if warns else set())


async def test_the_last_crl_of_an_issuer_ends_with_it(database_url, log):
    async with records.stocked(database_url) as database:
        await stored_crl(database, next_update=NOW + 900 * DAY)
        told = await warned(database, log, NOW + 899 * DAY)
        assert [entry["event"] for entry in told] == ["an issuer nears its end"]


async def stored_crl(database: Database, *, next_update: datetime) -> None:
    await database.execute(
        """INSERT INTO crl (issuer_id, shard, number, this_update, next_update, entries, der, urls, base_number, base_at,
                            base, lists_after, opened, counted)
           VALUES ($1, 0, 1, $2, $3, 0, '', '{}', 1, $2, '', $2, $2, $2)""",
        records.ISSUER,
        NOW,
        next_update,
    )
