"""Renewal windows that operators set, and who may replace a certificate (RFC 9773)."""

from datetime import timedelta

import pytest

from acme_ca.core.actors import SERVER, Actor
from acme_ca.core.eab import EabKey
from acme_ca.core.ids import AccountId, EabKeyId, Serial
from acme_ca.core.renewal import SuggestedWindow
from acme_ca.storage import certificates, eab, renewals
from tests.support import records
from tests.support.records import DAY, NOW

WINDOW = SuggestedWindow(start=NOW, end=NOW + 2 * DAY)
WHY = "https://ca.test/incident"


async def move(database, *serials, window=WINDOW, why=WHY):
    return await renewals.move_windows(
        database, serials, window, explanation_url=why, actor=Actor("operator"), now=NOW
    )


async def clear(database, *serials):
    return await renewals.clear_windows(database, serials, actor=Actor("operator"), now=NOW)


async def shown(database, serial):
    found = await certificates.find(database, serial)
    assert found is not None
    return found.moved, found.explanation_url


async def events(database, event: str) -> list[str]:
    rows = await database.fetch("SELECT object FROM audit_event WHERE event = $1 ORDER BY object", event)
    return [row["object"] for row in rows]


# ---------------------------------------------------------------- moved windows


async def test_many_windows_are_moved_at_once_and_back(database):
    serials = sorted([await records.certificate(database) for _ in range(30)])
    other = await records.certificate(database)
    assert await move(database, *serials, "0" * 32, serials[0]) == serials
    assert [await shown(database, serial) for serial in serials] == [(WINDOW, WHY)] * 30
    assert await shown(database, other) == (None, None)
    assert await events(database, "certificate.window-moved") == [f"certificate:{one}" for one in serials]
    assert await clear(database, *serials[:3], other) == serials[:3]
    assert await shown(database, serials[0]) == (None, None)
    assert await shown(database, serials[3]) == (WINDOW, WHY)
    told = await events(database, "certificate.window-cleared")
    assert told == [f"certificate:{one}" for one in serials[:3]]


async def test_a_window_is_moved_again_and_its_explanation_goes_with_it(database):
    serial = await records.certificate(database)
    await move(database, serial)
    later = SuggestedWindow(start=NOW + DAY, end=NOW + 5 * DAY)
    assert await move(database, serial, window=later, why=None) == [serial]
    assert await shown(database, serial) == (later, None)


REVOKED = {"revoked": NOW, "status_changed": NOW}
FATES = {
    "good": ({}, True),
    "on hold": ({**REVOKED, "reason": 6}, True),
    "revoked": ({**REVOKED, "reason": 4}, False),
    "expires when the window is over": ({"not_after": WINDOW.end}, False),
    "expires a second later": ({"not_after": WINDOW.end + timedelta(seconds=1)}, True),
}


@pytest.mark.parametrize(("fields", "moves"), FATES.values(), ids=FATES)
async def test_only_what_lives_until_the_window_is_over_is_moved(database, fields, moves):
    serial = await records.certificate(database, **fields)
    assert await move(database, serial) == ([serial] if moves else [])
    assert await shown(database, serial) == ((WINDOW, WHY) if moves else (None, None))


# ---------------------------------------------------------------- who may replace (§5)


async def account(database, service: str | None, *, bound: bool = True) -> AccountId:
    made = await records.account(database)
    if bound:
        key = EabKey(
            id=EabKeyId(records.new_id()),
            hmac_key=bytes(32),
            owner="o",
            service=service,
            created=NOW,
            approved=NOW,
        )
        await eab.create(database, key, actor=SERVER)
        bind = "UPDATE account SET eab_key_id = $1, eab_binding = '{}' WHERE id = $2"
        await database.execute(bind, key.id, made.id)
    return made.id


async def may_replace(database, serial, asking: AccountId) -> bool:
    found, may = await renewals.find_replaceable(database, serial, account=asking)
    assert found is not None
    assert found.serial == serial
    return may


SERVICES = {
    "same service": ("web", "web", True),
    "another service": ("web", "mail", False),
    "another spelling": ("web", "Web", False),
    "a pattern": ("web", "%", False),
    "none, its": (None, "web", False),
    "none, mine": ("web", None, False),
    "neither has one": (None, None, False),
}


@pytest.mark.parametrize(("its", "mine", "may"), SERVICES.values(), ids=SERVICES)
async def test_accounts_of_one_service_may_replace(database, its, mine, may):
    """Lesson 10: nothing known about the service, nothing allowed."""
    owner, asking = await account(database, its), await account(database, mine)
    serial = await records.certificate(database, account_id=owner)
    assert await may_replace(database, serial, asking) is may
    assert await may_replace(database, serial, owner)


async def test_accounts_without_eab_key_replace_their_own_only(database):
    owner, asking = [await account(database, None, bound=False) for _ in range(2)]
    of_a_service = await account(database, "web")
    serial = await records.certificate(database, account_id=owner)
    for other in (asking, of_a_service):
        assert not await may_replace(database, serial, other)
    assert await may_replace(database, serial, owner)


async def test_the_servers_own_certificate_is_nobodys_to_replace(database):
    serial = await records.certificate(database)
    for asking in (await account(database, "web"), await account(database, None, bound=False)):
        assert not await may_replace(database, serial, asking)


async def test_what_is_not_known_is_not_found(database):
    asking = await account(database, "web")
    assert await renewals.find_replaceable(database, Serial("0" * 32), account=asking) == (None, False)
