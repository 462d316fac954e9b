"""When certificates are renewed and what may replace them (RFC 9773), as the database knows it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from acme_ca.core.actors import Actor
from acme_ca.core.certificates import Certificate
from acme_ca.core.ids import AccountId, Serial
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.storage import certificates
from acme_ca.storage.database import Database, Row

_WAS = """(SELECT serial, window_start, window_end, explanation_url FROM certificate
                     WHERE serial = ANY ($1) ORDER BY serial FOR UPDATE) was"""
_BEFORE = """CASE WHEN was.window_start IS NOT NULL THEN json_build_object(
                   'start', was.window_start, 'end', was.window_end, 'explanation_url', was.explanation_url) END"""


async def find_replaceable(
    database: Database, serial: Serial, *, account: AccountId
) -> tuple[Certificate | None, bool]:
    """The certificate of this serial number, and whether the account may replace it: it is its own, or that of an account
    whose EAB key is of the same service.
    """
    row = await database.fetchrow(
        f"""SELECT {certificates.COLUMNS}, coalesce(c.account_id = $2, false) OR EXISTS (
                SELECT FROM account mine JOIN eab_key my_key ON my_key.id = mine.eab_key_id, account its
                JOIN eab_key its_key ON its_key.id = its.eab_key_id
                WHERE mine.id = $2 AND its.id = c.account_id AND my_key.service = its_key.service) AS replaceable
            FROM certificate c WHERE c.serial = $1""",
        serial,
        account,
    )
    return (certificates.certificate_of(row), row["replaceable"]) if row else (None, False)


# ---------------------------------------------------------------- windows that operators set


async def move_windows(
    database: Database,
    serials: Sequence[Serial],
    window: SuggestedWindow,
    *,
    explanation_url: str | None,
    actor: Actor,
    now: datetime,
) -> list[Serial]:
    """Set the renewal window of many certificates: one durable statement, an audit event for each.

    Returns those whose window it is now. The others are not known, revoked, or expire before the window is over: these
    are due earlier by themselves.
    """
    row = await database.fetchrow_durably(
        f"""WITH moved AS (
               UPDATE certificate c SET window_start = $2, window_end = $3, explanation_url = $4
               FROM {_WAS} WHERE c.serial = was.serial AND not_after > $3 AND (revoked IS NULL OR reason = 6)
               RETURNING c.serial, {_BEFORE} AS before
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $6, 'certificate.window-moved', $5, $7, 'certificate:' || serial,
                      json_build_object('before', before, 'start', $2, 'end', $3, 'explanation_url', $4) FROM moved
           )
           SELECT array(SELECT serial FROM moved ORDER BY serial) AS serials""",
        serials,
        window.start,
        window.end,
        explanation_url,
        actor.name,
        now,
        actor.source,
    )
    return _serials(row)


async def clear_windows(
    database: Database, serials: Sequence[Serial], *, actor: Actor, now: datetime
) -> list[Serial]:
    """Undo `move_windows`: the window is computed again. Returns those that had one set."""
    row = await database.fetchrow_durably(
        f"""WITH cleared AS (
               UPDATE certificate c SET window_start = NULL, window_end = NULL, explanation_url = NULL
               FROM {_WAS} WHERE c.serial = was.serial AND c.window_start IS NOT NULL
               RETURNING c.serial, {_BEFORE} AS before
           ), told AS (
               INSERT INTO audit_event (at, event, actor, source, object, detail)
               SELECT $3, 'certificate.window-cleared', $2, $4, 'certificate:' || serial,
                      json_build_object('before', before) FROM cleared
           )
           SELECT array(SELECT serial FROM cleared ORDER BY serial) AS serials""",
        serials,
        actor.name,
        now,
        actor.source,
    )
    return _serials(row)


def _serials(row: Row | None) -> list[Serial]:
    assert row is not None, "a SELECT without FROM gives a row"  # noqa: S101
    return list(row["serials"])
