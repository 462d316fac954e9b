"""Who may do what: every role against every route, and every kind of credential against the door."""

from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from acme_ca.admin.access import ROLES, Permission, Principal, Role
from acme_ca.admin.frame import PREFIXES
from acme_ca.admin.routes import ROUTES
from acme_ca.core.codes import Code
from tests.support.admin import Operator, assert_refused
from tests.support.fixtures import IN_SESSION_LOOP

pytestmark = IN_SESSION_LOOP

CLOSED = [route for route in ROUTES if route.permission is not None]
NO_BODY = b"[]"
"""What every route refuses, after it has asked who may."""


def url(route):
    return "/".join("0" if part.startswith("{") else part for part in route.path.split("/"))


async def ask(who, route, **asking):
    return await who.ask(route.method, url(route), NO_BODY, **asking)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def by_role(ca):
    return {role: await ca.operator(role) for role in Role}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("route", CLOSED, ids=lambda route: route.name)
async def test_the_matrix_of_roles_and_routes(by_role, role, route):
    answer = await ask(by_role[role], route)
    if route.permission in ROLES[role]:
        assert answer.status == 400, (answer, "let in, and told that the body is none")
    else:
        assert_refused(answer, Code.FORBIDDEN, role, route.permission, status=403)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("route", CLOSED, ids=lambda route: route.name)
