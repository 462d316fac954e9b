"""The data directory: made, left as it was, or unmade."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from acme_ca.config import ConfigurationError
from acme_ca.server import datadir


def test_a_new_data_directory_can_be_entered_by_all(tmp_path):
    datadir.make(tmp_path / "a" / "data")
    assert stat.S_IMODE((tmp_path / "a" / "data").stat().st_mode) == 0o755


def test_an_existing_data_directory_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o700)
    datadir.make(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_file_in_the_place_of_the_data_directory_is_refused(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigurationError, match=r"ACME_CA_DATA: .* cannot be created"):
        datadir.make(tmp_path / "data")


def undone_when_refused(place: Path, start: Callable[[], None]) -> None:
    with datadir.unchanged_when_refused(place):
        start()


def test_a_refused_start_removes_what_it_made(tmp_path):
    place = tmp_path / "a" / "b"

    def start() -> None:
        datadir.make(place)
        (place / "ca").mkdir()
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError):
        undone_when_refused(place, start)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_start_leaves_what_was_there(tmp_path):
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "root.key").write_text("precious")

    def start() -> None:
        (tmp_path / "postgres").mkdir()
        (tmp_path / "root.pem").write_text("x")
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError):
        undone_when_refused(tmp_path, start)
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]
    assert (tmp_path / "ca" / "root.key").read_text() == "precious"


def test_any_other_end_of_the_start_leaves_everything(tmp_path):
    def start() -> None:
        datadir.make(tmp_path / "data")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        undone_when_refused(tmp_path / "data", start)
    assert (tmp_path / "data").is_dir()


def test_who_is_refused_leaves_what_others_made_meanwhile(tmp_path):
    """Or of two that make a CA at the same moment the later one would take away that of the other."""
    place = tmp_path / "data"

    def first() -> None:
        with pytest.raises(ConfigurationError, match="another acme-ca"):
            undone_when_refused(place, lambda: None)
        assert place.is_dir()
        (place / "ca").mkdir()

    undone_when_refused(place, first)
    assert (place / "ca").is_dir()


def test_alone_removes_nothing_but_empty_folders(tmp_path):
    def act(*, made: bool) -> None:
        with datadir.alone(tmp_path / "a" / "b"):
            if made:
                (tmp_path / "a" / "b" / "root.key").write_text("precious")
            raise ConfigurationError("no")

    with pytest.raises(ConfigurationError):
        act(made=False)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError):
        act(made=True)
    assert (tmp_path / "a" / "b" / "root.key").read_text() == "precious"
