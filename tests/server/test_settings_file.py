"""The settings in a backup: what was set comes back, and what is secret does not leave."""

import os
import tomllib

import pytest

from acme_ca import config
from acme_ca.config import Settings
from acme_ca.server import settings_file

SET = {
    "ACME_CA_DATA": '/var/lib/acme "ca"\\x',
    "ACME_CA_WORKERS": "3",
    "ACME_CA_DEV": "true",
    "ACME_CA_HTTPS_LISTEN": "[::1]:8443",
    "ACME_CA_PUBLIC_URL": "https://ca.example:8443",
    "ACME_CA_VALIDATION__RESOLVERS": "10.0.0.53:53,corp.example=10.0.0.54:53",
    "ACME_CA_VALIDATION__ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
    "ACME_CA_VALIDATION__CHALLENGES": "http-01",
    "ACME_CA_VALIDATION__RETRY_DELAY": "0.5",
    "ACME_CA_POLICY__ALLOWED_DOMAINS": "corp.example,xn--bcher-kva.example",
    "ACME_CA_CRL__MAX_AGE": "30",
}
SECRETS = {
    "ACME_CA_CA_PASSWORD": "correct horse",
    "ACME_CA_DATABASE_URL": "postgresql://ca:hunter2@db.example/ca",
}


@pytest.fixture
def settings(monkeypatch) -> Settings:
    for name in [name for name in os.environ if name.startswith("ACME_CA_")]:
        monkeypatch.delenv(name)
    for name, value in {**SET, **SECRETS}.items():
        monkeypatch.setenv(name, value)
    return config.load()


def test_what_was_set_comes_back(settings, monkeypatch, tmp_path):
    file = tmp_path / "acme-ca.toml"
    file.write_text(settings_file.text(settings))
    for name in (*SET, *SECRETS):
        monkeypatch.delenv(name)
    monkeypatch.setenv("ACME_CA_CONFIG", str(file))
    again = config.load()
    assert again == settings.model_copy(update={"ca_password": None, "database_url": None})


def test_secrets_are_named_and_left_out(settings):
    text = settings_file.text(settings)
    assert "hunter2" not in text
    assert "correct horse" not in text
    assert "# ca_password was set" in text
    assert "# database_url was set" in text


def test_what_was_not_set_is_not_said(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ACME_CA_")]:
        monkeypatch.delenv(name)
    assert tomllib.loads(settings_file.text(config.load())) == {}
