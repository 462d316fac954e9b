"""The list of certificates."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from acme_ca.core import revocation
from acme_ca.core.identifiers import Identifier
from acme_ca.core.ids import AccountId, IssuerId, OrderId, Serial
from acme_ca.core.profiles import ProfileRef
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import CertificateState, certificate_state
from acme_ca.storage.database import Database, Row
from acme_ca.storage.search import Condition, Index, Key, List, Page, Position, Search, Statement, whole
from acme_ca.storage.times import within

MEANINGS = 4
"""Searches that one of several words becomes at most."""
SERIAL_BEGINNING = 6
"""Digits from which on a word that somebody searches for is looked up as the beginning of a serial number."""


class CertificateSort(StrEnum):
    """With a minus: the last one first."""

    RECORDED = "recorded"
    RECORDED_LAST = "-recorded"
    NOT_AFTER = "not_after"
    NOT_AFTER_LAST = "-not_after"


_RECORDED = frozenset({"recorded", "recorded since", "recorded until"})
_END = frozenset({"not_after", "ends after", "ends until"})
_TOLD = _RECORDED | _END | {"issuer", "profile", "service", "services"}
_REVOKED = Index(begins="revoked", tells=_TOLD | {"revoked", "reason", "account"})
_OF_ACCOUNT = Index(begins="account", tells=_TOLD | {"good", "account"})
_OF_SERVICE = Index(begins="service", tells=_TOLD | {"good"})
_OF_ISSUER = Index(begins="issuer", tells=_TOLD | {"good"})
_OF_ISSUER_BY_END = replace(_OF_ISSUER, tells=_OF_ISSUER.tells | {"account"})
_OF_PROFILE = Index(begins="profile", tells=_TOLD | {"good"})
_ALL_BY_RECORDED = Index(tells=_TOLD | {"good"})
_ALL_BY_END = Index(tells=_TOLD | {"good", "account"})


def _by_recorded(*, descending: bool) -> Key:
    """What ends late was recorded late. So what has such an end is met where the page begins, unless it is wanted of one
    issuer alone, or from its other side: then few are sorted faster than all before them are passed.
    """
    by_end = [
        replace(_ALL_BY_END, begins=begins, sorting=_END)
        for begins in ("ends until" if descending else "ends after", "issuer")
    ]
    indexes = (_REVOKED, _OF_ACCOUNT, _OF_SERVICE, *by_end, _OF_PROFILE, _OF_ISSUER, _ALL_BY_RECORDED)
    return Key(id="serial", column="recorded", indexes=indexes, descending=descending, table="certificate")


def _by_end(*, descending: bool) -> Key:
    """Likewise."""
    by_recorded = [
        replace(_ALL_BY_RECORDED, begins=begins, sorting=_RECORDED)
        for begins in ("recorded until" if descending else "recorded since", "issuer")
    ]
    of_account = replace(_OF_ACCOUNT, sorting=frozenset({"account"}))
    of_service = replace(_OF_SERVICE, sorting=frozenset({"service"}))
    of_profile = replace(_OF_PROFILE, sorting=frozenset({"profile"}))
    indexes = (_REVOKED, of_account, of_service, *by_recorded, of_profile, _OF_ISSUER_BY_END, _ALL_BY_END)
    return Key(id="serial", column="not_after", indexes=indexes, descending=descending, table="certificate")


_KEYS = {
    CertificateSort.RECORDED: _by_recorded(descending=False),
    CertificateSort.RECORDED_LAST: _by_recorded(descending=True),
    CertificateSort.NOT_AFTER: _by_end(descending=False),
    CertificateSort.NOT_AFTER_LAST: _by_end(descending=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFilter:
    """What is set must hold, all of it."""

    state: CertificateState | None = None
    service: str | None = None
    services: Sequence[str] = ()
    """One of these, when there are any: those that the asker is for."""
    name: Identifier | None = None
    """The certificate has exactly this name or address."""
    below: str | None = None
    """It has this DNS name or one below it, wildcards too."""
    profile: str | None = None
    issuer: IssuerId | None = None
    account: AccountId | None = None
    order: OrderId | None = None
    serial: str | None = None
    """The whole serial number or its beginning: hexadecimal digits, lower case. The whole may lack leading zeros."""
    spki_sha256: bytes | None = None
    ends_after: datetime | None = None
    ends_until: datetime | None = None
    recorded_since: datetime | None = None
    recorded_until: datetime | None = None
    text: str | None = None
    """Words that an operator types, each of which must fit: the beginning of a name from one of its labels on, of an
    address, or of a serial number (SERIAL_BEGINNING digits); a service; the id of an account or order.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCertificate:
    serial: Serial
    state: CertificateState
    issuer: IssuerId
    account_id: AccountId | None
    order_id: OrderId | None
    service: str | None
    profile: ProfileRef
    identifiers: tuple[Identifier, ...]
    spki_sha256: bytes
    not_before: datetime
    not_after: datetime
    recorded: datetime
    revoked: datetime | None
    reason: RevocationReason | None
    comment: str | None
    signed: bool
    """False: recorded, and not (or never) signed."""


