"""Several issuers, as clients see them: chains and alternates (RFC 8555 §7.4.2), name constraints."""

import asyncio
import re
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from acme_ca.app import prepare
from acme_ca.ca import certify
from acme_ca.ca.certify import Parent
from acme_ca.ca.constraints import NameConstraints
from acme_ca.config import ConfigurationError
from acme_ca.core.actors import Actor
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.problems import ErrorType
from acme_ca.core.renewal import CertId
from acme_ca.core.revocation import RevocationReason
from acme_ca.storage import issuers
from acme_ca.storage.database import Database
from tests.support.application import at_work
from tests.support.client import Answer, assert_problem
from tests.support.fixtures import IN_SESSION_LOOP, PASSWORD

pytestmark = IN_SESSION_LOOP


def alternates(answer: Answer) -> list[str]:
    return [
        match[1]
        for link in answer.headers.getall("Link")
        if (match := re.fullmatch(r'<([^>]*)>;rel="alternate"', link))
    ]


def chain(answer: Answer) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(answer.body)


async def test_with_one_chain_there_is_no_alternate(ca, account):
    order = await ca.ready(account)
    await order.finalize()
    answer = await account.read((await order.read())["certificate"])
    assert alternates(answer) == []
    missing = await account.read((await order.read())["certificate"] + "/1")
    assert_problem(missing, ErrorType.MALFORMED, "no such chain", status=404)


async def test_while_a_cross_signature_lives_both_chains_are_offered(new_ca, hierarchy, hierarchy_place):
    """A new root that old clients do not trust yet, and its cross-certificate by the old one."""
    async with new_ca() as ca:
        account = await ca.account()
        issuer, new_root = await ca.add_issuer(name="New")
        old_key = load_pem_private_key((hierarchy_place / "ca" / "root.key").read_bytes(), PASSWORD)
        old_root = Parent(certificate=hierarchy.root.certificate, key=old_key)
        crossed = certify.cross_sign(issuer.certificate, old_root, now=datetime.now(UTC))
        await ca.register(crossed, IssuerKind.CROSS, parent=hierarchy.root.id)
        order = await ca.ready(account)
        await order.finalize()
        url = (await order.read())["certificate"]
        answer = await account.read(url)
        leaf, above = chain(answer)
        above.verify_directly_issued_by(new_root.certificate)
        assert alternates(answer) == [url + "/1"]
        other = await account.read(url + "/1")
        assert alternates(other) == [url]
        assert chain(other) == [leaf, crossed]
        leaf.verify_directly_issued_by(crossed)
        assert_problem(await account.read(url + "/2"), ErrorType.MALFORMED, status=404)
        stranger = await ca.account()
        assert (await stranger.read(url + "/1")).status == 404


async def test_what_the_issuers_name_constraints_forbid_is_refused_when_it_is_ordered(new_ca):
    async with new_ca() as ca:
        account = await ca.account()
        early = await ca.ready(account)
        await ca.add_issuer(constraints=NameConstraints.parse(["vcc.internal"]))
        names = [{"type": "dns", "value": name} for name in ("www.vcc.internal", "www.example.org")]
        answer = await account.post(ca.client.url("new-order"), {"identifiers": names})
        problem = assert_problem(answer, ErrorType.REJECTED_IDENTIFIER, "constrained", status=403)
        (refused,) = problem["subproblems"]
        assert refused["identifier"]["value"] == "www.example.org"
        allowed = await account.post(ca.client.url("new-order"), {"identifiers": names[:1]})
        assert allowed.status == 201
        await ca.retire(ca.hierarchy.intermediate)
        moved = await early.finalize()
        assert_problem(moved, ErrorType.REJECTED_IDENTIFIER, "constrained", status=403)


async def test_below_a_revoked_issuer_every_certificate_is_to_be_renewed_at_once(new_ca):
    """RFC 9773 §4.2: what steers a whole fleet away from a stolen key. New orders go to the successor."""
    async with new_ca() as ca:
        account = await ca.account()
        (leaf, *_) = await (await ca.ready(account)).issue(ca.web)
        url = f"{ca.client.url('renewal-info')}/{CertId.of(leaf)}"
        before = (await ca.client.request("GET", url)).json["suggestedWindow"]
        assert datetime.fromisoformat(before["start"]) > datetime.now(UTC)
        successor, _ = await ca.add_issuer()
        compromised = ca.hierarchy.intermediate.id
        async with Database.open(ca.dsn, connections=1) as database:
            reason, now = RevocationReason.CA_COMPROMISE, datetime.now(UTC)
            assert await issuers.revoke(
                database, compromised, reason=reason, actor=Actor("operator"), now=now
            )
        await ca.application.issuers.refresh()
        after = (await ca.client.request("GET", url)).json["suggestedWindow"]
        assert datetime.fromisoformat(after["end"]) <= datetime.now(UTC)
        (renewed, *_) = await (await ca.ready(account)).issue(ca.web)
        renewed.verify_directly_issued_by(successor.certificate)


async def test_an_issuer_that_is_in_use_again_finalizes_also_where_that_is_not_known_yet(new_ca):
    """Back into service when its successor fails: a worker may look at the database only a moment later."""
    async with new_ca() as ca:
        order = await ca.ready(await ca.account())
        await ca.add_issuer()
        await ca.retire(ca.hierarchy.intermediate)
        await ca.sql(
            "UPDATE issuer SET state = 'active', retired = NULL WHERE state = 'retired' RETURNING true"
        )
        assert (await order.finalize()).json["status"] == "valid"
        assert await ca.sql("SELECT count(*) FROM audit_event WHERE event = 'order.moved'") == 0


async def test_a_start_with_an_issuer_that_may_not_issue_for_the_servers_own_name(new_ca):
    """The certificate there is goes on to serve."""
    async with new_ca() as before:
        await before.add_issuer(constraints=NameConstraints.parse(["vcc.internal"]))
        async with new_ca(dsn=before.dsn, keys=before.keys, data=before.settings.data) as after:
            assert await after.account()
        with pytest.raises(ConfigurationError, match="constrained to other names"):
            async with new_ca(dsn=before.dsn, keys=before.keys):
                pass


async def test_an_own_certificate_that_cannot_be_renewed_is_a_sentence_in_the_log(new_ca):
    async with new_ca() as ca:
        await ca.add_issuer(constraints=NameConstraints.parse(["vcc.internal"]))
        async with at_work(ca):
            for _ in range(200):
                if told := ca.logged("the server's own certificate is not renewed"):
                    break
                await asyncio.sleep(0.05)
        assert "constrained to other names" in told[0]["reason"]
        assert not [entry for entry in ca.logged("background work failed") if "own" in entry["loop"]]


async def test_a_database_without_a_ca_is_named(new_ca):
    """A second replica with an empty data directory, and the wrong database."""
    async with new_ca() as ca:
        await ca.sql("TRUNCATE issuer CASCADE")
        with pytest.raises(ConfigurationError, match="knows no CA"):
            await prepare(ca.settings, None, dsn=ca.dsn, open_key=ca.keys.open)
