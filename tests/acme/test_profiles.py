"""draft-ietf-acme-profiles: what is offered, who may ask for what, and what an order keeps."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from acme_ca.ca.profiles import BUILT_IN, SECOND, SERVER
from acme_ca.config import ConfigurationError
from acme_ca.core.actors import Actor
from acme_ca.core.problems import ERROR_NAMESPACE, ErrorType
from acme_ca.core.profiles import Profile
from acme_ca.storage import profiles as store
from acme_ca.storage.database import Database
from tests.support.client import PATIENCE, Order, assert_problem, prove_by_dns
from tests.support.eab import add_eab_key, bound_account, revoke_eab_key
from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import csr, extensions_of

pytestmark = IN_SESSION_LOOP

INVALID, REJECTED, BAD_CSR = ErrorType.INVALID_PROFILE, ErrorType.REJECTED_IDENTIFIER, ErrorType.BAD_CSR
MODEL_KEY = rsa.generate_private_key(public_exponent=65537, key_size=4096)


def server_with(name: str, **differences) -> Profile:
    return Profile(**(SERVER.model_dump() | {"name": name, "description": f"The {name}."} | differences))


async def save(ca, profile: Profile) -> int:
    """As an operator does; the running server is not told."""
    async with Database.open(ca.dsn, connections=1) as database:
        version = await store.save(
            database, profile, built_in=False, actor=Actor("operator"), now=datetime.now(UTC)
        )
    assert version is not None
    return version


async def withdraw(ca, name: str) -> None:
    async with Database.open(ca.dsn, connections=1) as database:
        assert await store.withdraw(database, name, actor=Actor("operator"), now=datetime.now(UTC))
    await refresh(ca)


async def refresh(ca) -> None:
    """What the loop of each worker does every two seconds."""
    await ca.application.profiles.refresh()


@pytest_asyncio.fixture(loop_scope="session")
async def saved(ca):
    """Saves a profile with these differences from `server`, under a name of its own."""
    numbers = iter(range(100))

    async def save_one(**differences) -> str:
        name = f"{next_name()}_{next(numbers)}"
        await save(ca, server_with(name, **differences))
        return name

    def next_name() -> str:
        return ca.name().partition(".")[0]

    return save_one


async def offered(ca) -> dict[str, str]:
    return (await ca.client.request("GET", ca.client.url("directory"))).json["meta"]["profiles"]


async def until_offered(ca, name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while name not in await offered(ca):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def leaf_of(order: Order, ca, request: bytes | None = None) -> x509.Certificate:
    leaf, *_ = await order.issue(ca.web, request)
    return leaf


# ---------------------------------------------------------------- the directory


async def test_the_directory_describes_what_is_offered(ca):
    found = await offered(ca)
    for name, profile in BUILT_IN.items():
        assert found.get(name) == (profile.description if profile.offered else None)


async def test_what_is_saved_is_offered_without_a_restart(ca, saved):
    name = await saved(description="Just saved.")
    assert name not in await offered(ca)
    await refresh(ca)
    assert (await offered(ca))[name] == "Just saved."


async def test_every_worker_looks_for_itself(new_ca):
    """The loop, at work in two processes' stead."""
    async with new_ca() as ca, new_ca(dsn=ca.dsn, keys=ca.keys) as other:
        await save(ca, server_with("fresh"))
        loops = [asyncio.create_task(each.application.background()) for each in (ca, other)]
        try:
            for each in (ca, other):
                await until_offered(each, "fresh")
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)


# ---------------------------------------------------------------- newOrder


async def test_an_order_shows_the_profile_that_it_asked_for(ca, account):
    order = await account.order(ca.name(), profile="shortlived")
    assert order.object["profile"] == "shortlived"
    assert (await order.read())["profile"] == "shortlived"


async def test_an_order_that_asks_for_none_shows_the_default(ca, account):
    for members in ({}, {"profile": None}):
        order = await account.order(ca.name(), **members)
        assert order.object["profile"] == "server"


@pytest.mark.parametrize(
    "profile", ["nonesuch", "", "Server", "server ", "ocsp_responder", "acme_server", "%", "\0"]
)
async def test_a_profile_that_is_not_offered_is_refused(ca, account, profile):
    problem = assert_problem(await account.new_order(ca.name(), profile=profile), INVALID, status=400)
    assert "nonesuch" not in problem["detail"], "strangers' text is not echoed"


