"""What a registered service may say of itself, and what follows from it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from acme_ca.core.ids import read_serial
from acme_ca.core.services import Service, differences, origins
from acme_ca.core.states import SERVICE_TRANSITIONS, ServiceState
from tests.support.issuing import names

MINIMAL = {"service_id": "orders", "name": "Orders", "owner": "Team Trade"}


def service(**fields) -> Service:
    return Service.model_validate({**MINIMAL, **fields})


REFUSED = {
    "an empty id": ({"service_id": ""}, "service_id"),
    "capitals in the id": ({"service_id": "Orders"}, "service_id"),
    "a slash in the id": ({"service_id": "a/b"}, "service_id"),
    "an id that ends with a line": ({"service_id": "orders\n"}, "service_id"),
    "a long id": ({"service_id": "a" * 64}, "service_id"),
    "an id that is a serial number": ({"service_id": "0a" * 16}, "serial number"),
    "no name": ({"name": ""}, "name"),
    "a name with an escape": ({"name": "\x1b[31m"}, "name"),
    "a name with NUL": ({"name": "a\0"}, "name"),
    "a long owner": ({"owner": "a" * 201}, "owner"),
    "a contact that is none": ({"contacts": [""]}, "contacts"),
    "many contacts": ({"contacts": ["a"] * 21}, "contacts"),
    "an endpoint that is no URL": ({"endpoints": ["orders.example"]}, "http or https"),
    "a file": ({"endpoints": ["file:///etc/passwd"]}, "http or https"),
    "a script": ({"health_url": "javascript:alert(1)"}, "http or https"),
    "a URL without a host": ({"health_url": "https:///health"}, "http or https"),
    "a URL with a password": ({"health_url": "https://me:secret@orders.example/"}, "leave them out"),
    "a URL with a space": ({"health_url": "https://orders.example/a b"}, "no spaces"),
    "a URL with a line": ({"health_url": "https://orders.example/\n"}, "printable"),
    "a URL with a wrong port": ({"health_url": "https://orders.example:99999/"}, "Port out of range"),
    "a URL with half an address": ({"health_url": "https://[::1/"}, "Invalid IPv6"),
    "an empty URL": ({"health_url": ""}, "http or https"),
    "a long URL": ({"health_url": "https://orders.example/" + "a" * 500}, "500"),
    "metadata in metadata": ({"metadata": {"a": {"b": "c"}}}, "metadata"),
    "a list in metadata": ({"metadata": {"a": ["b"]}}, "metadata"),
    "metadata without end": ({"metadata": {str(n): "a" for n in range(51)}}, "metadata"),
    "metadata under no name": ({"metadata": {"": "a"}}, "metadata"),
    "a number that is none": ({"metadata": {"a": float("nan")}}, "metadata"),
    "a number beyond JSON's": ({"metadata": {"a": 2**53}}, "metadata"),
    "a domain that is no name": ({"domains": ["not a name"]}, "domains"),
    "a domain twice": ({"domains": ["a.example", "A.example"]}, "named twice"),
    "many domains": ({"domains": [f"n{n}.example" for n in range(101)]}, "domains"),
    "a tag with a space": ({"tags": ["a b"]}, "tags"),
    "a state": ({"state": "approved"}, "state"),
    "a field that there is not": ({"hmac": "a"}, "hmac"),
}


@pytest.mark.parametrize(("fields", "told"), REFUSED.values(), ids=REFUSED)
def test_refused(fields, told):
    with pytest.raises(ValidationError, match=told):
        service(**fields)


def test_a_service_is_written_and_read():
    made = service(
        version="2.1",
        contacts=["trade@example.org"],
        endpoints=["https://orders.example:8443/v1", "http://[2001:db8::1]/"],
        health_url="https://orders.example/health",
        metadata={"tier": 1, "critical": True, "load": 0.5, "zone": "eu"},
        domains=["Orders.Example", "*.orders.example", "2001:db8::1"],
        tags=["trade", "env:prod"],
    )
    assert made.domains == ("orders.example", "*.orders.example", "2001:db8::1")
    assert Service.model_validate_json(made.model_dump_json()) == made
    assert [type(made.metadata[key]) for key in ("tier", "critical", "load", "zone")] == [
        int,
        bool,
        float,
        str,
    ]


@given(st.integers(0, 2**128 - 1))
def test_no_service_has_the_id_of_a_certificate(number):
    with pytest.raises(ValidationError):
        service(service_id=read_serial(f"{number:032x}"))


@pytest.mark.parametrize(
    ("domains", "for_", "not_for"),
    [
        ([], [], []),
        (["a.example"], ["a.example"], ["b.a.example", "*.a.example"]),
        (["*.a.example"], ["*.a.example", "b.a.example"], ["a.example", "c.b.a.example"]),
        (["192.0.2.1"], ["192.0.2.1"], ["192.0.2.2", "a.example"]),
    ],
)
def test_its_domains_are_what_its_keys_are_for(domains, for_, not_for):
    rules = service(domains=domains).name_rules
    assert [any(rule.matches(name) for rule in rules) for name in names(*for_, *not_for)] == [
        *([True] * len(for_)),
        *([False] * len(not_for)),
    ]


def test_differences_name_what_is_another_now():
    assert differences(service(), service(version="2", tags=["a"])) == {
        "version": {"before": "", "after": "2"},
        "tags": {"before": [], "after": ["a"]},
    }


def test_origins_are_the_table_read_backwards():
    assert {(before, state) for state in ServiceState for before in origins(state)} == {
        (before, state) for before, following in SERVICE_TRANSITIONS.items() for state in following
    }
