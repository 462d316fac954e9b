"""`acme-ca ceremony`, run as a process: before people at a terminal, and as a rehearsal."""

import hashlib
import json
import shutil
import stat
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from acme_ca.ca import certify
from acme_ca.ca.constraints import NameConstraints
from acme_ca.ca.hierarchy import load_certificates
from acme_ca.cli import transcript
from tests.support.authorities import OTHER_KEY, a_root
from tests.support.holders import People
from tests.support.issuing import extensions_of, subject
from tests.support.server import PASSWORD, command
from tests.support.terminal import Terminal

NAMES = ("Alice", "Bob", "Carol")
HOLDERS = [word for name in NAMES for word in ("--holder", name)]
CREATE = ("ceremony", "create-root", "offline", "--threshold", "2", *HOLDERS)
URL = ("--public-http-url", "http://pki.example.org")
ANSWERS = ("--answers", "answers.toml")
CLEAR = "\x1b[3J"


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    place = tmp_path_factory.mktemp("rehearsal")
    answers(place)
    made = command(place, *CREATE, *URL, *ANSWERS)
    assert (made.returncode, made.stderr) == (0, "")
    return place


@pytest.fixture
def rehearsed(rehearsal, tmp_path):
    """A place with a root that was made by a rehearsal."""
    return shutil.copytree(rehearsal, tmp_path, dirs_exist_ok=True)


def answers(place, *names: str) -> None:
    lines = [f'{name} = "{name.lower()}.txt"' for name in names or NAMES]
    (place / "answers.toml").write_text("\n".join(["[shares]", *lines]))


def offline(place, name: str) -> bytes:
    return (place / "offline" / name).read_bytes()


def assert_refused(done, says: str) -> None:
    assert done.returncode == 2, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert says in sentence
    assert done.stdout == ""


# ---------------------------------------------------------------- at a terminal


def test_a_root_ceremony_and_an_act_with_the_root(tmp_path):
    people = People()
    terminal = Terminal.of_command(tmp_path, *CREATE, *URL)
    status, said = people.create_root(terminal, *NAMES, password=PASSWORD)
    assert status == 0
    certificates = load_certificates(tmp_path / "offline")
    assert certificates.intermediate.certificate.issuer.rfc4514_string() == "CN=VCC Root CA,O=VCC"
    load_pem_private_key(offline(tmp_path, "intermediate.key"), PASSWORD.encode())
    transcript = offline(tmp_path, "transcript.txt")
    assert hashlib.sha256(transcript).hexdigest() in said
    assert transcript.decode() in said.replace("\r\n", "\n")
    for name in NAMES:
        assert f"{name} received share" in transcript.decode()
    assert b"typed it in again and confirmed the fingerprint" in transcript
    assert b"REHEARSAL" not in transcript

    act = Terminal.of_command(tmp_path, "ceremony", "sign-crl", "offline", "--revoke", "0a:0b")
    status, said = people.open_root(act, "Carol", "Alice")
    assert status == 0
    assert "Carol gave share 3 of set" in said
    assert [entry.serial_number for entry in x509.load_der_x509_crl(offline(tmp_path, "root.crl"))] == [
        0x0A0B
    ]


def test_no_share_is_left_on_the_screen_or_in_the_folder(tmp_path):
    people = People()
    terminal = Terminal.of_command(tmp_path, *CREATE, "--root-only")
    status, said = people.create_root(terminal, *NAMES, password=None)
    assert status == 0
    kept = [path.read_bytes() for path in (tmp_path / "offline").iterdir()]
    for note in people.notes.values():
        assert not has_words_of(note.words, said)
        assert not any(has_words_of(note.words, content.decode("latin-1")) for content in kept)


def test_a_program_reads_the_transcript_while_people_are_at_the_terminal(tmp_path):
    """`acme-ca ceremony create-root … --json | jq`."""
    people = People()
    with (tmp_path / "out").open("wb") as out:
        terminal = Terminal.of_command(tmp_path, *CREATE, "--root-only", "--json", stdout=out)
        status, _ = people.create_root(terminal, *NAMES, password=None)
    assert status == 0
    told = json.loads((tmp_path / "out").read_text())
    assert told["text"].encode() == offline(tmp_path, "transcript.txt")
    with (tmp_path / "out").open("wb") as out:
        terminal = Terminal.of_command(tmp_path, "ceremony", "sign-crl", "offline", "--json", stdout=out)
        status, _ = people.open_root(terminal, "Carol", "Alice")
    assert status == 0
    assert "Carol gave share 3 of set" in json.loads((tmp_path / "out").read_text())["text"]


