"""What the supervisor says when it is ready."""

import os
import shlex
from pathlib import Path

import pytest

from acme_ca import config
from acme_ca.server import welcome


def settings(monkeypatch, **overrides) -> config.Settings:
    for name in [name for name in os.environ if name.startswith("ACME_CA_")]:
        monkeypatch.delenv(name)
    return config.load(**overrides)


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "with space").mkdir()
    file = tmp_path / "with space" / "root.pem"
    file.write_text("")
    return file


def words(line: str) -> list[str]:
    return shlex.split(line)


def test_in_development_the_lines_need_neither_root_nor_dns(monkeypatch, root):
    monkeypatch.setattr(welcome, "_open_to_all", lambda path: True)
    certbot, lego = (words(line) for line in welcome.first_certificate(settings(monkeypatch, dev=True), root))
    assert certbot[:2] == [f"REQUESTS_CA_BUNDLE={root}", "certbot"]
    assert lego[:2] == [f"LEGO_CA_CERTIFICATES={root}", "lego"]
    assert certbot[certbot.index("--http-01-port") + 1] == "5002"
    assert lego[lego.index("--http.port") + 1] == ":5002"
    assert certbot[certbot.index("-d") + 1] == lego[lego.index("--domains") + 1] == "hello.localhost"


def test_in_production_the_lines_use_the_standard_port(monkeypatch, root):
    lines = welcome.first_certificate(settings(monkeypatch), root)
    assert not any("port" in line for line in lines)
    assert "localhost -d" not in lines[0]


def test_the_lines_ask_for_a_name_that_the_policy_allows(monkeypatch, root):
    restricted = settings(monkeypatch, dev=True, policy={"allowed_domains": ("vcc.internal",)})
    certbot, _ = welcome.first_certificate(restricted, root)
    assert "-d host.vcc.internal " in certbot


def test_the_lines_bind_an_external_account_when_one_is_required(monkeypatch, root):
    certbot, lego = welcome.first_certificate(settings(monkeypatch, eab_required=True), root)
    assert "--eab-kid KID --eab-hmac-key=HMAC" in certbot
    assert "--eab --kid KID --hmac=HMAC" in lego


def test_a_root_certificate_that_others_cannot_reach_is_fetched(monkeypatch, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "root.pem").write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    certbot, _ = welcome.first_certificate(settings(monkeypatch, dev=True), closed / "root.pem")
    assert certbot.startswith("curl -fsS -o ~/acme-ca-root.pem http://localhost:8080/ca/root.pem && ")


def test_the_text_says_what_there_is_to_know(monkeypatch, root, capsys):
    welcome.say(settings(monkeypatch, dev=True), root=root, fingerprint="00abcd" * 10 + "0102")
    said = capsys.readouterr().out
    assert "DEVELOPMENT MODE" in said
    assert "https://localhost:8443/acme/directory" in said
    assert str(root) in said
    assert "00:AB:CD:" * 10 + "01:02" in said  # ":AB:" is an emoji to some
    assert sum("certbot certonly" in line for line in said.splitlines()) == 1


def test_without_development_mode_there_is_no_such_notice(monkeypatch, root, capsys):
    welcome.say(settings(monkeypatch), root=root, fingerprint="ab" * 32)
    assert "DEVELOPMENT" not in capsys.readouterr().out
