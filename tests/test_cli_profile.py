"""`acme-ca profile`, run as a process beside a database."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from acme_ca.ca import profiles
from acme_ca.ca.profiles import BUILT_IN, FOR_ITSELF, OWN, SERVER, UnworkableProfile
from acme_ca.storage.database import Database
from tests.support.server import command

Run = Callable[..., CompletedProcess[str]]
HOUSE = """
name = "house"
description = "Web servers of the house."
validity = "30 days"
max_validity = "90 days"
key_algorithms = ["ec-p256"]
extended_key_usages = ["serverAuth"]
allowed_names = ["suffix:house.example", "regex:web[0-9]+\\\\.example"]
"""


DANGEROUS = {"save", "withdraw", "offer"}


@pytest.fixture
async def run(tmp_path, database_url) -> Run:
    """`acme-ca profile …`, awaited, in a folder of its own beside a database with the built-in profiles."""
    async with Database.open(database_url, connections=1) as database:
        await profiles.register(database, now=datetime.now(UTC))

    async def in_thread(*arguments: str, yes: bool = True, **settings: str) -> CompletedProcess[str]:
        answer = ["--yes"] * (yes and arguments[0] in DANGEROUS)
        return await asyncio.to_thread(
            lambda: command(tmp_path, "profile", *arguments, *answer, DATABASE_URL=database_url, **settings)
        )

    return in_thread


@pytest.fixture
def file(tmp_path) -> Callable[..., str]:
    def write(text: str, name: str = "house.toml") -> str:
        place: Path = tmp_path / name
        place.write_text(text)
        return str(place)

    return write


async def listed(run: Run) -> dict[str, dict]:
    found = json.loads((await run("list", "--json")).stdout)
    return {profile["name"]: profile for profile in found}


def assert_refused(done: CompletedProcess[str], *words: str) -> None:
    assert (done.returncode in {1, 2}, done.stdout) == (True, ""), done
    assert done.stderr.startswith("acme-ca: ")
    assert all(word in done.stderr for word in words), done.stderr


async def test_the_list_tells_what_is_offered(run):
    found = await listed(run)
    assert {name: profile["offered"] for name, profile in found.items()} == {
        name: name not in OWN for name in BUILT_IN
    }
    assert found["server"]["built_in"]
    table = (await run("list")).stdout
    assert all(name in table for name in BUILT_IN)
    assert table.count("the server's own") == len(FOR_ITSELF)
    (operator,) = [line for line in table.splitlines() if line.startswith(" operator ")]
    assert "to administrators" in operator, "who may issue it with the profile's name"


async def test_a_profile_is_saved_shown_and_saved_again(run, file):
    """What `show` prints, `save` reads."""
    assert "Saved: house, version 1." in (await run("save", file(HOUSE))).stdout
    shown = (await run("show", "house")).stdout
    assert shown.startswith("# Version 1, an operator's, saved ")
    assert "Unchanged" in (await run("save", file(shown))).stdout
    done = await run("save", file(shown.replace("30 days", "20 days")), "--json")
    assert json.loads(done.stdout) == {"name": "house", "version": 2, "saved": True}
    for version, validity in ((1, "30 days"), (2, "20 days")):
        shown = json.loads((await run("show", "house", "--version", str(version), "--json")).stdout)
        assert (shown["version"], shown["profile"]["validity"]) == (version, validity)
        assert not shown["built_in"]
    assert json.loads((await run("show", "house", "--json")).stdout)["version"] == 2


async def test_json_is_read_too(run, file):
    document = SERVER.model_dump(mode="json") | {"name": "as_json"}
    assert "version 1" in (await run("save", file(json.dumps(document), "p.json"))).stdout


async def test_an_operator_may_change_a_built_in_profile(run, file):
    shown = (await run("show", "server")).stdout
    assert "version 2" in (await run("save", file(shown.replace("90 days", "60 days")))).stdout
    assert not (await listed(run))["server"]["built_in"]


async def test_withdrawn_and_offered_again(run):
    assert "Withdrawn: mtls" in (await run("withdraw", "mtls")).stdout
    found = (await listed(run))["mtls"]
    assert (found["offered"], found["withdrawn"] is None) == (False, False)
    assert "no, since" in (await run("list")).stdout
    assert_refused(await run("withdraw", "mtls"), "withdrawn before")
    assert "Offered: mtls" in (await run("offer", "mtls")).stdout
    assert (await listed(run))["mtls"]["offered"]
    assert_refused(await run("offer", "mtls"), "not withdrawn")


@pytest.mark.parametrize(
    "words", [("save",), ("withdraw", "mtls"), ("offer", "mtls")], ids=lambda words: words[0]
)
async def test_nothing_is_done_where_nobody_can_be_asked(run, file, words):
    before = await listed(run)
    assert_refused(await run(*words, *[file(HOUSE)] * (words == ("save",)), yes=False), "say --yes")
    assert await listed(run) == before


SPOILED = {
    "cannot work": (HOUSE + "must_staple = true\nocsp = false", "cannot work. Must_staple needs ocsp"),
    "unknown field": (HOUSE + "colour = 1", "colour: there is no such field."),
    "NUL": (HOUSE.replace('"Web', '"\\u0000Web', 1), "description: String should match"),
    "too short": (
        HOUSE.replace("30 days", "5 minutes"),
        "work. validity: Input should be greater than 5 minutes.\n",
    ),
    "no field": ("", "name: this is missing."),
    "a bad pattern": (HOUSE.replace("web[0-9]+", "web["), "unclosed character class"),
    "no TOML": ("name", "is no TOML in UTF-8"),
    "the server's own": (HOUSE.replace("house", "ocsp_responder", 1), "ocsp_responder is the server's own"),
}


@pytest.mark.parametrize(("text", "why"), SPOILED.values(), ids=SPOILED)
async def test_what_cannot_be_saved_is_refused_with_the_reason(run, file, text, why):
    before = await listed(run)
    assert_refused(await run("save", file(text)), why)
    assert await listed(run) == before


async def test_what_is_no_profile_is_refused(run, file, tmp_path):
    assert_refused(await run("save", file("[]", "list.json")), "A profile is a table of fields.")
    assert_refused(await run("save", file("{", "half.json")), "is no JSON")
    assert_refused(await run("save", str(tmp_path / "missing.toml")), "cannot be read (No such file")


async def test_names_that_do_not_exist(run):
    assert_refused(await run("show", "nonesuch"), "There is no profile nonesuch")
    assert_refused(await run("show", "server", "--version", "9"), "server, version 9")
    assert_refused(await run("withdraw", "nonesuch"), "There is no profile nonesuch")


async def test_what_the_server_needs_is_not_withdrawn(run):
    assert_refused(await run("withdraw", "server"), "ACME_CA_DEFAULT_PROFILE")
    assert_refused(await run("withdraw", "acme_server"), "server's own")
    done = await run("withdraw", "server", DEFAULT_PROFILE="mtls")
    assert done.returncode == 0, done


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(UnworkableProfile) as refused:
        profiles.read({"name": "x", "colour": 1})
    assert str(refused.value).count("this is missing.") == 5
    assert "colour: there is no such field." in str(refused.value)
