"""The warnings that something nears its end."""

from datetime import timedelta

import pytest
import structlog
from structlog.testing import LogCapture

from acme_ca.core.model import IssuerId, IssuerKind, RevocationReason
from acme_ca.core.states import IssuerState
from acme_ca.expiry import Expiry, needs_successor
from acme_ca.storage import issuers
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


async def test_a_line_for_each(database_url):
    captured = LogCapture()
    log = structlog.wrap_logger(None, processors=[captured], wrapper_class=structlog.BoundLogger)
    async with records.stocked(database_url) as database:
        ending = records.issuer_record(IssuerId("2" * 32), not_after=NOW + 10 * DAY)
        assert await issuers.register(database, ending, actor="server")
        await Expiry(database=database, clock=lambda: NOW, log=log).warn()
    assert captured.entries == [
        {
            "event": "an issuer nears its end",
            "log_level": "warning",
            "issuer": "2" * 32,
            "kind": "intermediate",
            "not_after": "2030-01-11T12:00:00+00:00",
            "days": 10,
        }
    ]