_CERTIFICATES = List(
    # By what the pages are sorted, and what is shown of it.
    columns=f"""serial, issuer_id, account_id, order_id, service, profile, profile_version, identifiers, spki_sha256,
        {within("not_before")} AS not_before, extract(epoch FROM not_after) AS not_after, {within("not_after")} AS shown_not_after,
        extract(epoch FROM recorded) AS recorded, {within("recorded")} AS shown_recorded, {within("revoked")} AS revoked, reason,
        comment, der IS NOT NULL AS signed""",
    source="certificate",
    finds=frozenset(
        {
            "name",
            "below",
            "text",
            "beginning",
            "spki_sha256",
            "order",
            "held",
            "revoked",
            "account",
            "service",
        }
    ),
)


async def find(
    database: Database,
    wanted: CertificateFilter,
    *,
    now: datetime,
    limit: int,
    sort: CertificateSort = CertificateSort.RECORDED_LAST,
    after: Position | None = None,
) -> Page[FoundCertificate]:
    """Raises Problem (`search-too-long`)."""
    key = _KEYS[sort]
    conditions = [*_conditions(wanted, now), *([key.behind(after)] if after is not None else ())]
    rows: list[Row] = []
    for words in await _meanings(database, (wanted.text or "").lower().split()):
        rows += await Search(
            database=database,
            listed=_CERTIFICATES,
            conditions=[*conditions, *words],
            key=key,
            limit=limit + 1,
        ).rows()
    rows = key.first(rows, limit + 1)
    found = tuple(_found(row, now) for row in rows[:limit])
    return Page(found, _end(found[-1], key) if len(rows) > limit else None)


def _end(last: FoundCertificate, key: Key) -> Position:
    return Position(last.serial, None if key.column is None else getattr(last, key.column))


def _found(row: Row, now: datetime) -> FoundCertificate:
    reason = None if row["reason"] is None else RevocationReason(row["reason"])
    return FoundCertificate(
        serial=row["serial"],
        state=certificate_state(
            revoked=row["revoked"],
            held=reason is revocation.HOLD,
            not_after=row["shown_not_after"],
            now=now,
        ),
        issuer=row["issuer_id"],
        account_id=row["account_id"],
        order_id=row["order_id"],
        service=row["service"],
        profile=ProfileRef(name=row["profile"], version=row["profile_version"]),
        identifiers=tuple(map(Identifier.from_text, row["identifiers"])),
        spki_sha256=row["spki_sha256"],
        not_before=row["not_before"],
        not_after=row["shown_not_after"],
        recorded=row["shown_recorded"],
        revoked=row["revoked"],
        reason=reason,
        comment=row["comment"],
        signed=row["signed"],
    )


OF_PROFILE = "profile = {0} AND EXISTS (SELECT FROM profile p WHERE p.name = {0})"
"""Whether there is such a profile at all, or such an issuer, is asked once, and not of each row."""
_HAS = {
    "service": "service = {}",
    "profile": OF_PROFILE,
    "issuer": "issuer_id = {0} AND EXISTS (SELECT FROM issuer i WHERE i.id = {0})",
    "account": "account_id = {}",
    "order": "order_id = {}",
    "spki_sha256": "spki_sha256 = {}",
}


