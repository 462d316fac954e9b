"""Lists: a page shows what the filter means, in order; all pages together show everything once."""

import hashlib
import itertools
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acme_ca.core import identifiers
from acme_ca.core.actors import SERVER
from acme_ca.core.identifiers import IdentifierType, is_below
from acme_ca.core.ids import IssuerId
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import CertificateState
from acme_ca.storage import certificate_list, issuers, search
from acme_ca.storage.certificate_list import CertificateFilter, CertificateSort
from tests.support import records
from tests.support.records import DAY, ISSUER, NOW

OTHER = IssuerId("2" * 32)
NAMES = [
    ["dns:a.example"],
    ["dns:web.a.example", "dns:a.example"],
    ["dns:*.a.example"],
    ["dns:ba.example"],
    ["dns:deep.web.a.example", "dns:xn--bcher-kva.example"],
    ["ip:10.1.2.3"],
    ["ip:2001:db8::1", "dns:b.test"],
]


def serial_of(number):
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def row_of(number, accounts):
    """Rows of all kinds, none of which the others tell: each property has its own period."""
    recorded = NOW - timedelta(days=100) + timedelta(hours=7 * number)
    revoked = None if number % 5 else recorded + DAY
    reason = None if revoked is None else [4, 6, 1][number // 5 % 3]
    return {
        "serial": serial_of(number) if number % 11 else "0000" + serial_of(number)[4:],
        "issuer_id": OTHER if number % 3 == 0 else ISSUER,
        "account_id": accounts[number % 7] if number % 7 < len(accounts) else None,
        "identifiers": NAMES[number % len(NAMES)],
        "spki_sha256": hashlib.sha256(b"key" + bytes([number % 23])).digest(),
        "not_before": recorded,
        "not_after": recorded + timedelta(days=[90, 7, 365][number % 3]),
        "recorded": recorded if number % 4 else recorded.replace(hour=0, minute=0),
        "der": None if number % 13 == 3 else b"der",
        "tbs": b"tbs" if number % 13 == 3 else None,
        "revoked": revoked,
        "reason": reason,
        "status_changed": revoked,
        "service": [None, "shop", "mail"][number // 2 % 3],
    }


@pytest.fixture
async def stocked(database_url):
    """A database with 150 certificates."""
    async with records.stocked(database_url) as database:
        await issuers.register(database, records.issuer_record(OTHER), actor=SERVER)
        accounts = [(await records.account(database)).id for _ in range(3)]
        rows = [row_of(number, accounts) for number in range(150)]
        for row in rows:
            await records.certificate(database, **row)
        yield database, rows


def fits(row, wanted):
    """The filter in Python, on what was put in."""
    names = [identifiers.Identifier.from_text(text) for text in row["identifiers"]]
    held = row["reason"] == RevocationReason.CERTIFICATE_HOLD
    state = {
        None: True,
        CertificateState.GOOD: row["revoked"] is None and row["not_after"] > NOW and row["der"],
        CertificateState.EXPIRED: row["revoked"] is None and row["not_after"] <= NOW and row["der"],
        CertificateState.ON_HOLD: held,
        CertificateState.REVOKED: row["revoked"] is not None and not held,
    }[wanted.state]
    return (
        state
        and wanted.service in {None, row["service"]}
        and (not wanted.services or row["service"] in wanted.services)
        and (wanted.name is None or wanted.name in names)
        and (wanted.below is None or any(below(name, wanted.below) for name in names))
        and wanted.issuer in {None, row["issuer_id"]}
        and wanted.account in {None, row["account_id"]}
        and wanted.profile in {None, "server"}
        and wanted.spki_sha256 in {None, row["spki_sha256"]}
        and (wanted.serial is None or fits_serial(row["serial"], wanted.serial))
        and (wanted.ends_after is None or row["not_after"] > wanted.ends_after)
        and (wanted.ends_until is None or row["not_after"] <= wanted.ends_until)
        and (wanted.recorded_since is None or row["recorded"] >= wanted.recorded_since)
        and (wanted.recorded_until is None or row["recorded"] < wanted.recorded_until)
        and all(has_word(row, names, word) for word in (wanted.text or "").lower().split())
    )


def fits_serial(serial, wanted):
    return serial.startswith(wanted) or serial == wanted.zfill(32)


def below(name, suffix):
    return name.type is IdentifierType.DNS and is_below(name.base, suffix)


def has_word(row, names, word):
    digits = word.replace(":", "")
    return (
        any(beginning.startswith(word) for name in names for beginning in beginnings(name))
        or word == row["service"]
        or (
            len(digits) >= certificate_list.SERIAL_BEGINNING
            and digits.isalnum()
            and digits.isascii()
            and row["serial"].startswith(digits)
        )
        or word == row["account_id"]
    )


def beginnings(name):
    """`=a.example` is how a name is found by all of it."""
    labels = name.value.split(".") if name.type is IdentifierType.DNS else [name.value]
    return [f"={name.value}", *(".".join(labels[place:]) for place in range(len(labels)))]


async def everything(database, wanted, *, limit=1000, sort=CertificateSort.RECORDED_LAST):
    """Through all pages."""
    found, after = [], None
    while True:
        page = await certificate_list.find(database, wanted, now=NOW, limit=limit, sort=sort, after=after)
        assert len(page.items) <= limit
        found += page.items
        if page.end is None:
            return found
        assert len(page.items) == limit
        after = page.end


def in_order(rows, sort):
    column = sort.removeprefix("-")
    ordered = sorted(rows, key=lambda row: (row[column], row["serial"]), reverse=sort.startswith("-"))
    return [row["serial"] for row in ordered]


TEXTS = [
    *("a.example", "web", "WEB.a", "10.1", "2001:db8", "shop", "exam", "a.example mail", "=a.example"),
    *(serial_of(5), serial_of(6)[:6], serial_of(6)[:5], ":".join((serial_of(7)[:4], serial_of(7)[4:8]))),
    *("%", "_", "a_example", "a%", "we_", "*", "*.a", "'", "\\", "':*", "' | 'web", "a:*", "b & c", "!a"),
]
CONDITIONS = [
    *({"state": state} for state in CertificateState),
    *({"service": service} for service in ("shop", "none", "sho_", "%")),
    *({"services": services} for services in (("shop",), ("mail", "shop"), ("nobody",))),
    *({"name": identifiers.dns(name)} for name in ("a.example", "*.a.example", "example")),
    {"name": identifiers.ip("10.1.2.3")},
    *({"below": name} for name in ("a.example", "web.a.example", "example", "xample", "exampl", "test")),
    *({"profile": profile} for profile in ("server", "none", "serve_")),
    *({"issuer": issuer} for issuer in (ISSUER, OTHER)),
    *({"serial": serial} for serial in (serial_of(3), serial_of(4)[:6], "0", "ab", "0000", "%")),
    {"spki_sha256": hashlib.sha256(b"key" + bytes([3])).digest()},
    {"ends_after": NOW, "ends_until": NOW + 30 * DAY},
    {"recorded_since": NOW - 90 * DAY, "recorded_until": NOW - 70 * DAY},
    *({"text": text} for text in TEXTS),
]


WAYS = {
    "as it is": {},
    "look up, then collect": {"STRIDE": 2, "LITTLE": -1, "SORTED": -1},
    "look up, and look up all": {"STRIDE": 2, "LITTLE": -1, "MANY": -1, "SORTED": 1_000_000},
    "collect": {"LITTLE": 1_000_000, "MEANINGS": 1},
}


def go(monkeypatch, way):
    """One of the ways that a search can go: all find the same."""
    for name, value in WAYS[way].items():
        monkeypatch.setattr(certificate_list if name == "MEANINGS" else search, name, value)


@pytest.mark.parametrize("wanted", CONDITIONS, ids=lambda wanted: str(wanted)[:60])
async def test_each_condition_finds_what_it_means(stocked, monkeypatch, wanted):
    database, rows = stocked
    wanted = CertificateFilter(**wanted)
    for way, sort in itertools.product(WAYS, CertificateSort):
        with monkeypatch.context() as patched:
            go(patched, way)
            found = await everything(database, wanted, sort=sort)
        expected = in_order([row for row in rows if fits(row, wanted)], sort)
        assert [one.serial for one in found] == expected, (way, sort)
    signed = [one for one in found if one.signed]
    assert [one.state for one in signed] == [state_of(rows, one.serial) for one in signed]


def state_of(rows, serial):
    (row,) = (row for row in rows if row["serial"] == serial)
    row = {**row, "der": b"der"}
    return next(state for state in CertificateState if fits(row, CertificateFilter(state=state)))


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    chosen=st.lists(st.sampled_from(CONDITIONS), max_size=3),
    limit=st.sampled_from([1, 7, 1000]),
    sort=st.sampled_from(CertificateSort),
    way=st.sampled_from(sorted(WAYS)),
)
async def test_law_all_pages_are_the_filter_applied_to_all_rows(
    stocked, monkeypatch, *, chosen, limit, sort, way
):
    database, rows = stocked
    wanted = CertificateFilter(**{name: value for one in chosen for name, value in one.items()})
    go(monkeypatch, way)
    found = await everything(database, wanted, limit=limit, sort=sort)
    assert [one.serial for one in found] == in_order([row for row in rows if fits(row, wanted)], sort)


async def test_what_was_recorded_and_not_signed_is_neither_good_nor_expired(database_url):
    """OCSP says of it that it is unknown, and it can be revoked all the same."""
    async with records.stocked(database_url) as database:
        serials = [
            await records.certificate(database, der=None, tbs=b"tbs", not_after=end)
            for end in (NOW - DAY, NOW + DAY)
        ]
        revoked = NOW - DAY
        serials.append(
            await records.certificate(
                database, der=None, tbs=b"tbs", revoked=revoked, reason=4, status_changed=revoked
            )
        )
        assert {one.serial for one in await everything(database, CertificateFilter())} == set(serials)
        for state, expected in (("good", []), ("expired", []), ("revoked", serials[2:])):
            found = await everything(database, CertificateFilter(state=CertificateState(state)))
            assert [one.serial for one in found] == expected


async def test_pages_neither_lose_nor_repeat_rows_while_rows_are_added(stocked):
    database, rows = stocked
    wanted, sort = CertificateFilter(service="shop"), CertificateSort.NOT_AFTER
    there = in_order([row for row in rows if fits(row, wanted)], sort)
    found, after = [], None
    while True:
        page = await certificate_list.find(database, wanted, now=NOW, limit=3, sort=sort, after=after)
        found += [one.serial for one in page.items]
        if (after := page.end) is None:
            break
        for _ in range(2):
            await records.certificate(database, service="shop", not_after=NOW + timedelta(days=len(found)))
    assert [serial for serial in found if serial in there] == there
    assert len(found) == len(set(found))


@pytest.mark.parametrize("sort", CertificateSort)
async def test_rows_of_the_same_moment_are_told_apart(database_url, sort):
    async with records.stocked(database_url) as database:
        serials = {await records.certificate(database) for _ in range(9)}
        found = await everything(database, CertificateFilter(), limit=2, sort=sort)
        assert len(found) == 9
        assert {one.serial for one in found} == serials


async def test_what_was_issued_by_an_order_is_found_by_its_names(database_url, draft):
    """The statement that records writes what it is searched by."""
    async with records.stocked(database_url) as database:
        owner = await records.account(database)
        order = await records.order(database, owner, "web.a.example", "b.example")
        await records.validate(database, owner, order)
        serial = await records.issue(database, order, draft)
        for wanted in (
            CertificateFilter(name=identifiers.dns("b.example")),
            CertificateFilter(below="a.example"),
            CertificateFilter(text="web"),
            CertificateFilter(text=order.id),
            CertificateFilter(account=owner.id, order=order.id),
        ):
            (found,) = await everything(database, wanted)
            assert found.serial == serial
            assert found.signed
            assert found.order_id == order.id


def test_the_words_of_a_hundred_names_of_the_worst_kind_fit_into_the_database():
    """A tsvector has at most 1,048,575 bytes; what does not fit would stop the certificate."""
    worst = [identifiers.Identifier(IdentifierType.DNS, f"{n % 10}{n // 10}." * 84) for n in range(100)]
    assert sum(map(len, identifiers.search_words(worst))) < 1_048_575


async def test_a_name_of_very_many_labels_is_recorded_and_found(database_url):
    name = ".".join("a" * 126)
    async with records.stocked(database_url) as database:
        serial = await records.certificate(database, identifiers=[f"dns:{name}"])
        for wanted in (
            CertificateFilter(name=identifiers.dns(name)),
            CertificateFilter(below=name.partition(".")[2]),
        ):
            assert [one.serial for one in await everything(database, wanted)] == [serial]
