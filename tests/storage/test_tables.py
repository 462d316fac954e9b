"""Short lists: each filter and each order is what it says, of all rows, in pages of any length."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acme_ca.core.identifiers import dns
from acme_ca.core.limits import LimitKind
from acme_ca.core.names import NameRule
from acme_ca.core.scopes import covering
from acme_ca.storage import approvals, eab, keys, limits, policies, profiles, scopes, services, tokens
from acme_ca.storage.database import Database, migrate
from acme_ca.storage.search import Position, Table, Wanted
from tests.support import records
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.records import DAY, NOW

pytestmark = IN_SESSION_LOOP

ROWS = 60
NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
PEOPLE = ["ann", "Bea", "ops %", "ops _x", "zoë"]
WORDS = ["a.example", "b.example", "web.a.example", "%", "_", "A.EXAMPLE"]


def moment(number: int, period: int) -> datetime:
    """Some of them are the same: what is sorted by then is the id."""
    return NOW + timedelta(days=number * 7 % period - period // 2)


def perhaps(number: int, period: int, value: Any) -> Any:
    return None if number % period == 0 else value


def id_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`rows`: in Python; `insert`: how they get into the database. `filters`: what is wanted of which, and what fits in
    Python. `sorts`: the key in Python. `id`: what tells rows apart.
    """

    table: Table
    sort: Any
    page: Any
    rows: list[dict[str, Any]]
    insert: str
    filters: list[tuple[str, Any, Any]]
    sorts: dict[str, Any]
    id: Any
    found_id: Any


def created(row):
    return row["created"]


def dates(field="created"):
    return [
        (f"{field}_since", NOW, lambda row: row[field] >= NOW),
        (f"{field}_before", NOW, lambda row: row[field] < NOW),
    ]


def soon(fits=lambda _row: True):
    return (
        "expiring_within",
        10 * DAY,
        lambda row: fits(row) and row["expires"] is not None and NOW < row["expires"] <= NOW + 10 * DAY,
    )


def in_text(*fields):
    def fits(text):
        return lambda row: any(
            text.lower() in line.lower()
            for field in fields
            for line in (row[field] if isinstance(row[field], list) else [row[field] or ""])
        )

    return [
        ("text", text, fits(text))
        for text in (
            *("ops", "%", "_", "A.ex", "nowhere", id_of(7)[:6], "zoë"),
            *("[", "]", "[Night", '"', '", "', '"x"', ", ", "\\", "\\y", "\\\\"),
        )
    ]


# ---------------------------------------------------------------- EAB keys


def eab_key(number):
    return {
        "id": id_of(number),
        "owner": PEOPLE[number % 5],
        "service": [None, "shop", "mail_1"][number % 3],
        "contact": [[], ["mailto:a.example"], ["ops%", "+1"]][number % 3],
        "max_accounts": perhaps(number, 4, 1 + number % 3),
        "accounts": number % 2,
        "created": moment(number, 40),
        "approved": perhaps(number, 7, NOW),
        "expires": perhaps(number, 3, moment(number, 31)),
        "revoked": None if number % 6 else NOW,
    }


def state_of_key(row):
    if row["revoked"]:
        return "revoked"
    if row["approved"] is None:
        return "pending"
    if row["expires"] and row["expires"] <= NOW:
        return "expired"
    used_up = row["max_accounts"] is not None and row["accounts"] >= row["max_accounts"]
    return "used_up" if used_up else "active"


EAB_KEYS = Case(
    table=eab.KEYS,
    sort=eab.EabKeySort,
    page=eab.page,
    rows=[eab_key(number) for number in range(ROWS)],
    insert="""INSERT INTO eab_key (id, owner, service, contact, max_accounts, accounts, created, approved, expires, revoked, hmac_key)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, sha256('x'))""",
    filters=[
        *(
            ("owner", owner, lambda row, owner=owner: row["owner"] == owner)
            for owner in ("ann", "ops %", "%")
        ),
        *(
            ("service", one, lambda row, one=one: row["service"] == one)
            for one in ("shop", "mail_", "mail_1")
        ),
        ("services", ["shop", "x"], lambda row: row["service"] == "shop"),
        ("services", [], lambda _row: False),
        ("contact", "ops%", lambda row: "ops%" in row["contact"]),
        *(
            ("state", state, lambda row, state=state: state_of_key(row) == state)
            for state in ("pending", "active", "used_up", "expired", "revoked")
        ),
        soon(lambda row: row["approved"] and not row["revoked"]),
        *in_text("id", "owner", "service", "contact"),
        *dates(),
    ],
    sorts={
        "created": created,
        "expires": lambda row: row["expires"] or NEVER,
        "owner": lambda row: row["owner"].encode(),
        "accounts": lambda row: row["accounts"],
    },
    id=lambda row: row["id"],
    found_id=lambda key: key.id,
)