def test_shares_are_shown_to_people_and_not_to_a_file(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        terminal = Terminal.of_command(tmp_path, *CREATE, "--root-only", stderr=log)
        assert terminal.end() == (2, "")
    assert "needs a terminal" in (tmp_path / "log").read_text()
    assert not (tmp_path / "offline").exists()


def has_words_of(words: list[str], text: str) -> bool:
    """Three in a row: the first four are the same for all holders, and tell nothing."""
    return any(" ".join(words[at : at + 3]) in text for at in range(4, len(words) - 2))


def test_a_holder_who_noted_it_wrongly_looks_again(tmp_path):
    people = People()
    terminal = Terminal.of_command(tmp_path, *CREATE, "--root-only")
    people.receive(terminal, "Alice")
    words = people.notes["Alice"].words
    terminal.type(" ".join([*words[:-1], "acid" if words[-1] != "acid" else "acne"]))
    terminal.await_text("A word of this share is wrong")
    terminal.await_text("type show")
    terminal.type("show")
    people.look(terminal, "Alice")
    assert people.notes["Alice"].words == words
    terminal.type(" ".join(word[:4] for word in words[:20]))
    terminal.await_text("21> ")
    terminal.type(" ".join(words[20:]).upper())
    terminal.await_text("from your note: ")
    terminal.type("00000000")
    terminal.await_text("ends otherwise")
    people.confirm(terminal, "Alice")
    people.receive(terminal, "Bob")
    terminal.type(" ".join(words))
    terminal.await_text("not yours")
    status, said = terminal.interrupt()
    assert status != 0
    assert "Traceback" not in said
    assert CLEAR in said
    assert list(tmp_path.iterdir()) == []


def test_wrong_shares_are_asked_for_again(rehearsed):
    notes = {name: (rehearsed / f"{name.lower()}.txt").read_text().split() for name in NAMES}
    terminal = Terminal.of_command(rehearsed, "ceremony", "sign-crl", "offline")
    terminal.await_text("Name of its holder: ")
    terminal.type("Alice")
    terminal.await_text("1> ")
    terminal.type("elephantine " * 33)
    terminal.await_text("Word 1 is none")
    terminal.type(" ".join(notes["Alice"]))
    terminal.await_text("Share 2 of 2")
    terminal.type("Bob")
    terminal.await_text("1> ")
    terminal.type(" ".join(notes["Alice"]))
    terminal.await_text("given already")
    terminal.type(" ".join(notes["Bob"]))
    status, said = terminal.end()
    assert status == 0
    assert "Bob gave share 2 of set" in said


# ---------------------------------------------------------------- rehearsed


def test_a_rehearsal_says_so_and_its_folder_is_private(rehearsed):
    transcript = offline(rehearsed, "transcript.txt").decode()
    assert "THIS IS A REHEARSAL" in transcript
    assert stat.S_IMODE((rehearsed / "offline").stat().st_mode) == 0o700
    for path in (rehearsed / "offline" / "root.key", rehearsed / "alice.txt"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for name in ("root.pem", "root.key", "root.crl", "intermediate.pem", "intermediate.key"):
        assert f"{name}: {hashlib.sha256(offline(rehearsed, name)).hexdigest()}" in transcript


def test_the_first_crl_is_the_roots(rehearsed):
    crl = x509.load_der_x509_crl(offline(rehearsed, "root.crl"))
    root = x509.load_pem_x509_certificate(offline(rehearsed, "root.pem"))
    assert crl.is_signature_valid(root.public_key())


def test_the_intermediate_says_where_the_crl_is(rehearsed):
    made = x509.load_pem_x509_certificate(offline(rehearsed, "intermediate.pem"))
    assert "cRLDistributionPoints" in extensions_of(made)


def test_a_request_is_signed_with_the_constraints_that_it_asks_for(tmp_path):
    answers(tmp_path)
    wanted = NameConstraints.parse(["vcc.internal"])
    csr = certify.certificate_request(OTHER_KEY, subject("Issuing"), name_constraints=wanted)
    (tmp_path / "ca.csr").write_bytes(csr)
    made = command(tmp_path, *CREATE, *ANSWERS, "--csr", "ca.csr", without=("CA_PASSWORD",))
    assert made.returncode == 0, made.stderr
    assert not (tmp_path / "offline" / "intermediate.key").exists()
    first = x509.load_pem_x509_certificate(offline(tmp_path, "intermediate.pem"))
    assert (first.subject, first.public_key()) == (subject("Issuing"), OTHER_KEY.public_key())
    assert NameConstraints.of(first) == wanted
    assert "permitted: vcc.internal" in made.stdout
    assert "on loopback" in made.stdout

    more = (
        "--csr",
        "ca.csr",
        "--permit",
        "a.vcc.internal",
        "--days",
        "30",
        "--out",
        "second.pem",
        *URL,
        *ANSWERS,
    )
    assert command(tmp_path, "ceremony", "sign-intermediate", "offline", *more).returncode == 0
    second = x509.load_pem_x509_certificate((tmp_path / "second.pem").read_bytes())
    assert NameConstraints.of(second) == NameConstraints.parse(["a.vcc.internal"])
    assert (second.not_valid_after_utc - second.not_valid_before_utc).days == 29
    assert len(list((tmp_path / "offline").glob("transcript-*.txt"))) == 1


def test_another_ca_is_cross_signed(rehearsed):
    other = a_root("Other", key=ec.generate_private_key(ec.SECP256R1()), path_length=0).certificate
    (rehearsed / "other.pem").write_bytes(other.public_bytes(Encoding.PEM))
    words = ("--certificate", "other.pem", "--out", "cross.pem", *URL, *ANSWERS)
    assert command(rehearsed, "ceremony", "cross-sign", "offline", *words).returncode == 0
    cross = x509.load_pem_x509_certificate((rehearsed / "cross.pem").read_bytes())
    assert (cross.subject, cross.public_key()) == (other.subject, other.public_key())
    assert cross.issuer.rfc4514_string() == "CN=VCC Root CA,O=VCC"


def test_an_rsa_root_alone(tmp_path):
    answers(tmp_path)
    words = ("--root-only", "--key-type", "rsa", "--cn", "Old", "--org", "", "--days", "20", *ANSWERS)
    assert command(tmp_path, *CREATE, *words, without=("CA_PASSWORD",)).returncode == 0
    root = x509.load_pem_x509_certificate(offline(tmp_path, "root.pem"))
    assert (root.public_key().key_size, root.subject) == (4096, subject("Old Root CA"))
    assert not (tmp_path / "offline" / "intermediate.pem").exists()


def test_other_holders_take_over(rehearsed):
    answers(rehearsed, "Carol", "Alice")
    with (rehearsed / "answers.toml").open("a") as file:
        file.write('\n[new_shares]\nDora = "dora.txt"\nAlice = "alice-2.txt"\nEve = "eve.txt"\n')
    words = ("--threshold", "3", "--holder", "Dora", "--holder", "Alice", "--holder", "Eve", *ANSWERS)
    old_key, transcripts = offline(rehearsed, "root.key"), len(list((rehearsed / "offline").iterdir()))
    done = command(rehearsed, "ceremony", "reshare", "offline", *words, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["text"].encode() == (rehearsed / told["transcript"]).read_bytes()
    assert told["sha256"] == hashlib.sha256(told["text"].encode()).hexdigest()
    assert stat.S_IMODE((rehearsed / "offline" / "root.key").stat().st_mode) == 0o600
    assert len(list((rehearsed / "offline").iterdir())) == transcripts + 1
    assert_refused(sign_crl(rehearsed), "the shares of this root?")
    (rehearsed / "answers.toml").write_text('[shares]\nA = "dora.txt"\nB = "alice-2.txt"\nC = "eve.txt"')
    assert sign_crl(rehearsed).returncode == 0
    (rehearsed / "offline" / "root.key").write_bytes(old_key)
    assert_refused(sign_crl(rehearsed), "the shares of this root?")


def test_of_two_acts_in_one_second_each_has_its_transcript(tmp_path):
    now = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    names = []
    for _ in range(3):
        place = transcript.new_place(tmp_path, now=now)
        place.touch(exist_ok=False)
        names.append(place.name)
    stem = "transcript-20260203T040506Z"
    assert names == [f"{stem}.txt", f"{stem}-2.txt", f"{stem}-3.txt"]


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("words", "settings", "says"),
    [
        pytest.param((), {}, "needs a terminal", id="no terminal"),
        pytest.param(("--answers", "none.toml"), {}, "no file of answers", id="no answers"),
        pytest.param(
            ("--holder", "Dave", *ANSWERS), {}, "no file for the share of Dave", id="nobody's share"
        ),
        pytest.param(("--holder", "Bob", *ANSWERS), {}, "a name of their own", id="the same holder twice"),
        pytest.param(
            ("--threshold", "4", *ANSWERS), {}, "4 of 3 shares is not possible", id="too many needed"
        ),
        pytest.param(("--threshold", "1", *ANSWERS), {}, "1 of 3 shares is not possible", id="one suffices"),
        pytest.param(("--csr", "none.csr", *ANSWERS), {}, "none.csr cannot be read", id="no request"),
        pytest.param(("--csr", "answers.toml", *ANSWERS), {}, "no well-formed CSR", id="a bad request"),
        pytest.param(("--csr", "x", "--root-only"), {}, "exclude each other", id="both"),
        pytest.param(("--cn", "x" * 70, *ANSWERS), {}, "64 characters", id="a long name"),
        pytest.param(ANSWERS, {"CA_PASSWORD": "short"}, "ACME_CA_CA_PASSWORD", id="a short password"),
        pytest.param(("--permit", "*.x.test", *ANSWERS), {}, "no wildcard", id="a bad constraint"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, words, settings, says):
    answers(tmp_path)
    assert_refused(command(tmp_path, *CREATE, *words, **settings), says)
    assert not (tmp_path / "offline").exists()


def test_a_root_that_exists_is_left_as_it_is(rehearsed):
    before = offline(rehearsed, "root.pem")
    for name in NAMES:
        (rehearsed / f"{name.lower()}.txt").unlink()
    assert_refused(command(rehearsed, *CREATE, *ANSWERS), "left as it is")
    assert offline(rehearsed, "root.pem") == before


def test_too_few_and_foreign_shares(rehearsed, tmp_path_factory):
    crl = offline(rehearsed, "root.crl")
    answers(rehearsed, "Alice")
    assert_refused(sign_crl(rehearsed), "2 shares are needed, 1 were given")
    answers(rehearsed)
    (rehearsed / "bob.txt").write_text((rehearsed / "alice.txt").read_text())
    assert_refused(sign_crl(rehearsed), "given already")
    (rehearsed / "bob.txt").write_text("acid " * 33)
    assert_refused(sign_crl(rehearsed), "A word of this share is wrong")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    answers(elsewhere)
    assert command(elsewhere, *CREATE, "--root-only", *ANSWERS).returncode == 0
    (rehearsed / "bob.txt").write_text((elsewhere / "bob.txt").read_text())
    assert_refused(sign_crl(rehearsed), "of another ceremony")
    (rehearsed / "alice.txt").write_text((elsewhere / "alice.txt").read_text())
    answers(rehearsed, "Alice", "Bob")
    assert_refused(sign_crl(rehearsed), "the shares of this root?")
    assert offline(rehearsed, "root.crl") == crl


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(("sign-crl", "offline", "--revoke", "xyz"), "no serial number", id="no serial"),
        pytest.param(
            ("sign-crl", "offline", "--list", "answers.toml"), "no list of crl export-root", id="no list"
        ),
        pytest.param(("sign-crl", "nowhere"), "cannot be read", id="no root"),
        pytest.param(
            ("sign-intermediate", "offline", "--csr", "answers.toml", "--out", "x.pem"),
            "no well-formed CSR",
            id="no CSR",
        ),
        pytest.param(
            ("cross-sign", "offline", "--certificate", "answers.toml", "--out", "x.pem"),
            "no certificate in PEM",
            id="none",
        ),
        pytest.param(
            ("cross-sign", "offline", "--certificate", "offline/root.pem", "--out", "x.pem"),
            "cross-sign itself",
            id="itself",
        ),
        pytest.param(
            ("cross-sign", "offline", "--certificate", "offline/root.pem", "--out", "alice.txt"),
            "left as it is",
            id="not new",
        ),
    ],
)
def test_acts_that_are_refused(rehearsed, words, says):
    assert_refused(command(rehearsed, "ceremony", *words, *ANSWERS), says)
    assert not (rehearsed / "x.pem").exists()


def test_a_crl_that_is_not_the_roots_is_not_overwritten(rehearsed):
    (rehearsed / "offline" / "root.crl").write_text("hello")
    assert_refused(sign_crl(rehearsed), "no CRL of this root")


def sign_crl(place):
    return command(place, "ceremony", "sign-crl", "offline", *ANSWERS)
