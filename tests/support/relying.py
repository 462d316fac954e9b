"""Relying parties that are not ours: what openssl, GnuTLS and Java's PKIX validator say of a certificate.

    party = Party(place=tmp_path, root=root, intermediates=(issuer,), crls=(crl,))
    openssl_verify(leaf, party, crls="leaf").status is Status.REVOKED
    java_validate(party, Question(leaf, "ocsp"), Question(other, "crldp"))

The programs are asked for by `find` of tests/support/clients.py. Certificates are of cryptography, CRLs and OCSP
responses DER.
"""

from __future__ import annotations

import atexit
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.clients import find

TIME_LIMIT = 60.0
JAVA_SOURCE = Path(__file__).with_name("PkixValidate.java")

Scope = Literal["leaf", "chain"]


class Status(StrEnum):
    VALID = "VALID"
    REVOKED = "REVOKED"
    UNKNOWN = "UNKNOWN"
    """An OCSP responder does not know the certificate."""
    REFUSED = "REFUSED"
    """Anything else that does not let the certificate pass."""


@dataclass(frozen=True, slots=True)
class Verdict:
    status: Status
    reason: str
    """In the program's words; of a revocation, where it gives one; empty for what is valid."""
    said: str
    """All of the program's output."""


def assert_valid(*verdicts: Verdict) -> None:
    _assert_all(Status.VALID, verdicts)


def assert_revoked(*verdicts: Verdict) -> None:
    _assert_all(Status.REVOKED, verdicts)


def assert_refused(*verdicts: Verdict) -> None:
    """Neither valid nor revoked: no good answer was to be had."""
    _assert_all(Status.REFUSED, verdicts)


def _assert_all(status: Status, verdicts: Sequence[Verdict]) -> None:
    assert verdicts
    for verdict in verdicts:
        assert verdict.status is status, f"{verdict.status}: {verdict.said}"


@dataclass(frozen=True, kw_only=True)
class Party:
    """What a relying party has: an anchor, certificates and CRLs that were handed to it, a folder for them."""

    place: Path
    root: x509.Certificate
    intermediates: Sequence[x509.Certificate] = ()
    crls: Sequence[bytes] = ()

    def with_crls(self, *crls: bytes) -> Party:
        return replace(self, crls=crls)

    def with_intermediates(self, *intermediates: x509.Certificate) -> Party:
        return replace(self, intermediates=intermediates)

    def certificates(self, *certificates: x509.Certificate) -> Path:
        """A PEM file of them."""
        return self._file(b"".join(c.public_bytes(Encoding.PEM) for c in certificates), "pem")

    def crl_file(self) -> Path:
        """A PEM file of all its CRLs."""
        loaded = (x509.load_der_x509_crl(crl) for crl in self.crls)
        return self._file(b"".join(crl.public_bytes(Encoding.PEM) for crl in loaded), "crl")

    def der(self, content: bytes) -> Path:
        return self._file(content, "der")

    def _file(self, content: bytes, suffix: str) -> Path:
        path = self.place / f"{sha256(content).hexdigest()[:16]}.{suffix}"
        path.write_bytes(content)
        return path


# ---------------------------------------------------------------- openssl


def openssl_verify(
    leaf: x509.Certificate,
    party: Party,
    *,
    crls: Scope | None = None,
    deltas: bool = False,
    purpose: str = "sslserver",
) -> Verdict:
    """`openssl verify`. `crls`: whose CRLs it must have."""
    words = ["-x509_strict", "-no-CApath", "-no-CAstore", "-purpose", purpose, "-CAfile"]
    words += [party.certificates(party.root)]
    if party.intermediates:
        words += ["-untrusted", party.certificates(*party.intermediates)]
    if party.crls:
        words += ["-CRLfile", party.crl_file()]
    words += {"leaf": ["-crl_check"], "chain": ["-crl_check_all"], None: []}[crls]
    words += ["-extended_crl", "-use_deltas"] if deltas else []
    done = _run("openssl", "verify", *words, party.certificates(leaf))
    error = re.search(r"^error (\d+) at .*: (.*)$", done.said, re.MULTILINE)
    if done.status == 0 and error is None:
        return Verdict(Status.VALID, "", done.said)
    number, reason = error.groups() if error else ("", _last_line(done.said))
    return Verdict(Status.REVOKED if number == "23" else Status.REFUSED, reason, done.said)


def openssl_crl(crl: bytes, issuer: x509.Certificate, party: Party) -> Verdict:
    """`openssl crl -verify`: whether the issuer signed it. What it reads in it is in `said`."""
    words = [
        "-inform",
        "DER",
        "-in",
        party.der(crl),
        "-noout",
        "-text",
        "-verify",
        "-no-CApath",
        "-no-CAstore",
    ]
    done = _run("openssl", "crl", *words, "-CAfile", party.certificates(issuer))
    return _ok("verify OK" in done.said, done.said)


def openssl_ocsp(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    party: Party,
    *,
    url: str | None = None,
    response: bytes | None = None,
    nonce: bool = True,
    certid: Literal["sha1", "sha256"] = "sha1",
) -> Verdict:
    """`openssl ocsp`, by POST to `url` or of a `response` that is there. With `nonce`, an answer without it is refused."""
    words = ["-CAfile", party.certificates(party.root), "-no-CApath", "-no-CAstore"]
    if party.intermediates:
        words += ["-verify_other", party.certificates(*party.intermediates)]
    words += ["-url", url] if url is not None else ["-respin", party.der(response or b"")]
    words += ["-nonce" if nonce else "-no_nonce", f"-{certid}", "-issuer", party.certificates(issuer)]
    done = _run("openssl", "ocsp", *words, "-cert", party.certificates(certificate))
    said = done.said
    status = re.search(r"^\S+: (good|revoked|unknown)$", said, re.MULTILINE)
    sound = done.status == 0 and "Response verify OK" in said and "Status times invalid" not in said
    if not sound or status is None or (nonce and "WARNING: no nonce" in said):
        return Verdict(Status.REFUSED, _last_line(said), said)
    reason = re.search(r"^\s*Reason: (.*)$", said, re.MULTILINE)
    return Verdict(_OCSP[status.group(1)], reason.group(1) if reason else "", said)