# ---------------------------------------------------------------- services


def service(number):
    return {
        "id": f"s{number * 13 % ROWS}",
        "state": ["pending", "approved", "retired"][number % 3],
        "created": moment(number, 40),
        "changed": moment(number, 23),
        "name": PEOPLE[number * 3 % 5],
        "owner": PEOPLE[number % 5],
        "contacts": [[f"c{number}@a.example"], ["ops [night]", 'a "x" b'], ["c\\y, z"], []][number % 4],
        "domains": [["a.example", "*.b.example"], [], ["web.a.example"]][number % 3],
        "tags": [["x"], ["x", "y%"], []][number % 3],
    }


SERVICES = Case(
    table=services.SERVICES,
    sort=services.ServiceSort,
    page=services.page,
    rows=[service(number) for number in range(ROWS)],
    insert="""INSERT INTO service (id, state, created, changed, body, approved, retired)
              SELECT $1, $2, $3::timestamptz, $4, jsonb_build_object('name', $5::text, 'owner', $6::text, 'contacts', $7::text[], 'domains', $8::text[],
                  'tags', $9::text[]), CASE WHEN $2 = 'approved' THEN $3::timestamptz END, CASE WHEN $2 = 'retired' THEN $3::timestamptz END""",
    filters=[
        *(
            ("state", one, lambda row, one=one: row["state"] == one)
            for one in ("pending", "approved", "retired")
        ),
        *(("tag", one, lambda row, one=one: one in row["tags"]) for one in ("x", "y%", "y")),
        *(("owner", one, lambda row, one=one: row["owner"] == one) for one in ("Bea", "ops _")),
        *(
            ("domain", one, lambda row, one=one: one in row["domains"])
            for one in ("*.b.example", "a.example", "%")
        ),
        ("services", ["s1", "s2", "t"], lambda row: row["id"] in {"s1", "s2"}),
        ("services", [], lambda _row: False),
        *in_text("id", "name", "owner", "contacts", "domains"),
        *dates(),
    ],
    sorts={
        "service_id": lambda _row: 0,
        "name": lambda row: row["name"].encode(),
        "owner": lambda row: row["owner"].encode(),
        "created": created,
        "changed": lambda row: row["changed"],
    },
    id=lambda row: row["id"],
    found_id=lambda one: one.service.service_id,
)


# ---------------------------------------------------------------- tokens


def token(number):
    return {
        "id": id_of(number),
        "name": f"{PEOPLE[number % 4]}{number}",
        "certificate_name": perhaps(number, 3, f"dns:t{number}.a.example"),
        "role": ["viewer", "operator", "administrator"][number % 3],
        "services": [[], ["shop"], ["mail", "shop"]][number % 3],
        "created": moment(number, 40),
        "made_by": f"operator:{PEOPLE[number % 3]}",
        "expires": perhaps(number, 3, moment(number, 31)),
        "revoked": None if number % 5 else NOW,
        "last_used": perhaps(number, 4, moment(number, 60)),
    }


def state_of_token(row):
    if row["revoked"]:
        return "revoked"
    return "expired" if row["expires"] and row["expires"] <= NOW else "active"


TOKENS = Case(
    table=tokens.TOKENS,
    sort=tokens.TokenSort,
    page=tokens.page,
    rows=[token(number) for number in range(ROWS)],
    insert="""INSERT INTO api_token (id, name, certificate_name, role, services, created, made_by, expires, revoked, last_used, secret_sha256)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN $3::text IS NULL THEN sha256('x') END)""",
    filters=[
        *(("state", one, lambda row, one=one: state_of_token(row) == one) for one in tokens.TokenState),
        ("role", "operator", lambda row: row["role"] == "operator"),
        *(("service", one, lambda row, one=one: one in row["services"]) for one in ("shop", "mail", "sho_")),
        *(
            ("made_by", f"operator:{one}", lambda row, one=one: row["made_by"] == f"operator:{one}")
            for one in ("ann", "%")
        ),
        ("unused_since", NOW, lambda row: row["last_used"] is None or row["last_used"] < NOW),
        soon(lambda row: not row["revoked"]),
        *in_text("id", "name", "certificate_name"),
        *dates(),
    ],
    sorts={
        "created": created,
        "expires": lambda row: row["expires"] or NEVER,
        "last_used": lambda row: row["last_used"] or LONG_AGO,
        "name": lambda row: row["name"].encode(),
    },
    id=lambda row: row["id"],
    found_id=lambda one: one.id,
)


