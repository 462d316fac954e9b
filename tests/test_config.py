"""Settings: defaults < TOML file < environment < command line; a wrong one stops the start with one sentence."""

import os
import re
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca import config
from acme_ca.config import ConfigurationError, Endpoint, Settings
from acme_ca.core.challenges import ChallengeType
from acme_ca.core.policy import NamePolicy


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing is set but what the test sets."""
    for name in list(os.environ):
        if name.upper().startswith(("ACME_CA_", "VCC_")):
            monkeypatch.delenv(name)
    return monkeypatch


def toml(environment, directory, text: str) -> None:
    path = directory / "acme-ca.toml"
    path.write_text(text)
    environment.setenv("ACME_CA_CONFIG", str(path))


def refusal(**overrides: object) -> str:
    """The one sentence with which the start ends."""
    with pytest.raises(ConfigurationError) as refused:
        config.load(**overrides)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert re.fullmatch(r"ACME_CA_[A-Z0-9_]+\b.+\.", sentence), sentence
    return sentence


# ---------------------------------------------------------------- defaults


def test_the_defaults_are_for_production():
    settings = config.load()
    assert not settings.dev
    assert (str(settings.https_listen), str(settings.http_listen)) == ("127.0.0.1:8443", "127.0.0.1:8080")
    assert (settings.validation.http01_port, settings.validation.tlsalpn01_port) == (80, 443)
    assert settings.validation.allow_networks == ()
    assert settings.validation.challenges == tuple(ChallengeType)
    assert settings.caa.enabled
    assert not settings.eab_required
    assert settings.policy.name_policy() == NamePolicy()
    assert settings.database_url is None
    assert (settings.public_host, settings.caa_identities) == ("localhost", ("localhost",))
    assert 1 <= settings.workers <= 4


@pytest.mark.parametrize("value", ["true", "t", "1", "yes", "y", "on", "TRUE", "Y"])
def test_development_mode_has_other_ports_and_trusts_localhost(environment, value):
    environment.setenv("ACME_CA_DEV", value)
    settings = config.load()
    assert settings.dev
    assert (settings.validation.http01_port, settings.validation.tlsalpn01_port) == (5002, 5001)
    assert settings.caa_exempt == ("localhost",)


@pytest.mark.parametrize("value", ["false", "f", "0", "no", "n", "off", "N"])
def test_without_development_mode_nothing_of_it(environment, value):
    environment.setenv("ACME_CA_DEV", value)
    settings = config.load()
    assert not settings.dev
    assert (settings.validation.http01_port, settings.validation.tlsalpn01_port) == (80, 443)
    assert settings.caa_exempt == ()


def test_development_mode_from_the_command_line(environment):
    environment.setenv("ACME_CA_VALIDATION__HTTP01_PORT", "8000")
    settings = config.load(dev=True)
    assert (settings.validation.http01_port, settings.validation.tlsalpn01_port) == (8000, 5001)


# ---------------------------------------------------------------- sources


def test_each_source_beats_the_one_before(environment, tmp_path):
    toml(
        environment,
        tmp_path,
        'public_url = "https://file.test"\npublic_http_url = "http://file.test"\nworkers = 3\n'
        '[validation]\nhttp01_port = 81\ntlsalpn01_port = 444\n[policy]\nallowed_domains = ["file.test", "b.test"]\n',
    )
    environment.setenv("ACME_CA_PUBLIC_URL", "https://environment.test")
    environment.setenv("ACME_CA_WORKERS", "4")
    environment.setenv("ACME_CA_VALIDATION__HTTP01_PORT", "82")
    settings = config.load(workers=5, website=None)
    assert settings.public_http_url == "http://file.test"
    assert settings.public_url == "https://environment.test"
    assert settings.workers == 5
    assert (settings.validation.http01_port, settings.validation.tlsalpn01_port) == (82, 444)
    assert settings.policy.allowed_domains == ("file.test", "b.test")


def test_a_toml_file_has_every_kind_of_value(environment, tmp_path):
    toml(
        environment,
        tmp_path,
        """
        dev = true
        https_listen = "0.0.0.0:443"
        database_url = "postgresql://u:p@db/x"
        eab_required = true
        [validation]
        resolvers = ["10.0.0.53:53", "vcc.internal=10.0.0.54:53"]
        allow_networks = ["127.0.0.0/8"]
        challenges = "dns-01"
        timeout = 2.5
        [test]
        reject_nonces = 0.1
        """,
    )
    settings = config.load()
    assert str(settings.https_listen) == "0.0.0.0:443"
    assert settings.database_url.get_secret_value() == "postgresql://u:p@db/x"
    assert [(one.zone, str(one.server)) for one in settings.validation.resolvers] == [
        ("", "10.0.0.53:53"),
        ("vcc.internal", "10.0.0.54:53"),
    ]
    assert settings.validation.challenges == (ChallengeType.DNS_01,)
    assert (settings.validation.timeout, settings.test.reject_nonces) == (2.5, 0.1)


LISTS = {
    "ACME_CA_VALIDATION__RESOLVERS": "10.0.0.1:53, [2001:db8::1]:53 ,vcc.internal=10.0.0.2:5353",
    "ACME_CA_VALIDATION__ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
    "ACME_CA_VALIDATION__REFUSE_NETWORKS": "10.9.0.0/16",
    "ACME_CA_VALIDATION__CHALLENGES": "dns-01, http-01",
    "ACME_CA_VALIDATION__REDIRECT_PORTS": "8080,8443",
    "ACME_CA_POLICY__ALLOWED_DOMAINS": ".vcc.internal,Example.TEST,",
    "ACME_CA_POLICY__DENIED_DOMAINS": "secret.vcc.internal",
    "ACME_CA_POLICY__ALLOWED_IP_NETWORKS": "10.0.0.0/8",
    "ACME_CA_CAA__IDENTITIES": "ca.test,ca2.test",
    "ACME_CA_CAA__EXEMPT_DOMAINS": "vcc.internal",
}


def test_lists_are_separated_by_commas(environment):
    for name, value in LISTS.items():
        environment.setenv(name, value)
    settings = config.load()
    validation, policy, caa = settings.validation, settings.policy, settings.caa
    assert [(one.zone, str(one.server)) for one in validation.resolvers] == [
        ("", "10.0.0.1:53"),
        ("", "[2001:db8::1]:53"),
        ("vcc.internal", "10.0.0.2:5353"),
    ]
    assert validation.allow_networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert validation.refuse_networks == (ip_network("10.9.0.0/16"),)
    assert validation.challenges == (ChallengeType.DNS_01, ChallengeType.HTTP_01)
    assert validation.redirect_ports == (8080, 8443)
    assert policy.allowed_domains == ("vcc.internal", "example.test")
    assert policy.denied_domains == ("secret.vcc.internal",)
    assert policy.allowed_ip_networks == (ip_network("10.0.0.0/8"),)
    assert (caa.identities, caa.exempt_domains) == (("ca.test", "ca2.test"), ("vcc.internal",))
    assert settings.caa_identities == ("ca.test", "ca2.test")


@given(
    st.lists(st.ip_addresses(v=4).map(lambda address: f"{address}/32"), max_size=5),
    st.sampled_from([",", " , ", ",,"]),
)
def test_any_list_of_networks_is_read(networks, separator):
    read = Settings(validation={"allow_networks": separator.join(networks)}).validation.allow_networks
    assert [str(network) for network in read] == networks


# ---------------------------------------------------------------- wrong values

WRONG = {
    "ACME_CA_HTTPS_LISTEN": [
        "8443",
        "host",
        "host:",
        ":8443",
        "host:0",
        "host:65536",
        "a:b:c",
        "::1:8443",
        "host:-1",
    ],
    "ACME_CA_HTTP_LISTEN": ["8080"],
    "ACME_CA_PUBLIC_URL": [
        "http://ca.test",
        "ca.test",
        "https://",
        "https://ca.test/acme",
        "https://ca.test?x=1",
        "https://ca.test#x",
        "ftp://ca.test",
        "",
    ],
    "ACME_CA_PUBLIC_HTTP_URL": ["ca.test", "ldap://ca.test", "http://ca.test/x"],
    "ACME_CA_DATABASE_URL": ["mysql://x/y", "postgres", "postgresql:", "/var/run", "postgresql://h:port/x"],
    "ACME_CA_DATABASE_CONNECTIONS": ["0", "201", "many"],
    "ACME_CA_WORKERS": ["0", "-1", "257", "two", "1.5", ""],
    "ACME_CA_EAB_REQUIRED": ["maybe", "2"],
    "ACME_CA_DEV": ["perhaps"],
    "ACME_CA_TERMS_OF_SERVICE": [
        "terms.html",
        "javascript:x",
        "https://",
        "https://ca.test/a b",
        "https://ca.test/\nX: y",
    ],
    "ACME_CA_WEBSITE": ["example.test"],
    "ACME_CA_MAX_IDENTIFIERS": ["0", "101"],
    "ACME_CA_MAX_CONTACTS": ["-1", "101"],
    "ACME_CA_ORDERS_PAGE": ["0", "1001"],
    "ACME_CA_SHUTDOWN_GRACE": ["0", "-1", "soon", "inf", "nan"],
    "ACME_CA_RETENTION": ["0", "nan", "1e12"],
    "ACME_CA_EVIDENCE_RETENTION": ["0", "nan", "86400"],
    "ACME_CA_VALIDATION": ["x", "[]", "1"],
    "ACME_CA_VALIDATION__HTTP01_PORT": ["0", "65536", "http"],
    "ACME_CA_VALIDATION__TLSALPN01_PORT": ["0"],
    "ACME_CA_VALIDATION__REDIRECT_PORTS": ["http", "0"],
    "ACME_CA_VALIDATION__RESOLVERS": [
        "10.0.0.1",
        "dns.test:53",
        "10.0.0.1:x",
        "=10.0.0.1:53x",
        "a_b=10.0.0.1:53",
    ],
    "ACME_CA_VALIDATION__ALLOW_NETWORKS": ["10.0.0.1/8", "everything", "10.0.0.0/33", "127.0.0.1/8"],
    "ACME_CA_VALIDATION__REFUSE_NETWORKS": ["x"],
    "ACME_CA_VALIDATION__CHALLENGES": ["fax-01", "http-01,DNS-01", ","],
    "ACME_CA_VALIDATION__TIMEOUT": ["0", "-1", "nan"],
    "ACME_CA_VALIDATION__ATTEMPTS": ["0", "11"],
    "ACME_CA_VALIDATION__REUSE": ["-1"],
    "ACME_CA_VALIDATION__CONCURRENCY": ["0"],
    "ACME_CA_POLICY__ALLOWED_DOMAINS": [
        "a b",
        "*.vcc.internal",
        "https://x",
        "127.0.0.1",
        "ok.test,a_b.test",
    ],
    "ACME_CA_POLICY__DENIED_DOMAINS": ["-", "*.secret.internal"],
    "ACME_CA_POLICY__ALLOWED_IP_NETWORKS": ["ten"],
    "ACME_CA_CAA__ENABLED": ["x"],
    "ACME_CA_CAA__IDENTITIES": ["not a domain"],
    "ACME_CA_CAA__EXEMPT_DOMAINS": ["a..b", "*.vcc.internal"],
    "ACME_CA_NONCE__LIFETIME": ["9", "86401", "long"],
    "ACME_CA_TEST__REJECT_NONCES": ["1.1", "-0.1"],
    "ACME_CA_TEST__DELAY_ISSUANCE": ["301", "-1"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_told_in_one_sentence_that_names_the_setting(environment, name, value):
    if name.startswith("ACME_CA_TEST__"):
        environment.setenv("ACME_CA_DEV", "true")
    environment.setenv(name, value)
    assert refusal().startswith(f"{name}: ")


@pytest.mark.parametrize("setting", ["reject_nonces", "delay_issuance"])
def test_misbehaviour_needs_the_development_mode(environment, setting):
    """Lesson 27."""
    environment.setenv(f"ACME_CA_TEST__{setting.upper()}", "0.5")
    with pytest.raises(ConfigurationError, match="--dev"):
        config.load()
    assert getattr(config.load(dev=True).test, setting) == 0.5
    environment.setenv("ACME_CA_DEV", "false")
    assert refusal().startswith("ACME_CA_TEST"), "the setting is named"


def test_a_secret_is_not_in_the_sentence(environment):
    environment.setenv("ACME_CA_DATABASE_URL", "mysql://user:hunter2@db/x")
    assert "hunter2" not in refusal()


def test_a_secret_is_not_in_the_text_of_the_settings(environment):
    environment.setenv("ACME_CA_DATABASE_URL", "postgresql://user:hunter2@db/x")
    environment.setenv("ACME_CA_CA_PASSWORD", "hunter2")
    assert "hunter2" not in f"{config.load()!r} {config.load()}"


# ---------------------------------------------------------------- wrong files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers = 0", "ACME_CA_WORKERS"),
        ("[validation]\nhttp01_port = 'x'", "ACME_CA_VALIDATION__HTTP01_PORT"),
        ("[policy]\nallowed_domains = ['a b']", "ACME_CA_POLICY__ALLOWED_DOMAINS"),
        ("wrokers = 1", "ACME_CA_WROKERS"),
        ("[validation]\nhttp_port = 1", "ACME_CA_VALIDATION__HTTP_PORT"),
        ("validation = 1", "ACME_CA_VALIDATION"),
        ("workers = ", "ACME_CA_CONFIG"),
        ("\0", "ACME_CA_CONFIG"),
    ],
)
def test_a_wrong_file_is_told_in_one_sentence(environment, tmp_path, text, words):
    toml(environment, tmp_path, text)
    assert refusal().startswith(words)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_file_that_is_not_there(environment, tmp_path, kind):
    place = tmp_path if kind == "folder" else tmp_path / "nothing.toml"
    environment.setenv("ACME_CA_CONFIG", str(place))
    assert refusal().startswith("ACME_CA_CONFIG")


def test_a_file_that_is_no_text(environment, tmp_path):
    path = tmp_path / "acme-ca.toml"
    path.write_bytes(b"\xff\xfe\x00")
    environment.setenv("ACME_CA_CONFIG", str(path))
    assert refusal().startswith("ACME_CA_CONFIG")


# ---------------------------------------------------------------- the password


def test_where_the_password_comes_from(environment, tmp_path):
    """The setting, the first line of its file, or VCC_CA_PASSWORD; in this order."""
    assert config.ca_password(config.load()) is None
    environment.setenv("VCC_CA_PASSWORD", "legacy")
    assert config.ca_password(config.load()).get_secret_value() == "legacy"
    path = tmp_path / "password"
    path.write_text("of the file \r\nsecond line\n")
    environment.setenv("ACME_CA_CA_PASSWORD_FILE", str(path))
    assert config.ca_password(config.load()).get_secret_value() == "of the file "
    environment.setenv("ACME_CA_CA_PASSWORD", "setting")
    assert config.ca_password(config.load()).get_secret_value() == "setting"


@pytest.mark.parametrize("content", [None, b"", b"\nsecond line", b"\xff\xfe"])
def test_a_password_file_that_has_none(environment, tmp_path, content):
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    environment.setenv("ACME_CA_CA_PASSWORD_FILE", str(path))
    with pytest.raises(ConfigurationError, match=r"^ACME_CA_CA_PASSWORD_FILE: .*\.$"):
        config.ca_password(config.load())


# ---------------------------------------------------------------- slips of the pen


def test_unknown_variables_are_found():
    names = [
        "ACME_CA_WROKERS",
        "ACME_CA_WORKERS",
        "acme_ca_dev",
        "ACME_CA_CONFIG",
        "ACME_CA_REQUIRE_CLIENTS",
        "ACME_CA_VALIDATION__HTTP01_PORT",
        "ACME_CA_VALIDATION_HTTP01_PORT",
        "PATH",
    ]
    assert config.unknown_variables(names) == ["ACME_CA_VALIDATION_HTTP01_PORT", "ACME_CA_WROKERS"]


def test_a_variable_for_the_scripts_is_no_setting(environment):
    environment.setenv("ACME_CA_REQUIRE_CLIENTS", "1")
    assert config.load()


# ---------------------------------------------------------------- what follows from settings


@pytest.mark.parametrize(
    ("value", "exempt"), [(None, ("own.test",)), ("other.test", ("other.test",)), ("", ())]
)
def test_whose_caa_records_are_not_asked_for(environment, value, exempt):
    """The operator's own names, unless others are listed, or none."""
    environment.setenv("ACME_CA_POLICY__ALLOWED_DOMAINS", "own.test")
    if value is not None:
        environment.setenv("ACME_CA_CAA__EXEMPT_DOMAINS", value)
    assert config.load().caa_exempt == exempt
    assert config.load(dev=True).caa_exempt == (*exempt, "localhost")


@pytest.mark.parametrize(
    ("url", "host", "identities"),
    [
        ("https://CA.vcc.internal:8443/", "ca.vcc.internal", ("ca.vcc.internal",)),
        ("https://192.0.2.1", "192.0.2.1", ()),
        ("https://[2001:db8::1]:8443", "2001:db8::1", ()),
    ],
)
def test_the_host_of_the_public_url(url, host, identities):
    settings = config.load(public_url=url)
    assert (settings.public_host, settings.caa_identities) == (host, identities)
    assert not settings.public_url.endswith("/")


@given(st.ip_addresses() | st.sampled_from(["localhost", "ca.vcc.internal"]), st.integers(1, 65535))
def test_reading_an_endpoint_that_was_printed_gives_the_same(host, port):
    endpoint = Endpoint(host=str(host), port=port)
    assert Endpoint.model_validate(str(endpoint)) == endpoint
