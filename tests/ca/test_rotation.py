"""Operators make, bring, activate and retire issuers: the room behind `acme-ca ca …`, on a real database."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from acme_ca import app
from acme_ca.ca import certify, checks, hierarchy, keystore
from acme_ca.ca.certify import Parent
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.issuers import IssuerError
from acme_ca.ca.keystore import KeyKind, KeyStoreError
from acme_ca.ca.rotation import Brought, NewIssuer, Rotation
from acme_ca.ca.served import Issuers
from acme_ca.core.actors import Actor
from acme_ca.core.issuers import IssuerKind
from acme_ca.core.revocation import RevocationReason
from acme_ca.core.states import IssuerState
from acme_ca.log import get
from acme_ca.storage import issuers as store
from acme_ca.storage.database import Database

PASSWORD = b"correct horse battery staple"
NOW = datetime.now(UTC)
YEAR = timedelta(days=365)


class Estate:
    """A CA of its own in `directory`, and the acts of an operator on it."""

    def __init__(self, directory, database, *, seed: bool = True) -> None:
        self.directory, self.database, self.now = directory, database, NOW
        self.made = None
        if seed:
            self.made = hierarchy.create_hierarchy(
                directory / "ca",
                common_name="Example",
                organization="Example",
                country="",
                key_type="ec",
                password=PASSWORD,
                now=NOW,
            )
        else:
            (directory / "ca").mkdir()
        self.issuers = Issuers(database=database, open_key=self.open, clock=lambda: self.now, log=get())
        self.acts = Rotation(
            database=database,
            issuers=self.issuers,
            open_key=self.open,
            create_key=self.create,
            base_url="http://ca.example.org",
            actor=Actor("operator"),
            clock=lambda: self.now,
        )

    def open(self, uri: str):
        return keystore.open_key(uri, directory=self.directory / "ca", password=PASSWORD)

    def create(self, uri: str, kind: KeyKind):
        return keystore.create_key(uri, kind, directory=self.directory / "ca", password=PASSWORD)

    def keep(self, key) -> str:
        keystore.save(self.directory / "ca" / "kept.key", key, PASSWORD)
        return "file:kept.key"

    async def another_root(self, name: str):
        """A root beside the first, its key within reach."""
        key = ec.generate_private_key(ec.SECP384R1())
        keystore.save(self.directory / "ca" / f"{name}.key", key, PASSWORD)
        certificate = certify.make_root(certify.root_name(name), key, path_length=None, now=self.now)
        (root,) = await self.acts.bring(
            Brought(certificate=certificate, key_uri=f"file:{name}.key"), None, keep=self.keep
        )
        return root

    async def events(self) -> list[str]:
        rows = await self.database.fetch("SELECT event FROM audit_event ORDER BY id")
        return [row["event"] for row in rows]


def wish(name: str = "second", **fields) -> NewIssuer:
    return NewIssuer(key_uri=f"file:{name}.key", key_kind=KeyKind.EC_P256, **fields)


@pytest.fixture
async def database(database_url):
    async with Database.open(database_url, connections=2) as opened:
        yield opened


@pytest.fixture
async def estate(tmp_path, database) -> Estate:
    made = Estate(tmp_path, database)
    await app.register(database, made.made, now=NOW)
    await made.issuers.refresh()
    return made


# ---------------------------------------------------------------- making


async def test_an_intermediate_begins_staged_and_signs_nothing(estate):
    made = await estate.acts.create_intermediate(wish(), parent=None)
    assert (made.kind, made.state(NOW), made.signs_leaves(NOW)) == (
        IssuerKind.INTERMEDIATE,
        IssuerState.STAGED,
        False,
    )
    made.certificate.verify_directly_issued_by(estate.made.root.certificate)
    assert made.certificate.subject.rfc4514_string() == "CN=Example Intermediate CA 2,O=Example"
    assert made.key is not None
    assert estate.issuers.active().id == estate.made.intermediate.id


async def test_what_is_to_be_signed_is_written_down_first(estate):
    await estate.acts.create_intermediate(wish(), parent=None)
    assert (await estate.events())[-2:] == ["issuer.announced", "issuer.registered"]


async def test_wishes(estate):
    made = await estate.acts.create_intermediate(
        wish(
            common_name="Web CA",
            lifetime=timedelta(days=100),
            name_constraints=NameConstraints.parse(["vcc.internal"]),
        ),
        parent=estate.made.root.id[:12],
    )
    certificate = made.certificate
    assert certificate.subject.rfc4514_string() == "CN=Web CA,O=Example"
    assert certificate.not_valid_after_utc < NOW + timedelta(days=101)
    assert certificate.extensions.get_extension_for_class(x509.NameConstraints).critical
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert points[0].full_name[0].value == f"http://ca.example.org/crl/{estate.made.root.id}/0.crl"


async def test_without_the_parents_key_the_operator_is_told_the_other_way(estate):
    (estate.directory / "ca" / "root.key").unlink()
    with pytest.raises(KeyStoreError, match="cannot be read"):
        await estate.acts.create_intermediate(wish(), parent=None)
    await estate.database.execute("UPDATE issuer SET key_uri = NULL WHERE kind = 'root'")
    with pytest.raises(IssuerError, match="export-csr"):
        await estate.acts.create_intermediate(wish(), parent=None)
    assert len(await estate.acts.all()) == 2


@pytest.mark.parametrize("digits", ["", "abc", "f" * 32])
async def test_an_id_that_names_no_issuer(estate, digits):
    with pytest.raises(IssuerError):
        await estate.acts.activate(digits)


# ---------------------------------------------------------------- states


async def test_activated_it_is_what_new_orders_are_for_and_the_other_stays_active(estate):
    made = await estate.acts.create_intermediate(wish(), parent=None)
    estate.now += timedelta(seconds=1)
    await estate.acts.activate(made.id)
    assert estate.issuers.active().id == made.id
    assert estate.issuers.get(estate.made.intermediate.id).signs_leaves(NOW)
    estate.now += timedelta(seconds=1)
    await estate.acts.activate(estate.made.intermediate.id)
    assert estate.issuers.active().id == estate.made.intermediate.id, "the one activated last"


async def test_the_only_active_issuer_cannot_be_retired(estate):
    with pytest.raises(IssuerError, match="only active"):
        await estate.acts.retire(estate.made.intermediate.id)
    made = await estate.acts.create_intermediate(wish(), parent=None)
    await estate.acts.activate(made.id)
    retired = await estate.acts.retire(estate.made.intermediate.id)
    assert (retired.state(NOW), retired.key is not None) == (IssuerState.RETIRED, True)
    back = await estate.acts.activate(retired.id)
    assert back.state(NOW) is IssuerState.ACTIVE, "into service again, when its successor fails"


async def test_what_cannot_be_activated(estate):
    with pytest.raises(IssuerError, match="Only intermediates"):
        await estate.acts.activate(estate.made.root.id)
    made = await estate.acts.create_intermediate(wish(lifetime=timedelta(days=1)), parent=None)
    estate.now += timedelta(days=2)
    with pytest.raises(IssuerError, match="expired"):
        await estate.acts.activate(made.id)


async def test_an_issuer_whose_key_is_lost_cannot_be_activated(estate):
    made = await estate.acts.create_intermediate(wish(), parent=None)
    (estate.directory / "ca" / "second.key").unlink()
    other = Issuers(database=estate.database, open_key=estate.open, clock=lambda: NOW, log=get())
    estate.acts._issuers = other
    with pytest.raises(IssuerError, match="cannot be read"):
        await estate.acts.activate(made.id)


# ---------------------------------------------------------------- signed elsewhere


async def test_an_offline_root_signs_a_request(estate):
    csr = x509.load_der_x509_csr(await estate.acts.request(wish("offline")))
    root = estate.made.root.certificate
    key = keystore.load(estate.directory / "ca" / "root.key", PASSWORD)
    certificate = certify.make_intermediate(
        csr.subject, csr.public_key(), Parent(certificate=root, key=key), now=NOW
    )
    made = await estate.acts.install(certificate, [])
    assert (made.state(NOW), made.key is not None) == (IssuerState.STAGED, True)
    with pytest.raises(IssuerError, match="known already"):
        await estate.acts.install(certificate, [])


async def test_a_foreign_root_signs_a_request(estate):
    csr = x509.load_der_x509_csr(await estate.acts.request(wish("foreign")))
    root_key, policy_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    root = certify.make_root(certify.root_name("Foreign"), root_key, path_length=2, now=NOW)
    policy = certify.make_intermediate(
        certify.intermediate_name(root.subject, common_name="Foreign Policy CA"),
        policy_key.public_key(),
        Parent(certificate=root, key=root_key),
        path_length=1,
        now=NOW,
    )
    certificate = certify.make_intermediate(
        csr.subject, csr.public_key(), Parent(certificate=policy, key=policy_key), lifetime=YEAR, now=NOW
    )
    with pytest.raises(IssuerError, match="missing"):
        await estate.acts.install(certificate, [])
    made = await estate.acts.install(certificate, [root, policy])
    estate.now += timedelta(seconds=1)
    await estate.acts.activate(made.id)
    active = estate.issuers.active()
    assert active.chain == (certificate, policy)
    assert estate.issuers.root_of(active).certificate == root
    assert {issuer.certificate: issuer.kind for issuer in estate.issuers}[policy] is IssuerKind.CROSS


async def test_a_certificate_that_nobody_asked_for_is_not_installed(estate):
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(IssuerError, match="No request"):
        await estate.acts.install(certify.make_root(certify.root_name("X"), key, now=NOW), [])


# ---------------------------------------------------------------- brought


async def test_an_existing_root_and_intermediate_are_taken_in_by_an_empty_place(tmp_path, database):
    elsewhere = hierarchy.create_hierarchy(
        tmp_path / "elsewhere",
        common_name="Old",
        organization="",
        country="",
        key_type="rsa",
        password=PASSWORD,
        now=NOW,
    )
    estate = Estate(tmp_path, database, seed=False)
    key = keystore.load(tmp_path / "elsewhere" / "intermediate.key", PASSWORD)
    root, below = await estate.acts.bring(
        Brought(certificate=elsewhere.root.certificate),
        Brought(certificate=elsewhere.intermediate.certificate, key=key),
        keep=estate.keep,
    )
    assert (root.kind, below.state(NOW)) == (IssuerKind.ROOT, IssuerState.ACTIVE)
    assert estate.issuers.active().id == elsewhere.intermediate.id
    assert below.key is not None
    assert await estate.acts.in_use() == (root, below)


async def test_beside_an_active_issuer_a_brought_one_is_staged(estate, tmp_path):
    other = hierarchy.create_hierarchy(
        tmp_path / "elsewhere",
        common_name="Other",
        organization="",
        country="",
        key_type="ec",
        password=PASSWORD,
        now=NOW,
    )
    place = (tmp_path / "elsewhere" / "intermediate.key").absolute()
    _, below = await estate.acts.bring(
        Brought(certificate=other.root.certificate),
        Brought(certificate=other.intermediate.certificate, key_uri=f"file:{place}"),
        keep=estate.keep,
    )
    assert below.state(NOW) is IssuerState.STAGED


async def test_another_key_than_the_certificates_is_refused(estate):
    with pytest.raises(IssuerError):
        await estate.acts.bring(
            Brought(certificate=estate.made.root.certificate, key_uri="file:intermediate.key"),
            None,
            keep=estate.keep,
        )


# ---------------------------------------------------------------- cross-signatures


async def test_while_a_cross_signature_lives_both_chains_are_offered(estate, tmp_path):
    """A new root, cross-signed by the old: who trusts only the old one takes the other chain."""
    new_key = ec.generate_private_key(ec.SECP384R1())
    new_root = certify.make_root(certify.root_name("New"), new_key, now=NOW)
    (root,) = await estate.acts.bring(Brought(certificate=new_root, key=new_key), None, keep=estate.keep)
    made = await estate.acts.create_intermediate(wish(), parent=root.id)
    cross = await estate.acts.cross_sign(made.id, by=estate.made.root.id, lifetime=YEAR)
    issuer = estate.issuers.get(made.id)
    assert issuer.chain == (made.certificate,)
    (alternate,) = issuer.alternates_pem
    assert x509.load_pem_x509_certificates(alternate) == [cross.certificate]
    cross.certificate.verify_directly_issued_by(estate.made.root.certificate)
    estate.now += YEAR + timedelta(days=1)
    other = Issuers(database=estate.database, open_key=estate.open, clock=lambda: estate.now, log=get())
    await other.refresh()
    assert other.get(made.id).alternates_pem == ()


async def test_a_running_server_stops_offering_a_chain_when_its_cross_signature_expires(estate):
    made = await estate.acts.create_intermediate(wish(), parent=None)
    other = await estate.another_root("New")
    await estate.acts.cross_sign(made.id, by=other.id, lifetime=YEAR)
    assert len(estate.issuers.get(made.id).alternates_pem) == 1
    estate.now += YEAR + timedelta(days=1)
    await estate.issuers.refresh()
    assert estate.issuers.get(made.id).alternates_pem == ()


async def test_an_issuer_that_had_ended_by_a_clock_that_was_ahead_is_back_when_that_is_put_right(estate):
    """Its key was not opened, and its chains went without those that had ended."""
    estate.now += timedelta(days=20 * 365)
    seen = Issuers(database=estate.database, open_key=estate.open, clock=lambda: estate.now, log=get())
    await seen.refresh()
    assert seen.get(estate.made.intermediate.id).key is None, "it has ended indeed"
    estate.now = NOW
    await seen.refresh()
    assert seen.active().id == estate.made.intermediate.id
    assert seen.active().key is not None


async def test_roots_that_cross_signed_each_other_make_no_detours(estate):
    """A chain has no CA twice, however often two roots have vouched for each other."""
    made = await estate.acts.create_intermediate(wish(), parent=None)
    old, new = estate.made.root, await estate.another_root("New")
    for _ in range(3):
        await estate.acts.cross_sign(new.id, by=old.id, lifetime=YEAR)
        await estate.acts.cross_sign(old.id, by=new.id, lifetime=YEAR)
        estate.now += timedelta(seconds=1)
    issuer = estate.issuers.get(made.id)
    chains = [x509.load_pem_x509_certificates(pem) for pem in issuer.alternates_pem]
    assert issuer.chain == (made.certificate,)
    assert [len(chain) for chain in chains] == [2, 2, 2]
    assert {chain[1].subject for chain in chains} == {old.certificate.subject}


# ---------------------------------------------------------------- two operators, two clocks


async def test_of_two_who_retire_the_last_two_at_once_one_is_refused(estate, database_url):
    made = await estate.acts.create_intermediate(wish(), parent=None)
    await estate.acts.activate(made.id)
    async with Database.open(database_url, connections=2) as database:
        retired = await asyncio.gather(
            *(
                store.change_state(database, id_, IssuerState.RETIRED, actor=Actor("operator"), now=NOW)
                for id_ in (made.id, estate.made.intermediate.id)
            )
        )
    assert sorted(retired) == [False, True]
    await estate.issuers.refresh()
    assert estate.issuers.active()


async def test_the_issuer_activated_last_is_the_one_also_when_an_operators_clock_is_late(estate):
    made = await estate.acts.create_intermediate(wish(), parent=None)
    estate.now -= timedelta(minutes=3)
    await estate.acts.activate(made.id)
    assert estate.issuers.active().id == made.id


async def test_the_root_of_an_active_issuer_is_not_retired(estate):
    """Clients would find no root to trust."""
    with pytest.raises(IssuerError, match="root of an active issuer"):
        await estate.acts.retire(estate.made.root.id)
    other = await estate.another_root("New")
    assert (await estate.acts.retire(other.id)).state(NOW) is IssuerState.RETIRED


async def test_a_revoked_issuer_is_not_activated(estate):
    made = await estate.acts.create_intermediate(wish(), parent=None)
    assert await store.revoke(
        estate.database, made.id, reason=RevocationReason.KEY_COMPROMISE, actor=Actor("operator"), now=NOW
    )
    with pytest.raises(IssuerError, match="revoked"):
        await estate.acts.activate(made.id)


# ---------------------------------------------------------------- acts that fail half-way


@pytest.mark.parametrize(
    "unfit",
    [
        pytest.param({"path_length": 1}, id="path length"),
        pytest.param({"lifetime": timedelta(0)}, id="life"),
        pytest.param({"common_name": "Example Root CA"}, id="name"),
    ],
)
async def test_what_cannot_be_signed_leaves_neither_key_nor_event(estate, unfit):
    before = await estate.events()
    with pytest.raises(IssuerError):
        await estate.acts.create_intermediate(wish(**unfit), parent=None)
    assert await estate.events() == before
    assert not (estate.directory / "ca" / "second.key").exists()


async def test_a_key_file_beside_a_key_uri_is_refused(estate):
    """Only one of the two would be looked at, and the other one taken."""
    key = ec.generate_private_key(ec.SECP256R1())
    root = Brought(certificate=estate.made.root.certificate, key=key, key_uri="file:root.key")
    with pytest.raises(IssuerError, match="name the one"):
        await estate.acts.bring(root, None, keep=estate.keep)


async def resigned(estate, csr: x509.CertificateSigningRequest) -> x509.Certificate:
    key = keystore.load(estate.directory / "ca" / "root.key", PASSWORD)
    root = Parent(certificate=estate.made.root.certificate, key=key)
    return certify.make_intermediate(csr.subject, csr.public_key(), root, now=NOW)


async def test_a_request_may_be_signed_again_and_all_its_certificates_tell_of_a_lost_key(estate):
    csr = x509.load_der_x509_csr(await estate.acts.request(wish("twice")))
    twins = [await estate.acts.install(await resigned(estate, csr), []) for _ in range(2)]
    (estate.directory / "ca" / "twice.key").unlink()
    seen = Issuers(database=estate.database, open_key=estate.open, clock=lambda: NOW, log=get())
    await seen.refresh()
    assert all("cannot be read" in seen.trouble(twin.id) for twin in twins)


async def test_a_key_that_was_moved_is_at_its_new_place_for_certificates_to_come(estate):
    csr = x509.load_der_x509_csr(await estate.acts.request(wish("moving")))
    made = await estate.acts.install(await resigned(estate, csr), [])
    assert await store.move_key(
        estate.database, made.id, "file:moving.key", "pkcs11:object=moved", actor=Actor("operator"), now=NOW
    )
    await estate.acts.install(await resigned(estate, csr), [])
    places = {record.key_uri for record in await store.all_issuers(estate.database)}
    assert "pkcs11:object=moved" in places
    assert "file:moving.key" not in places


async def test_years_of_rotations_do_not_stand_in_the_way_of_the_next(estate):
    """The limit is for what an operator brings along."""
    csr = x509.load_der_x509_csr(await estate.acts.request(wish("next")))
    for number in range(checks.MAX_LINKS):
        await estate.acts.create_intermediate(wish(f"old{number}"), parent=None)
    assert await estate.acts.install(await resigned(estate, csr), [])


async def test_a_key_is_tried_again_also_when_the_clock_was_set_back(estate):
    key = estate.directory / "ca" / "intermediate.key"
    key.rename(key.with_suffix(".away"))
    seen = Issuers(database=estate.database, open_key=estate.open, clock=lambda: estate.now, log=get())
    await seen.refresh()
    key.with_suffix(".away").rename(key)
    estate.now -= timedelta(days=1)
    await seen.refresh()
    assert seen.get(estate.made.intermediate.id).key is not None