@pytest.mark.parametrize("profile", [1, True, ["server"], {"name": "server"}])
async def test_a_profile_is_asked_for_by_its_name(ca, account, profile):
    assert_problem(await account.new_order(ca.name(), profile=profile), ErrorType.MALFORMED, status=400)


async def test_a_profile_that_was_saved_a_moment_ago_can_be_asked_for(ca, account, saved):
    """Another worker's directory may show it already."""
    name = await saved()
    assert (await account.order(ca.name(), profile=name)).object["profile"] == name


async def test_a_withdrawn_profile_is_refused_and_offered_again(ca, account, saved):
    name = await saved()
    early = await account.order(ca.name(), profile=name)
    await withdraw(ca, name)
    assert name not in await offered(ca)
    assert_problem(await account.new_order(ca.name(), profile=name), INVALID)
    assert await leaf_of(early, ca), "what was ordered before is finished"
    async with Database.open(ca.dsn, connections=1) as database:
        assert await store.offer(database, name, actor=Actor("operator"), now=datetime.now(UTC))
    assert (await account.new_order(ca.name(), profile=name)).status == 201


# ---------------------------------------------------------------- who may


async def test_a_profile_for_some_eab_keys(ca, account, saved):
    await add_eab_key(ca, "chosen")
    await add_eab_key(ca, "other")
    name = await saved(allowed_eab_keys=["chosen"])
    assert (await (await bound_account(ca, "chosen")).new_order(ca.name(), profile=name)).status == 201
    for refused in (account, await bound_account(ca, "other")):
        before = await ca.sql("SELECT count(*) FROM authz")
        problem = assert_problem(await refused.new_order(ca.name(), profile=name), INVALID, status=400)
        assert "not for this account" in problem["detail"]
        assert await ca.sql("SELECT count(*) FROM authz") == before, "nothing was made"


async def test_a_profile_for_some_services(ca, account, saved):
    await add_eab_key(ca, "of-clara", service="clara")
    await add_eab_key(ca, "of-argus", service="argus")
    await add_eab_key(ca, "of-nobody")
    name = await saved(allowed_services=["clara"], allowed_eab_keys=["unknown"])
    assert (await (await bound_account(ca, "of-clara")).new_order(ca.name(), profile=name)).status == 201
    for kid in ("of-argus", "of-nobody"):
        answer = await (await bound_account(ca, kid)).new_order(ca.name(), profile=name)
        assert_problem(answer, INVALID)


async def test_a_revoked_eab_key_entitles_to_nothing(ca, saved):
    """Lesson 14: its accounts are frozen."""
    await add_eab_key(ca, "ended")
    name = await saved(allowed_eab_keys=["ended"])
    holder = await bound_account(ca, "ended")
    assert (await holder.new_order(ca.name(), profile=name)).status == 201
    await revoke_eab_key(ca, "ended")
    for profile in (name, "server"):
        assert_problem(await holder.new_order(ca.name(), profile=profile), ErrorType.UNAUTHORIZED, status=403)


# ---------------------------------------------------------------- names


async def test_names_that_the_profile_does_not_allow_are_refused_at_once(ca, account, saved):
    good, bad, worse = ca.name(), ca.name(), ca.name()
    name = await saved(allowed_names=[f"exact:{good}"])
    assert (await account.new_order(good, profile=name)).status == 201
    problem = assert_problem(await account.new_order(good, bad, worse, profile=name), INVALID, status=400)
    assert {sub["type"] for sub in problem["subproblems"]} == {ERROR_NAMESPACE + REJECTED}
    assert [sub["identifier"]["value"] for sub in problem["subproblems"]] == [bad, worse]


async def test_a_name_that_the_profile_requires(ca, account, saved):
    required = ca.name()
    name = await saved(required_names=[f"exact:{required}"])
    problem = assert_problem(await account.new_order(ca.name(), profile=name), INVALID, status=400)
    assert f"exact:{required}" in problem["detail"]
    assert (await account.new_order(ca.name(), required, profile=name)).status == 201


async def test_addresses_of_a_profile(ca, account, saved):
    name = await saved(allowed_names=["network:127.0.0.0/31"], challenges=["http-01"])
    assert (await account.new_order("127.0.0.1", profile=name)).status == 201
    assert_problem(await account.new_order("127.0.0.2", profile=name), INVALID, "127.0.0.2")