# ---------------------------------------------------------------- scopes

ACCOUNT = "a" * 32
RULES = [
    "exact:a.example",
    "exact:*.a.example",
    "suffix:a.example",
    "suffix:example",
    "wildcard:*.a.example",
    "suffix:b.example",
]


def scope(number):
    return {
        "id": id_of(number),
        "account_id": ACCOUNT if number % 2 else None,
        "eab_key_id": None if number % 2 else EAB_KEYS.rows[number % 4]["id"],
        "rule": RULES[number % 6],
        "reason": f"because {WORDS[number % 6]}",
        "approved_by": f"operator:{PEOPLE[number % 3]}",
        "created": moment(number, 40),
        "expires": moment(number, 31),
        "revoked": None if number % 5 else NOW,
    }


def covers(name):
    def fits(row):
        return NameRule.parse(row["rule"]).matches(name)

    return fits


def state_of_scope(row):
    if row["revoked"]:
        return "revoked"
    return "expired" if row["expires"] <= NOW else "living"


SCOPES = Case(
    table=scopes.SCOPES,
    sort=scopes.ScopeSort,
    page=scopes.page,
    rows=[scope(number) for number in range(ROWS)],
    insert="""INSERT INTO approved_scope (id, account_id, eab_key_id, rule, reason, approved_by, created, expires, revoked)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)""",
    filters=[
        ("account", ACCOUNT, lambda row: row["account_id"] == ACCOUNT),
        ("eab_key", EAB_KEYS.rows[2]["id"], lambda row: row["eab_key_id"] == EAB_KEYS.rows[2]["id"]),
        *(
            ("state", one, lambda row, one=one: state_of_scope(row) == one)
            for one in ("living", "expired", "revoked")
        ),
        *(
            ("rules", list(map(str, covering(dns(name)))), covers(dns(name)))
            for name in (
                "a.example",
                "*.a.example",
                "web.a.example",
                "x.web.a.example",
                "*.web.a.example",
                "b.example",
                "c.test",
            )
        ),
        ("approved_by", "operator:ann", lambda row: row["approved_by"] == "operator:ann"),
        soon(lambda row: not row["revoked"]),
        *in_text("rule", "reason"),
        *dates(),
    ],
    sorts={
        "created": created,
        "expires": lambda row: row["expires"],
        "approved_by": lambda row: row["approved_by"].encode(),
    },
    id=lambda row: row["id"],
    found_id=lambda one: one.id,
)


# ---------------------------------------------------------------- approvals


def approval(number):
    decision = [None, None, "approved", "rejected"][number % 4]
    return {
        "id": id_of(number),
        "action": ["issuers.retire", "profiles.save", "x_%"][number % 3],
        "requested_by": PEOPLE[number % 3],
        "created": moment(number, 40),
        "expires": moment(number, 31),
        "decided": NOW if decision else None,
        "decided_by": PEOPLE[3] if decision else None,
        "decision": decision,
    }


def state_of_approval(row):
    return row["decision"] or ("expired" if row["expires"] <= NOW else "waiting")


APPROVALS = Case(
    table=approvals.APPROVALS,
    sort=approvals.ApprovalSort,
    page=approvals.page,
    rows=[approval(number) for number in range(ROWS)],
    insert="""INSERT INTO approval (id, action, requested_by, created, expires, decided, decided_by, decision, request)
              VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '{}')""",
    filters=[
        *(
            ("state", one, lambda row, one=one: state_of_approval(row) == one)
            for one in approvals.ApprovalState
        ),
        *(("action", one, lambda row, one=one: row["action"] == one) for one in ("issuers.retire", "x__")),
        *(("requested_by", one, lambda row, one=one: row["requested_by"] == one) for one in ("ann", "%")),
        ("decided_by", PEOPLE[3], lambda row: row["decided_by"] == PEOPLE[3]),
        *dates(),
    ],
    sorts={
        "created": created,
        "expires": lambda row: row["expires"],
        "action": lambda row: row["action"].encode(),
        "requested_by": lambda row: row["requested_by"].encode(),
    },
    id=lambda row: row["id"],
    found_id=lambda one: one.id,
)


# ---------------------------------------------------------------- limits


