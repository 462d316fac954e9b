"""certbot's `acme` package as a client of its own: what certbot and lego leave out of RFC 8555 §7."""

import pytest
from acme import errors, messages
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.acme_client import AcmeClient, http01, leaf, new_key, write
from tests.support.chains import assert_good
from tests.support.responders import HttpResponder

pytestmark = pytest.mark.client


@pytest.fixture
def web(server):
    with HttpResponder(port=server.http01_port) as responder:
        yield responder


@pytest.fixture
def client(server):
    with AcmeClient(server) as registered:
        registered.register()
        yield registered


def refusal(act, *arguments) -> str:
    """The error type that the server answers with."""
    with pytest.raises(messages.Error) as refused:
        act(*arguments)
    assert refused.value.detail
    return refused.value.code


# ---------------------------------------------------------------- accounts


@pytest.mark.usefixtures("openssl")
@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="ES256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="ES384"),
        pytest.param(rsa.generate_private_key(public_exponent=65537, key_size=2048), id="RS256"),
    ],
)
def test_an_account_of_each_kind_of_key_issues(server, web, new_hosts, key, tmp_path):
    hosts = new_hosts(2)
    certificate_key = new_key()
    with AcmeClient(server, key=key) as client:
        assert client.register().body.status == "valid"
        order = client.issue(*hosts, web=web, key=certificate_key)
    assert_good(write(order, certificate_key, tmp_path), *hosts, root=server.root)


def test_the_key_that_has_an_account_finds_it_again(server, client):
    with AcmeClient(server, key=client.network.key.key) as again:
        with pytest.raises(errors.ConflictError) as found:
            again.register("another@example.org")
        assert found.value.location == client.url
    found = client.acme.query_registration(client.network.account)
    assert found.body.contact == ("mailto:owner@example.org",)


def test_an_account_that_was_found_may_be_updated_at_once_and_lose_its_contacts(server, client):
    """Lesson 30."""
    with AcmeClient(server, key=client.network.key.key) as again:
        found = again.post(again.acme.directory["newAccount"], {"onlyReturnExisting": True})
        assert found.status_code == 200
        again.network.account = messages.RegistrationResource(
            uri=found.headers["Location"], body=messages.Registration()
        )
        assert "contact" not in again.post(again.url, {"contact": []}).json()


def test_account_update(client):
    changed = client.acme.update_registration(
        client.network.account, messages.Registration(contact=("mailto:changed@example.org",))
    )
    assert changed.body.contact == ("mailto:changed@example.org",)
    assert client.read(client.url)["contact"] == ["mailto:changed@example.org"]


def test_key_change(server, client, web, new_hosts):
    old = client.network.key.key
    client.change_key(new_key())
    assert client.read(client.url)["status"] == "valid"
    assert client.issue(*new_hosts(1), web=web).fullchain_pem
    with AcmeClient(server, key=old) as stale:
        find = stale.acme.directory["newAccount"], {"onlyReturnExisting": True}
        assert refusal(stale.post, *find) == "accountDoesNotExist"
        stale.network.account = client.network.account
        assert refusal(stale.read, client.url) in {"malformed", "unauthorized"}


def test_a_key_of_another_account_is_refused_in_a_key_change(server, client):
    with AcmeClient(server) as other:
        other.register()
        with pytest.raises(errors.ConflictError) as conflict:
            client.change_key(other.network.key.key)
        assert conflict.value.location == other.url


def test_deactivation_is_for_good(server, client, web, new_hosts):
    """Lesson 15: a deactivated account stays dead."""
    hosts = new_hosts(1)
    order = client.issue(*hosts, web=web)
    ended = client.acme.deactivate_registration(client.network.account)
    assert ended.body.status == "deactivated"
    assert refusal(client.order, *hosts) == "unauthorized"
    assert refusal(client.acme.revoke, leaf(order), 0) == "unauthorized"
    with AcmeClient(server, key=client.network.key.key) as again:
        assert refusal(again.register) == "unauthorized"


# ---------------------------------------------------------------- orders


def test_the_order_lists_its_way_to_the_certificate(client, web, new_hosts):
    hosts = new_hosts(3)
    order = client.order(*hosts)
    assert order.body.status == messages.STATUS_PENDING
    assert {a.body.identifier.value for a in order.authorizations} == set(hosts)
    client.prove(order, web)
    assert client.read(order.uri)["status"] == "ready"
    issued = client.finalize(order)
    assert client.read(order.uri)["certificate"]
    assert order.uri in client.read(client.read(client.url)["orders"])["orders"]
    chain = x509.load_pem_x509_certificates(issued.fullchain_pem.encode())
    assert len(chain) == 2
    chain[0].verify_directly_issued_by(chain[1])


def test_one_unproved_name_of_three_stops_the_order(client, web, new_hosts):
    """Lesson 5: as many checks as names, each of another name."""
    hosts = new_hosts(3)
    order = client.order(*hosts)
    for authorization in order.authorizations:
        client.answer(authorization, web, spoilt=authorization.body.identifier.value == hosts[1])
    with pytest.raises(errors.ValidationError) as failed:
        client.await_valid(order)
    (unproved,) = failed.value.failed_authzrs
    assert unproved.body.identifier.value == hosts[1]
    assert http01(unproved).error.code == "unauthorized"
    assert {request.headers["host"].partition(":")[0] for request in web.requests} == set(hosts)
    assert client.read(order.uri)["status"] == "invalid"
    assert refusal(client.acme.begin_finalization, order) == "orderNotReady"


def test_an_authorization_that_was_given_up_stops_the_order(client, web, new_hosts):
    order = client.order(*new_hosts(2))
    client.prove(order, web)
    given_up = client.acme.deactivate_authorization(order.authorizations[0])
    assert given_up.body.status == messages.STATUS_DEACTIVATED
    assert refusal(client.acme.begin_finalization, order) == "orderNotReady"


# ---------------------------------------------------------------- revocation


def test_revocation_by_the_account(client, web, new_hosts):
    certificate = leaf(client.issue(*new_hosts(1), web=web))
    client.acme.revoke(certificate, 4)
    assert refusal(client.acme.revoke, certificate, 4) == "alreadyRevoked"


def test_revocation_by_the_certificates_key(server, client, web, new_hosts):
    key = new_key()
    certificate = leaf(client.issue(*new_hosts(1), web=web, key=key))
    with AcmeClient(server) as stranger:
        assert refusal(stranger.acme.revoke, certificate, 1) == "unauthorized"
    with AcmeClient(server, key=key) as holder:
        holder.acme.revoke(certificate, 1)
        assert refusal(holder.acme.revoke, certificate, 1) == "alreadyRevoked"


def test_revocation_by_another_account_that_proves_all_names(server, client, web, new_hosts):
    hosts = new_hosts(2)
    certificate = leaf(client.issue(*hosts, web=web))
    with AcmeClient(server) as successor:
        successor.register()
        successor.prove(successor.order(hosts[0]), web)
        assert refusal(successor.acme.revoke, certificate, 0) == "unauthorized"
        successor.prove(successor.order(hosts[1]), web)
        successor.acme.revoke(certificate, 0)