# ---------------------------------------------------------------- challenges


async def test_the_challenges_of_a_profile_are_offered(ca, account, saved):
    order = await account.order(ca.name(), profile=await saved(challenges=["dns-01"]))
    (authorization,) = await order.authorizations()
    assert [challenge["type"] for challenge in authorization["challenges"]] == ["dns-01"]


async def test_a_name_that_no_challenge_of_the_profile_can_prove(ca, account, saved):
    name = await saved(challenges=["http-01"])
    answer = await account.new_order("*.x.example.test", profile=name)
    (misfit,) = assert_problem(answer, INVALID, status=400)["subproblems"]
    assert misfit["type"].endswith(REJECTED)
    assert misfit["identifier"] == {"type": "dns", "value": "*.x.example.test"}


async def test_an_authorization_counts_when_it_was_proved_as_the_profile_wants(ca, account, saved):
    host, strict = ca.name(), await saved(challenges=["dns-01"])
    by_http = await (await account.order(host)).prove(ca.web)
    assert (await account.order(host)).object["status"] == "ready", "which the default profile takes"
    order = await account.order(host, profile=strict)
    assert order.object["status"] == "pending"
    assert order.object["authorizations"] != by_http.object["authorizations"]
    await prove_by_dns(account, order.object["authorizations"][0], ca.dns)
    assert (await order.read())["status"] == "ready"
    again = await account.order(host, profile=strict)
    assert again.object["authorizations"] == order.object["authorizations"]


# ---------------------------------------------------------------- finalize


async def test_a_short_lived_certificate(ca, account):
    leaf = await leaf_of(await account.order(ca.name(), profile="shortlived"), ca)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc + SECOND == timedelta(days=7)
    assert not extensions_of(leaf).keys() & {"authorityInfoAccess", "cRLDistributionPoints"}


@pytest.mark.parametrize("host", ["clara.vcc.internal", "a.clara.vcc.internal"])
async def test_a_certificate_of_the_vcc_documents(ca, account, host):
    ca.dns.add(host, "A", "127.0.0.1")
    leaf = await leaf_of(await account.order(host, profile="clara_service_auth"), ca)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc + SECOND == timedelta(days=730)
    assert list(extensions_of(leaf)["extendedKeyUsage"][1]) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]


KEYS = {
    "clara_service_auth": [
        (ec.generate_private_key(ec.SECP384R1()), "use one of ec-p256, rsa"),
        (MODEL_KEY, "2048 to 2048 bits here, this one has 4096"),
    ],
    "clara_model_signing": [
        (ec.generate_private_key(ec.SECP256R1()), "use one of rsa"),
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), "this one has 2048"),
    ],
}


@pytest.mark.parametrize("profile", KEYS)
async def test_a_key_that_the_profile_does_not_allow(ca, account, profile):
    """And the order can still be finalized with another."""
    host = "key.clara.vcc.internal"
    ca.dns.add(host, "A", "127.0.0.1")
    order = await (await account.order(host, profile=profile)).prove(ca.web)
    for key, why in KEYS[profile]:
        assert_problem(await order.finalize(csr(host, key=key)), BAD_CSR, why, status=400)
    if profile == "clara_model_signing":
        answer = await order.finalize(csr(host, key=MODEL_KEY))
        assert answer.json["status"] == "valid", answer


async def test_must_staple(ca, account, saved):
    name, host = await saved(must_staple=True), ca.name()
    leaf = await leaf_of(await account.order(host, profile=name), ca)
    assert list(extensions_of(leaf)["TLSFeature"][1]) == [x509.TLSFeatureType.status_request]


async def test_a_wish_within_the_profile(ca, account):
    end = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=6)).isoformat()
    answer = await account.new_order(ca.name(), profile="shortlived", notAfter=end)
    assert answer.status == 201, answer