def override(number):
    kind = list(LimitKind)[number % 3].value if number % 10 else "of-a-later-release"
    subject = f"{WORDS[number % 6]}{number}"
    return {
        "bucket": f"{kind}:{subject}",
        "kind": kind,
        "subject": subject,
        "reason": PEOPLE[number % 5],
        "created": moment(number, 40),
        "expires": perhaps(number, 3, moment(number, 31)),
    }


OVERRIDES = Case(
    table=limits.OVERRIDES,
    sort=limits.OverrideSort,
    page=limits.page_of_overrides,
    rows=[
        row
        for row in map(override, range(ROWS))
        if row["kind"] in set(LimitKind) and (row["expires"] is None or row["expires"] > NOW)
    ],
    insert="""INSERT INTO limit_override (bucket, kind, subject, reason, created, expires, amount, period)
              VALUES ($1, $2, $3, $4, $5, $6, 1, 60)""",
    filters=[
        *(("kind", one.value, lambda row, one=one: row["kind"] == one) for one in list(LimitKind)[:4]),
        *(("subject", one, lambda row, one=one: row["subject"] == one) for one in ("a.example6", "%", "_4")),
        *in_text("subject", "reason"),
        soon(),
        *dates(),
    ],
    sorts={
        "kind": lambda _row: 0,
        "subject": lambda row: row["subject"].encode(),
        "created": created,
        "expires": lambda row: row["expires"] or NEVER,
    },
    id=lambda row: row["bucket"],
    found_id=lambda one: f"{one.kind}:{one.subject}",
)


def pause(number):
    return {
        "account_id": ["b" * 32, ACCOUNT][number % 2],
        "identifier": f"dns:n{number // 2}.a.example",
        "failures": 1 + number % 4,
        "failed": moment(number, 20),
        "paused": perhaps(number, 5, moment(number, 40)),
    }


PAUSES = Case(
    table=limits.PAUSES,
    sort=limits.PauseSort,
    page=limits.page_of_pauses,
    rows=[row for row in map(pause, range(ROWS)) if row["paused"]],
    insert="INSERT INTO pause (account_id, identifier, failures, failed, paused) VALUES ($1, $2, $3, $4, $5)",
    filters=[
        ("account", ACCOUNT, lambda row: row["account_id"] == ACCOUNT),
        *(
            ("identifier", one, lambda row, one=one: row["identifier"] == one)
            for one in ("dns:n7.a.example", "dns:%")
        ),
        *dates("paused"),
    ],
    sorts={
        "account": lambda _row: 0,
        "identifier": lambda row: row["identifier"].encode(),
        "failures": lambda row: row["failures"],
        "failed": lambda row: row["failed"],
        "paused": lambda row: row["paused"],
    },
    id=lambda row: f"{row['account_id']} {row['identifier']}",
    found_id=lambda one: f"{one.account} {one.identifier}",
)


# ---------------------------------------------------------------- block list, policies, profiles


def blocked_key(number):
    return {
        "spki_sha256": hashlib.sha256(bytes([number])).digest(),
        "comment": f"{WORDS[number % 6]} {PEOPLE[number % 5]}",
        "actor": f"operator:{PEOPLE[number % 3]}",
        "created": moment(number, 40),
    }


BLOCKED = Case(
    table=keys.BLOCKED,
    sort=keys.BlockedKeySort,
    page=keys.blocked,
    rows=[blocked_key(number) for number in range(ROWS)],
    insert="INSERT INTO blocked_key (spki_sha256, comment, actor, created) VALUES ($1, $2, $3, $4)",
    filters=[
        (
            "key",
            hashlib.sha256(bytes([3])).digest(),
            lambda row: row["spki_sha256"] == hashlib.sha256(bytes([3])).digest(),
        ),
        ("actor", "operator:ann", lambda row: row["actor"] == "operator:ann"),
        *in_text("comment"),
        *dates(),
    ],
    sorts={"created": created, "actor": lambda row: row["actor"].encode()},
    id=lambda row: row["spki_sha256"].hex(),
    found_id=lambda one: one.spki_sha256.hex(),
)


def policy(number):
    some = [*RULES, r"regex:^[a-z]+\.example$"]
    rules = {"allow": [some[number % 7]], "deny": [some[(number + 1) % 7]] if number % 2 else []}
    return {
        "scope": f"service:{number * 13 % ROWS}" if number else "server",
        "changed": moment(number, 40),
        "body": json.dumps(rules),
    }


