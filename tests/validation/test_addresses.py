"""Which addresses may be dialled: lesson 7."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.validation.network import AddressRules

DEFAULT = AddressRules()

ALLOWED = {
    "public IPv4": "198.41.0.4",
    "public IPv6": "2620:fe::fe",
    "10/8": "10.1.2.3",
    "172.16/12, first": "172.16.0.0",
    "172.16/12, last": "172.31.255.255",
    "192.168/16": "192.168.0.1",
    "100.64/10 (shared)": "100.64.0.1",
    "unique local": "fd12:3456::1",
    "IPv4-mapped private": "::ffff:10.0.0.1",
    "6to4 of a public one": "2002:c629:4::1",
    "NAT64 of a private one": "64:ff9b::10.0.0.1",
}
REFUSED = {
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "loopback": "127.0.0.1",
    "loopback, other": "127.255.255.254",
    "link-local": "169.254.1.1",
    "IETF assignments": "192.0.0.1",
    "multicast": "224.0.0.1",
    "multicast, last": "239.255.255.255",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 unspecified": "::",
    "IPv6 loopback": "::1",
    "IPv6 link-local": "fe80::1",
    "IPv6 site-local (deprecated)": "fec0::1",
    "IPv6 multicast": "ff02::1",
    "IPv6 discard": "100::1",
    "IPv6 outside 2000::/3": "4000::1",
    "IPv4-mapped loopback": "::ffff:127.0.0.1",
    "IPv4-mapped link-local": "::ffff:169.254.1.1",
    "IPv4-compatible loopback": "::127.0.0.1",
    "IPv4-compatible public": "::198.41.0.4",
    "6to4 of loopback": "2002:7f00:1::1",
    "NAT64 of loopback": "64:ff9b::7f00:1",
    "NAT64 (local prefix) of loopback": "64:ff9b:1::7f00:1",
    "Teredo, server loopback": "2001:0:7f00:1::",
    "Teredo, client loopback": "2001:0:c629:4:0:0:80ff:fffe",
    "ISATAP of loopback": "2620:fe::5efe:7f00:1",
}
METADATA = {
    "AWS and most": "169.254.169.254",
    "ECS": "169.254.170.2",
    "EKS": "169.254.170.23",
    "AWS IPv6": "fd00:ec2::254",
    "EKS IPv6": "fd00:ec2::23",
    "GCP IPv6": "fd20:ce::254",
    "Alibaba": "100.100.100.200",
    "Oracle": "192.0.0.192",
    "Azure": "168.63.129.16",
    "IPv4-mapped": "::ffff:169.254.169.254",
    "6to4": "2002:a9fe:a9fe::1",
    "NAT64": "64:ff9b::a9fe:a9fe",
}


@pytest.mark.parametrize("address", ALLOWED.values(), ids=ALLOWED)
def test_allowed_by_default(address):
    assert DEFAULT.refusal(ip_address(address)) is None


@pytest.mark.parametrize("address", REFUSED.values(), ids=REFUSED)
def test_refused_by_default_naming_the_setting(address):
    assert "validation.allow_networks" in DEFAULT.refusal(ip_address(address))


@pytest.mark.parametrize("address", METADATA.values(), ids=METADATA)
def test_metadata_services_are_refused_whatever_is_allowed(address):
    everything = AddressRules(allow=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    assert "metadata" in everything.refusal(ip_address(address))


def test_allow_networks_opens_loopback_and_nothing_beside_it():
    rules = AddressRules(allow=(ip_network("127.0.0.1/32"), ip_network("::1/128")))
    assert rules.refusal(ip_address("127.0.0.1")) is None
    assert rules.refusal(ip_address("::1")) is None
    assert rules.refusal(ip_address("::ffff:127.0.0.1")) is None
    assert rules.refusal(ip_address("127.0.0.2"))


def test_refuse_networks_wins_over_all():
    rules = AddressRules(
        allow=(ip_network("127.0.0.0/8"),), refuse=(ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"))
    )
    for address in ("127.0.0.1", "10.1.1.1", "::ffff:10.1.1.1", "2002:a01:101::1"):
        assert "validation.refuse_networks" in rules.refusal(ip_address(address))
    assert rules.refusal(ip_address("127.0.0.2")) is None


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_never_freer_than_itself(inner: IPv4Address):
    number = int(inner)
    carriers = [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x20010000 << 96) | (number << 64) | (int(IPv4Address("198.41.0.4")) ^ 0xFFFFFFFF)),
        IPv6Address((0x2620 << 112) | (0x5EFE << 32) | number),
    ]
    refused = DEFAULT.refusal(inner) is not None
    assert [DEFAULT.refusal(carrier) is not None for carrier in carriers] == [refused] * len(carriers)


@given(st.ip_addresses())
def test_every_address_has_a_verdict(address):
    assert isinstance(DEFAULT.refusal(address), str | None)