async def test_a_wish_beyond_the_profile(ca, account):
    """Of the profile that was asked for; where none was, the wish alone is at fault."""
    now = datetime.now(UTC).replace(microsecond=0)
    end = (now + timedelta(days=8)).isoformat()
    answer = await account.new_order(ca.name(), profile="shortlived", notAfter=end)
    (misfit,) = assert_problem(answer, INVALID, "longer than the profile", status=400)["subproblems"]
    assert misfit["type"].endswith(ErrorType.MALFORMED)
    end = (now + timedelta(days=400)).isoformat()
    answer = await account.new_order(ca.name(), notAfter=end)
    assert_problem(answer, ErrorType.MALFORMED, "longer than the profile", status=400)


async def test_all_that_does_not_fit_is_told_at_once(ca, account, saved):
    name = await saved(challenges=["http-01"], allowed_names=["suffix:here.example.test"])
    end = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=400)).isoformat()
    names = ("*.here.example.test", "elsewhere.example.test")
    answer = await account.new_order(*names, profile=name, notAfter=end)
    misfits = assert_problem(answer, INVALID, "3 subproblems", status=400)["subproblems"]
    assert len(misfits) == 3


async def test_an_order_keeps_the_version_that_it_was_made_with(ca, account, saved):
    """Lesson 3: another version with other names, another life and another key changes nothing for it."""
    name, host = await saved(), ca.name()
    early = await account.order(host, profile=name)
    narrow = server_with(
        name, allowed_names=["exact:elsewhere.example.test"], validity="1 day", key_algorithms=["rsa"]
    )
    assert await save(ca, narrow) == 2
    await refresh(ca)
    leaf = await leaf_of(early, ca)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc + SECOND == timedelta(days=90)
    assert_problem(await account.new_order(host, profile=name), INVALID)


async def test_names_that_the_default_profile_does_not_allow(new_ca):
    """Nobody asked for that profile: it is the identifiers that are refused (RFC 8555 §6.7.1)."""
    async with new_ca() as ca:
        bad, worse = ca.name(), ca.name()
        await save(ca, server_with("server", allowed_names=["suffix:good.example"]))
        await refresh(ca)
        account = await ca.account()
        problem = assert_problem(await account.new_order(bad, worse), REJECTED, status=403)
        assert [sub["identifier"]["value"] for sub in problem["subproblems"]] == [bad, worse]


# ---------------------------------------------------------------- the start


async def test_the_default_may_be_a_saved_profile(new_ca):
    async with new_ca() as ca:
        await save(ca, server_with("house", validity="12 hours"))
        async with new_ca(dsn=ca.dsn, keys=ca.keys, default_profile="house") as again:
            leaf = await leaf_of(await (await again.account()).order(again.name()), again)
            assert leaf.not_valid_after_utc - leaf.not_valid_before_utc + SECOND == timedelta(hours=12)


@pytest.mark.parametrize("default", ["nonesuch", "ocsp_responder"])
async def test_a_default_that_is_not_offered_stops_the_start(new_ca, default):
    with pytest.raises(ConfigurationError, match="ACME_CA_DEFAULT_PROFILE: no such profile is offered"):
        async with new_ca(default_profile=default):
            pass


async def test_a_default_that_is_withdrawn_meanwhile(new_ca):
    async with new_ca() as ca:
        account = await ca.account()
        await withdraw(ca, "server")
        assert_problem(await account.new_order(ca.name()), INVALID)
        assert (await account.new_order(ca.name(), profile="mtls")).status == 201


async def test_a_profile_that_only_a_later_release_can_read(new_ca):
    """It may not take away from this one what it offered before."""
    async with new_ca() as ca:
        account = await ca.account()
        await ca.sql(
            """INSERT INTO profile (name, version, body, built_in, created)
               SELECT name, version + n, body || '{"of_the_future": 1}', true, now()
               FROM profile, generate_series(1, 1) AS n WHERE name = 'server'"""
        )
        await refresh(ca)
        order = await account.order(ca.name())
        assert order.object["profile"] == "server"
        assert await leaf_of(order, ca)
        await refresh(ca)
        assert len(ca.logged("a profile cannot be read by this release")) == 1
        pinned = await account.order(ca.name())
        await pinned.prove(ca.web)
        await ca.sql(f"UPDATE orders SET profile_version = 2 WHERE id = '{pinned.url[-32:]}'")
        answer = await pinned.finalize(failing=True)
        assert_problem(answer, ErrorType.SERVER_INTERNAL, "later release", status=503)
        assert answer.headers["Retry-After"] == "60"
        assert (await pinned.read())["status"] == "ready"