def rules_of(row):
    body = json.loads(row["body"])
    return body["allow"] + body["deny"]


POLICIES = Case(
    table=policies.POLICIES,
    sort=policies.PolicySort,
    page=policies.page,
    rows=[policy(number) for number in range(ROWS)],
    insert="INSERT INTO policy (scope, changed, body) VALUES ($1, $2, $3)",
    filters=[
        *(("rule", one, lambda row, one=one: one in rules_of(row)) for one in (RULES[1], "suffix:exampl_")),
        *(
            ("text", text, lambda row, text=text: any(text in one for one in [row["scope"], *rules_of(row)]))
            for text in ("b.example", "service:1", "%", "server", "[a-z]", r"]+\.ex", "[", '"', ", ")
        ),
        *dates("changed"),
    ],
    sorts={"scope": lambda _row: 0, "changed": lambda row: row["changed"]},
    id=lambda row: row["scope"],
    found_id=lambda one: one.scope,
)


def profile(number):
    name, version = f"p{number * 7 % 20}", 1 + number // 20
    body = {"name": name, "description": PEOPLE[number % 5], "offered": [True, False, "what"][number % 3]}
    return {
        "name": name,
        "version": version,
        "body": json.dumps(body),
        "built_in": number % 4 == 0,
        "created": moment(number, 40),
        "withdrawn": None if number % 5 else NOW,
    }


def for_clients(row):
    return json.loads(row["body"])["offered"] is True


PROFILES = Case(
    table=profiles.PROFILES,
    sort=profiles.ProfileSort,
    page=profiles.page,
    rows=[row for row in map(profile, range(ROWS)) if row["version"] == 3],
    insert="INSERT INTO profile (name, version, body, built_in, created, withdrawn) VALUES ($1, $2, $3, $4, $5, $6)",
    filters=[
        *(
            ("offered", one, lambda row, one=one: (for_clients(row) and not row["withdrawn"]) is one)
            for one in (True, False)
        ),
        *(("built_in", one, lambda row, one=one: row["built_in"] is one) for one in (True, False)),
        *(("own", one, lambda row, one=one: (not for_clients(row)) is one) for one in (True, False)),
        *(
            (
                "text",
                text,
                lambda row, text=text: (
                    text in row["name"] or text in json.loads(row["body"])["description"].lower()
                ),
            )
            for text in ("ops", "p1", "%")
        ),
    ],
    sorts={"name": lambda _row: 0, "created": created},
    id=lambda row: row["name"],
    found_id=lambda one: one.ref.name,
)

CASES = {
    "EAB keys": EAB_KEYS,
    "services": SERVICES,
    "tokens": TOKENS,
    "scopes": SCOPES,
    "approvals": APPROVALS,
    "overrides": OVERRIDES,
    "pauses": PAUSES,
    "block list": BLOCKED,
    "policies": POLICIES,
    "profiles": PROFILES,
}
ALL_ROWS = {  # with those that are no part of the list
    "overrides": [override(number) for number in range(ROWS)],
    "pauses": [pause(number) for number in range(ROWS)],
    "profiles": [profile(number) for number in range(ROWS)],
}


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def stocked(postgres):
    """A database with all the rows, for all tests here."""
    made = await postgres.create()
    async with Database.open(postgres.url(made), connections=4) as database:
        for id_ in (ACCOUNT, "b" * 32):
            await database.execute(
                """INSERT INTO account (id, status, jwk, thumbprint, spki_sha256, contact, created, created_from)
                   VALUES ($1, 'valid', '{}', $2, sha256($3), '{}', now(), '')""",
                id_,
                id_,
                id_.encode(),
            )
        for name, case in CASES.items():
            for row in ALL_ROWS.get(name, case.rows):
                await database.execute(case.insert, *row.values())
        yield database
    await postgres.drop(made)


async def everything(database, case, filters, *, sort, limit=1000):
    """The ids on all pages."""
    found, after = [], None
    for _ in range(ROWS + 1):
        wanted = Wanted(filters=filters, sort=sort, after=after, limit=limit)
        page = await case.page(database, wanted, now=NOW)
        assert len(page.items) <= limit
        found += map(case.found_id, page.items)
        if page.end is None:
            return found
        assert len(page.items) == limit
        after = page.end
    raise AssertionError(f"the pages go on for ever: {found[:20]}")