async def test_without_a_credential_nothing_opens(ca, route, prefix):
    answer = await ask(Operator(ca.client, None), route, prefix=prefix)
    assert_refused(answer, Code.CREDENTIALS_MISSING, status=401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("route", CLOSED, ids=lambda route: route.name)
async def test_a_token_for_some_services_opens_only_what_keeps_to_them(ca, route, scoped):
    answer = await ask(scoped, route)
    if route.scoped:
        assert answer.status == 400
    else:
        assert_refused(answer, Code.FORBIDDEN, "services", status=403)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scoped(ca):
    return await ca.operator(Role.ADMINISTRATOR, services=("covina",))


async def test_what_each_role_is_for():
    """The table itself: what must never slip into a role."""
    assert all(one.endswith(":read") or one is Permission.EXPLAIN for one in ROLES[Role.VIEWER])
    assert not {Permission.AUDIT_READ, Permission.TOKENS_READ} & ROLES[Role.VIEWER]
    issuing = {Permission.CERTIFICATES_ISSUE, Permission.CERTIFICATES_ISSUE_ANY, Permission.EAB_WRITE}
    assert not issuing & ROLES[Role.SECURITY_OFFICER], "who proves what happened does not make it happen"
    ruling = {
        Permission.ISSUERS_WRITE,
        Permission.POLICIES_WRITE,
        Permission.PROFILES_WRITE,
        Permission.SCOPES_WRITE,
        Permission.TOKENS_WRITE,
        Permission.CERTIFICATES_ISSUE_ANY,
    }
    for role in (Role.VIEWER, Role.OPERATOR, Role.SECURITY_OFFICER):
        assert not ruling & ROLES[role]
    assert Permission.APPROVALS_DECIDE not in ROLES[Role.OPERATOR]
    assert ROLES[Role.ADMINISTRATOR] == set(Permission)


async def test_every_permission_opens_something_and_every_name_is_one_route():
    names = [route.name for route in ROUTES]
    assert len(set(names)) == len(names)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


async def test_a_role_that_nobody_knows_may_nothing():
    with pytest.raises(KeyError):
        Principal(name="x", role="king", source="").may(Permission.TOKENS_READ)


# ---------------------------------------------------------------- tokens at the door


SHAPES = [
    "",
    "x",
    "acmeca_",
    "acmeca_0123456789abcdef_" + "0" * 64,
    "acmeca_0123456789abcdef_" + "0" * 65,
    "ACMECA_0123456789ABCDEF_" + "0" * 64,
    "acmeca_" + "%" * 16 + "_" + "_" * 64,
]


@pytest.mark.parametrize("token", SHAPES)
async def test_a_wrong_token_opens_nothing(new_ca, token):
    async with new_ca() as ca:
        answer = await Operator(ca.client, token).ask("GET", "/tokens")
        assert_refused(answer, Code.CREDENTIALS_WRONG, status=401)


async def test_another_scheme_is_no_token(ca):
    nobody = Operator(ca.client, None)
    for shown in ("Basic YTpi", "bearer", "Token acmeca_1", ""):
        answer = await nobody.ask("GET", "/tokens", headers={"Authorization": shown})
        assert answer.status == 401


async def test_the_secret_of_another_token_opens_nothing(new_ca):
    async with new_ca() as ca:
        one, another = await ca.operator(), await ca.operator()
        mixed = "_".join((*one.token.split("_")[:2], another.token.split("_")[2]))
        answer = await Operator(ca.client, mixed).ask("GET", "/tokens")
        assert_refused(answer, Code.CREDENTIALS_WRONG, status=401)
        assert (await one.get("/tokens"))["items"]


async def test_a_revoked_token_is_dead_at_once_and_an_expired_one_too(new_ca):
    async with new_ca() as ca:
        one, another = await ca.operator(), await ca.operator()
        await one.post(f"/tokens/{another.token.split('_')[1]}/revoke")
        assert_refused(await another.ask("GET", "/tokens"), Code.CREDENTIALS_WRONG, status=401)
        late = await ca.operator(expires=datetime.now(UTC) - timedelta(seconds=1))
        assert_refused(await late.ask("GET", "/tokens"), Code.CREDENTIALS_WRONG, status=401)


async def test_wrong_tokens_make_their_source_wait_longer_and_longer(new_ca):
    """A good token's lock is its own: somebody else's wrong ones do not keep it out."""
    async with new_ca() as ca:
        good = await ca.operator()
        guesses = [Operator(ca.client, f"acmeca_{number:016x}_{'0' * 64}") for number in range(9)]
        answers = [await guess.ask("GET", "/tokens") for guess in guesses]
        assert [answer.status for answer in answers[:6]] == [401] * 6
        refused = [answer for answer in answers[6:] if answer.status == 429]  # not who came when it was over
        locked = assert_refused(refused[-1], Code.LOCKED_OUT, "wait", status=429)
        assert int(refused[-1].headers["Retry-After"]) >= 1
        assert "acmeca" not in str(locked)
        assert (await good.get("/tokens"))["items"]


async def test_guessing_one_tokens_secret_locks_that_token_for_the_source(new_ca):
    async with new_ca() as ca:
        good = await ca.operator()
        guess = Operator(ca.client, good.token[:-1] + ("0" if good.token[-1] != "0" else "1"))
        for _ in range(7):
            await guess.ask("GET", "/tokens")
        await ca.sql(
            "UPDATE login_failure SET until = until + interval '1 minute'"
        )  # it is a second, to begin with
        assert_refused(await good.ask("GET", "/tokens"), Code.LOCKED_OUT, status=429)
        await ca.sql("UPDATE login_failure SET until = now() - interval '1 second'")
        assert (await good.get("/tokens"))["items"]
        assert await ca.sql("SELECT count(*) FROM login_failure") == 0, "forgiven"


@pytest.mark.parametrize("shown", ["good", "wrong"])
async def test_a_lock_of_a_clock_that_was_ahead_is_none(new_ca, shown):
    """Nobody waits for years. Wrong credentials lock again."""
    async with new_ca() as ca:
        good = await ca.operator()
        guess = Operator(ca.client, good.token[:-1] + ("0" if good.token[-1] != "0" else "1"))
        for _ in range(7):
            await guess.ask("GET", "/tokens")
        await ca.sql("UPDATE login_failure SET until = until + interval '10 years', failures = 9")
        answer = await {"good": good, "wrong": guess}[shown].ask("GET", "/tokens")
        assert answer.status == {"good": 200, "wrong": 401}[shown]
        if shown == "wrong":
            assert await ca.sql("SELECT until - now() < interval '16 minutes' FROM login_failure")
            assert_refused(await good.ask("GET", "/tokens"), Code.LOCKED_OUT, status=429)


async def test_tokens_are_in_no_log_and_in_no_table(new_ca):
    async with new_ca() as ca:
        one = await ca.operator()
        made = await one.post("/tokens", {"name": "robot", "role": "viewer"}, status=201)
        wrong = Operator(ca.client, made["token"][:-1] + "g")
        await wrong.ask("GET", "/tokens")
        secret = made["token"].rpartition("_")[2]
        assert secret not in str(ca.log.entries)
        for table in ("api_token", "audit_event", "login_failure"):
            assert secret not in str(await ca.sql(f"SELECT json_agg(t) FROM {table} t"))