# ---------------------------------------------------------------- GnuTLS


def certtool_verify(leaf: x509.Certificate, party: Party, *, host: str | None = None) -> Verdict:
    """`certtool --verify`. A CRL that is missing or out of date does not trouble it."""
    words = ["--load-ca-certificate", party.certificates(party.root)]
    if party.crls:
        words += ["--load-crl", party.crl_file()]
    if host is not None:
        words += ["--verify-hostname", host]
    chain = party.certificates(leaf, *party.intermediates)
    done = _run("certtool", "--verify", *words, "--infile", chain)
    if "revoked" in done.said:
        return Verdict(Status.REVOKED, "", done.said)
    return _ok(done.status == 0 and "The certificate is trusted" in done.said, done.said)


def certtool_crl(crl: bytes, issuer: x509.Certificate, party: Party) -> Verdict:
    """`certtool --verify-crl`: whether the issuer signed it, and it is not out of date."""
    words = ["--inder", "--load-ca-certificate", _der_of(issuer, party), "--infile", party.der(crl)]
    done = _run("certtool", "--verify-crl", *words)
    return _ok(done.status == 0 and "Verified." in done.said and "Not verified" not in done.said, done.said)


def certtool_crl_info(crl: bytes, party: Party) -> str:
    """`certtool --crl-info`: what it reads in it."""
    done = _run("certtool", "--crl-info", "--inder", "--infile", party.der(crl))
    assert done.status == 0, done.said
    return done.said


def ocsptool_ask(
    certificate: x509.Certificate, issuer: x509.Certificate, party: Party, *, url: str, nonce: bool = True
) -> Verdict:
    """`ocsptool --ask`, by POST."""
    words = ["--nonce"] if nonce else []
    return _ocsptool(f"--ask={url}", *words, "--load-cert", certificate, issuer=issuer, party=party)


def ocsptool_response(response: bytes, issuer: x509.Certificate, party: Party) -> Verdict:
    """`ocsptool --verify-response`, of a response that is there. It may be out of date."""
    return _ocsptool("--verify-response", "--load-response", party.der(response), issuer=issuer, party=party)


def _ocsptool(*words: str | Path | x509.Certificate, issuer: x509.Certificate, party: Party) -> Verdict:
    files = [party.certificates(word) if isinstance(word, x509.Certificate) else word for word in words]
    trust = ["--load-issuer", party.certificates(issuer)]
    trust += ["--load-trust", party.certificates(issuer, party.root)]
    said = _run("ocsptool", *files, *trust).said
    status = re.search(r"^\s*Certificate Status: (good|revoked|unknown)$", said, re.MULTILINE)
    if status is None or "Verifying OCSP Response: Success." not in said:
        return Verdict(Status.REFUSED, _last_line(said), said)
    return Verdict(_OCSP[status.group(1)], "", said)


# ---------------------------------------------------------------- Java


@dataclass(frozen=True, kw_only=True)
class Question:
    """For Java's PKIX validator; the means are told in PkixValidate.java."""

    leaf: x509.Certificate
    party: Party
    means: Literal["crl", "crldp", "ocsp", "stapled", "none"]
    scope: Scope = "leaf"
    response: bytes | None = None
    """An OCSP response, for `stapled`."""

    def line(self) -> str:
        """As the program reads it."""
        party = self.party
        chain = party.certificates(self.leaf, *party.intermediates)
        status = party.crl_file() if self.response is None else party.der(self.response)
        fields = (self.means, self.scope, party.certificates(party.root), chain, status)
        return "\t".join(map(str, fields)) + "\n"


def java_validate(*questions: Question) -> list[Verdict]:
    """All in one process, which keeps a CRL that it fetched for half a minute."""
    done = _run("java", "-cp", _java_classes(), "PkixValidate", said_to="".join(q.line() for q in questions))
    assert done.status == 0, done.said
    answers = [line.split("\t", 2) for line in done.said.splitlines()]
    assert len(answers) == len(questions), done.said
    return [Verdict(Status(status), reason, said) for status, reason, said in answers]


@cache
def _java_classes() -> Path:
    place = Path(mkdtemp(prefix="acme-ca-java-"))
    atexit.register(shutil.rmtree, place)
    done = _run("javac", "-d", place, JAVA_SOURCE)
    assert done.status == 0, done.said
    return place


# ---------------------------------------------------------------- running them


@dataclass(frozen=True, slots=True)
class _Done:
    status: int
    said: str


def _run(command: str, *words: str | Path, said_to: str = "") -> _Done:
    done = subprocess.run(
        [find(command), *words],
        input=said_to,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    return _Done(done.returncode, done.stdout)


def _ok(good: bool, said: str) -> Verdict:  # noqa: FBT001
    return Verdict(Status.VALID, "", said) if good else Verdict(Status.REFUSED, _last_line(said), said)


def _last_line(said: str) -> str:
    return said.strip().rpartition("\n")[2].strip()


def _der_of(certificate: x509.Certificate, party: Party) -> Path:
    return party.der(certificate.public_bytes(Encoding.DER))


_OCSP = {"good": Status.VALID, "revoked": Status.REVOKED, "unknown": Status.UNKNOWN}
