"""A `public_url` with an address in place of a name: the server starts and issues, and no CAA record can name it."""

import pytest
import pytest_asyncio
from cryptography import x509

from tests.support.fixtures import IN_SESSION_LOOP
from tests.support.issuing import names_of

pytestmark = IN_SESSION_LOOP

ADDRESSES = {"https://192.0.2.1:8443": "192.0.2.1", "https://[2001:db8::1]": "2001:db8::1"}


@pytest_asyncio.fixture(loop_scope="session", scope="module", params=ADDRESSES)
async def at_address(new_ca, request):
    async with new_ca(public_url=request.param) as made:
        yield made


async def test_it_issues(at_address):
    order = await (await at_address.account()).order(at_address.name())
    assert order.url.startswith(at_address.settings.public_url + "/acme/")
    (leaf, *_) = await order.issue(at_address.web)
    assert names_of(leaf) == order.names


async def test_its_own_certificate_is_for_the_address(at_address):
    own = x509.load_pem_x509_certificate(at_address.settings.tls_file.read_bytes())
    assert names_of(own) == [ADDRESSES[at_address.settings.public_url]]


async def test_its_directory_names_no_caa_identities(at_address):
    """RFC 8555 §9.7.6: these are the names that CAA records may have."""
    directory = await at_address.client.request("GET", at_address.client.directory_url)
    assert "caaIdentities" not in directory.json["meta"]


async def proved(ca, *records: tuple[int, str, str]) -> tuple[str, str]:
    """With these CAA records at the name: what becomes of the order, and the type of its challenge's error."""
    name = ca.name()
    ca.dns.add(name, "CAA", *records)
    account = await ca.account()
    order = await account.order(name)
    challenge = await order.challenge()
    ca.web.serve_token(challenge["token"], account.key_authorization(challenge["token"]))
    await account.post(challenge["url"], {})
    settled = await account.settled(order.object["authorizations"][0])
    error = next((one["error"]["type"] for one in settled["challenges"] if "error" in one), "")
    return settled["status"], error.rpartition(":")[2]


@pytest.mark.parametrize("issuer", ["192.0.2.1", "ca.test", ";"], ids=["its address", "a name", "nobody"])
async def test_whatever_an_issue_record_says_it_forbids(at_address, issuer):
    assert await proved(at_address, (0, "issue", issuer)) == ("invalid", "caa")


async def test_records_that_restrict_no_issuer_permit(at_address):
    assert await proved(at_address, (0, "iodef", "mailto:security@example.test")) == ("valid", "")


async def test_a_name_may_be_given_to_it(new_ca):
    async with new_ca(public_url="https://192.0.2.1", caa={"identities": "ca.test"}) as ca:
        assert await proved(ca, (0, "issue", "ca.test")) == ("valid", "")
        assert await proved(ca, (0, "issue", "other.test")) == ("invalid", "caa")