def _conditions(wanted: CertificateFilter, now: datetime) -> Iterator[Condition]:
    for name, text in _HAS.items():
        if (value := getattr(wanted, name)) is not None:
            yield Condition(name, text, (value,))
    if len(wanted.services) == 1:
        yield Condition("service", "service = {}", tuple(wanted.services))
    elif wanted.services:
        yield Condition("services", "service = ANY ({}::text[])", (wanted.services,))
    if wanted.state is not None:
        yield from _in_state(wanted.state, now)
    yield from _in_time(wanted)
    if wanted.name is not None:
        yield Condition("name", "words @@ {}::tsquery", (whole("=" + wanted.name.value),))
    if wanted.below is not None:
        yield Condition("below", "words @@ {}::tsquery", (whole(wanted.below),))
    if wanted.serial is not None:
        values = (*_range(wanted.serial), wanted.serial.zfill(32))
        yield Condition("beginning", f"({_SERIAL} OR serial = {{}})", values)


def _in_state(state: CertificateState, now: datetime) -> Iterator[Condition]:
    """As `core.states.certificate_state` has it; of what was signed, but for those that were revoked all the same."""
    if state is CertificateState.ON_HOLD:
        yield Condition("held", "reason = 6", ())
    elif state is CertificateState.REVOKED:
        yield Condition("revoked", "revoked IS NOT NULL", ())
        yield Condition("reason", "reason <> 6", ())
    else:
        yield Condition("good", "revoked IS NULL", ())
        yield Condition("signed", "der IS NOT NULL", ())
    if state is CertificateState.GOOD:
        yield Condition("ends after", "not_after > {}", (now,))
    if state is CertificateState.EXPIRED:
        yield Condition("ends until", "not_after <= {}", (now,))


def _in_time(wanted: CertificateFilter) -> Iterator[Condition]:
    if wanted.ends_after is not None:
        yield Condition("ends after", "not_after > {}", (wanted.ends_after,))
    if wanted.ends_until is not None:
        yield Condition("ends until", "not_after <= {}", (wanted.ends_until,))
    if wanted.recorded_since is not None:
        yield Condition("recorded since", "recorded >= {}", (wanted.recorded_since,))
    if wanted.recorded_until is not None:
        yield Condition("recorded until", "recorded < {}", (wanted.recorded_until,))


_SERIAL = "serial BETWEEN {} AND {}"
_DIGITS = re.compile(r"[0-9a-f]{1,32}")


async def _meanings(database: Database, words: Sequence[str]) -> list[tuple[Condition, ...]]:
    """What the words can mean together; a row fits when it fits one of these.

    Each is a search of its own, which finds its way better than one for all of them would: what a word cannot mean,
    since there is no such service, account or order, is left out.
    """
    meanings = [await _meanings_of(database, word) for word in words]
    while math.prod(map(len, meanings)) > MEANINGS:
        longest = max(range(len(meanings)), key=lambda place: len(meanings[place]))
        meanings[longest] = [_any(meanings[longest])]
    return list(itertools.product(*meanings))


async def _meanings_of(database: Database, word: str) -> list[Condition]:
    digits = word.replace(":", "")
    others = [Condition("service", "service = {}", (word,))]
    if len(digits) >= SERIAL_BEGINNING and _DIGITS.fullmatch(digits):
        others.append(Condition("beginning", _SERIAL, _range(digits)))
    if len(digits) == len("0" * 32):
        others.append(Condition("account", "account_id = {}", (word,)))
        others.append(Condition("order", "order_id = {}", (word,)))
    statement = Statement()
    there = ", ".join(f"EXISTS (SELECT FROM certificate WHERE {statement.where([one])})" for one in others)
    (row,) = await database.search(f"SELECT ARRAY[{there}] AS there", *statement.values)
    name = Condition("text", "words @@ {}::tsquery", (whole(word) + ":*",))
    return [name, *(one for one, is_there in zip(others, row["there"], strict=True) if is_there)]


def _any(conditions: Sequence[Condition]) -> Condition:
    text = " OR ".join(condition.text for condition in conditions)
    return Condition(
        "text", f"({text})", tuple(value for condition in conditions for value in condition.values)
    )


def _range(digits: str) -> tuple[str, str]:
    """Of serial numbers that begin so."""
    return digits.ljust(32, "0"), digits.ljust(32, "f")