def expected(case, fits, sort):
    key = case.sorts[sort.removeprefix("-")]
    rows = [row for row in case.rows if all(one(row) for one in fits)]
    ordered = sorted(rows, key=lambda row: (key(row), case.id(row)), reverse=sort.startswith("-"))
    return [case.id(row) for row in ordered]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_each_filter_and_order_of_a_list_is_tested_here(case):
    assert {name for name, *_ in case.filters} == set(case.table.filters)
    assert set(case.sorts) == set(case.table.sorts)
    assert set(get_args(case.sort)) == {f"{way}{name}" for name in case.sorts for way in ("", "-")}


QUESTIONS = [
    pytest.param(case, *question, id=f"{name}-{question[0]}-{question[1]}"[:60])
    for name, case in CASES.items()
    for question in case.filters
]


@pytest.mark.parametrize(("case", "name", "value", "fits"), QUESTIONS)
async def test_each_filter_finds_what_it_means_in_each_order(stocked, case, name, value, fits):
    for sort in get_args(case.sort):
        assert await everything(stocked, case, {name: value}, sort=sort) == expected(case, [fits], sort), sort


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_pages_follow_each_other_in_each_order(stocked, case):
    """Also where many rows have the same value, or none."""
    for sort in get_args(case.sort):
        assert await everything(stocked, case, {}, sort=sort, limit=2) == expected(case, [], sort), sort


async def test_the_filters_tell_rows_apart():
    """Each list has filters that some rows fit and others do not."""
    for name, case in CASES.items():
        telling = {
            filter_
            for filter_, _, fits in case.filters
            if 0 < len(expected(case, [fits], get_args(case.sort)[0])) < len(case.rows)
        }
        assert telling == {filter_ for filter_, *_ in case.filters}, name


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
async def test_text_is_found_as_it_was_written_whatever_the_locale(postgres, locale):
    """And in another case, where the database knows the case of its letters."""
    made = await postgres.create_empty(locale=locale)
    await migrate(postgres.url(made))
    async with Database.open(postgres.url(made), connections=1) as database:
        await database.execute(EAB_KEYS.insert, *(EAB_KEYS.rows[3] | {"owner": "Jörg Österle"}).values())
        for text in ("Jörg Österle", "jörg", "ÖSTERLE" if locale == "C.UTF-8" else "Österle"):
            assert await everything(database, EAB_KEYS, {"text": text}, sort="created"), text
    await postgres.drop(made)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(choice=st.data())
async def test_law_all_pages_are_the_filters_applied_to_all_rows(stocked, choice):
    case = CASES[choice.draw(st.sampled_from(sorted(CASES)))]
    chosen = choice.draw(st.lists(st.sampled_from(case.filters), max_size=3, unique_by=lambda one: one[0]))
    sort = choice.draw(st.sampled_from(get_args(case.sort)))
    limit = choice.draw(st.sampled_from([2, 7, 1000]))
    found = await everything(
        stocked, case, {name: value for name, value, _ in chosen}, sort=sort, limit=limit
    )
    assert found == expected(case, [fits for *_, fits in chosen], sort)


async def test_rows_that_come_and_go_make_nobody_see_another_twice_or_not(database_url):
    """Also when the row goes behind which the next page begins."""
    async with records.stocked(database_url) as database:
        for row in EAB_KEYS.rows:
            await database.execute(EAB_KEYS.insert, *row.values())
        for sort in get_args(eab.EabKeySort):
            there = expected(EAB_KEYS, [], sort)
            found, after, gone = [], None, []
            while True:
                wanted = Wanted(filters={}, sort=sort, after=after, limit=4)
                page = await eab.page(database, wanted, now=NOW)
                found += [key.id for key in page.items if key.owner != "new"]
                if (after := page.end) is None:
                    break
                gone.append(found[-1])
                await database.execute("DELETE FROM eab_key WHERE id = $1", found[-1])
                new = EAB_KEYS.rows[3] | {"id": f"{len(gone)}{sort}", "owner": "new"}
                await database.execute(EAB_KEYS.insert, *new.values())
            assert found == there
            await database.execute("DELETE FROM eab_key WHERE owner = 'new'")
            for row in EAB_KEYS.rows:
                if row["id"] in gone:
                    await database.execute(EAB_KEYS.insert, *row.values())


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1])
async def test_a_position_beyond_all_rows_is_one_all_the_same(stocked, value):
    """A cursor may say any number."""
    for page, sort in ((eab.page, "accounts"), (limits.page_of_pauses, "failures")):
        wanted = Wanted(filters={}, sort=sort, after=Position("", value), limit=1000)
        found = (await page(stocked, wanted, now=NOW)).items
        assert bool(found) is (value < 0)
