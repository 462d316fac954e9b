"""The file of a backup: what is written is read again, and by `tar` as well; what nobody here writes is refused."""

import errno
import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.config import ConfigurationError
from acme_ca.server import archive
from acme_ca.server.archive import LIMIT, DamagedBackup, Member, Writer

AT_ONCE, ROUNDS = 4, 150
MEMBERS = [
    Member(name="format.json", mode=0o600, content=b"{}"),
    Member(name="data/ca/root.key", mode=0o600, content=os.urandom(1000)),
    Member(name="data/root.pem", mode=0o644, content=b""),
    Member(name="tables/orders/000001", mode=0o600, content=bytes(512)),
]


def packed(*members: Member) -> bytes:
    target = io.BytesIO()
    writer = Writer(target, at=1_700_000_000)
    for member in members:
        writer.add(member)
    writer.end()
    return target.getvalue()


def read(content: bytes) -> list[Member]:
    return list(archive.members(io.BytesIO(content)))


def foreign(*infos: tarfile.TarInfo, form: int = tarfile.USTAR_FORMAT) -> bytes:
    """As some other program would write them."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return target.getvalue()


def info(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_members_come_back():
    assert read(packed(*MEMBERS)) == MEMBERS


def test_tar_reads_it():
    with tarfile.open(fileobj=io.BytesIO(packed(*MEMBERS))) as tar:
        assert [(entry.name, entry.mode, entry.size) for entry in tar] == [
            (member.name, member.mode, len(member.content)) for member in MEMBERS
        ]


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(info("/etc/passwd"), id="absolute"),
        pytest.param(info("data/../../passwd"), id="upwards"),
        pytest.param(info("data//x"), id="empty part"),
        pytest.param(info("data/./x"), id="dot"),
        pytest.param(info("data/a\nb"), id="control character"),
        pytest.param(info("data/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"), id="symbolic link"),
        pytest.param(info("data/x", type=tarfile.LNKTYPE, linkname="data/y"), id="hard link"),
        pytest.param(info("data/x", linkname="/etc/passwd"), id="a file with a link's name"),
        pytest.param(info("data/x", type=tarfile.CHRTYPE, devmajor=1, devminor=3), id="device"),
        pytest.param(info("data/x", type=tarfile.FIFOTYPE), id="pipe"),
        pytest.param(info("data/x", type=tarfile.DIRTYPE), id="folder"),
        pytest.param(info("data/x", size=LIMIT + 1), id="larger than any"),
    ],
)
def test_what_no_backup_has_is_refused(member):
    with pytest.raises(DamagedBackup):
        read(foreign(member))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extensions_are_refused(form):
    with pytest.raises(DamagedBackup):
        read(foreign(info("x" * 300), form=form))


def test_a_negative_size_is_refused():
    header = bytearray(packed(MEMBERS[0])[:512])
    header[124:136] = b"\xff" * 11 + b"\xf0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(DamagedBackup, match="impossible size"):
        read(bytes(header) + bytes(1024))


@pytest.mark.parametrize("length", [0, 1, 511, 512, 600, 1024, 2000, 4096])
def test_what_is_cut_off_is_refused(length):
    with pytest.raises(DamagedBackup):
        read(packed(*MEMBERS)[:length])


def test_what_stands_behind_a_member_or_the_end_is_refused():
    whole = bytearray(packed(*MEMBERS))
    for place in (513 + 5, len(whole) - 1):
        spoiled = bytearray(whole)
        spoiled[place] = 1
        with pytest.raises(DamagedBackup):
            read(bytes(spoiled))
    with pytest.raises(DamagedBackup):
        read(bytes(whole) + b"more")


@given(st.binary(max_size=2000))
def test_bytes_from_anywhere_are_a_backup_or_a_sentence(content):
    with pytest.raises(DamagedBackup):
        read(content.rstrip(b"\0"))


def test_modes_give_nobody_else_the_right_to_write():
    (member,) = read(packed(Member(name="data/x", mode=0o6777, content=b"")))
    assert member.mode == 0o755


def test_what_is_too_large_is_not_written():
    with pytest.raises(ValueError, match="bytes"):
        packed(Member(name="x", mode=0o600, content=bytes(LIMIT + 1)))


def test_a_disk_that_is_full_is_a_sentence():
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(ConfigurationError, match="No space left"),
    ):
        Writer(full, at=0).add(MEMBERS[0])


# ---------------------------------------------------------------- the file itself


@pytest.fixture(params=["links", "no links"])
def disk(request, tmp_path, monkeypatch):
    """A folder on a file system that has links, or (as FAT) none."""

    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no links":
        monkeypatch.setattr(os, "link", no_link)
    return tmp_path


def test_a_new_file_has_its_name_when_it_is_whole(disk):
    path = disk / "backup.tar"
    with archive.new_file(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(disk.iterdir()) == [path]


def test_what_fails_leaves_nothing(disk):
    with pytest.raises(KeyboardInterrupt), archive.new_file(disk / "backup.tar"):
        raise KeyboardInterrupt
    assert list(disk.iterdir()) == []


def test_what_a_crash_left_is_replaced(disk):
    (disk / ".backup.tar.partial").write_bytes(b"half of one")
    with archive.new_file(disk / "backup.tar") as file:
        file.write(b"whole")
    assert [path.name for path in disk.iterdir()] == ["backup.tar"]


def test_of_two_at_once_none_gives_its_name_to_half_of_the_other(disk):
    path = disk / "backup.tar"
    first, second = ExitStack(), ExitStack()
    first.enter_context(archive.new_file(path)).write(b"the first")
    other = second.enter_context(archive.new_file(path))
    other.write(b"the sec")
    with pytest.raises(ConfigurationError, match="made meanwhile"):
        first.close()
    assert not path.exists()
    other.write(b"ond")
    second.close()
    assert path.read_bytes() == b"the second"
    assert list(disk.iterdir()) == [path]


def test_what_has_come_there_meanwhile_is_left_as_it_is(disk):
    path = disk / "backup.tar"
    late = ExitStack()
    late.enter_context(archive.new_file(path)).write(b"late")
    path.write_bytes(b"another's")
    with pytest.raises(ConfigurationError, match="made meanwhile"):
        late.close()
    assert path.read_bytes() == b"another's"
    assert list(disk.iterdir()) == [path]


def another_file(path: Path) -> list[Path]:
    """Of somebody who does not replace what is there either; what has got its name."""
    try:
        with path.open("xb") as file:
            file.write(b"another's")
    except FileExistsError:
        return []
    return [path]


def another_draft(path: Path) -> list[Path]:
    """Of a backup that goes on for a while."""
    draft = path.with_name(f".{path.name}.partial")
    draft.unlink(missing_ok=True)
    draft.write_bytes(b"half of another's")
    return []


@pytest.mark.parametrize("come", [another_file, another_draft])
@pytest.mark.parametrize(("where", "call"), [(os, "link"), (Path, "replace")])
def test_what_comes_at_the_last_moment_is_not_replaced_and_half_of_it_gets_no_name(
    disk, monkeypatch, where, call, come
):
    path, real = disk / "backup.tar", getattr(where, call)

    came = []

    def late(*arguments: object, **named: object) -> object:
        came.extend(come(path))
        return real(*arguments, **named)

    monkeypatch.setattr(where, call, late)
    told = True
    try:
        with archive.new_file(path) as file:
            file.write(b"ours")
    except ConfigurationError:
        told = False
    found = sorted(file.read_bytes() for file in disk.iterdir())
    assert (b"ours" in found) == told
    if path.exists():
        assert path.read_bytes() == (b"ours" if told else b"another's")
    assert not came or b"another's" in found, "what somebody else has put there stays"


def test_of_many_at_once_whoever_is_told_that_it_is_done_has_it_there(disk):
    """Each round in threads that begin and end together; what is there is whole, and of the one that was told so."""
    path, starting = disk / "backup.tar", Barrier(AT_ONCE)

    def back_up(content: bytes) -> bytes | None:
        starting.wait()
        try:
            with archive.new_file(path) as file:
                file.write(content)
        except ConfigurationError:
            return None
        return content

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in range(ROUNDS):
            told = [
                content
                for content in threads.map(back_up, (b"%d" % one for one in range(AT_ONCE)))
                if content
            ]
            assert len(told) <= 1
            assert [path.read_bytes()] == told if told else not path.exists()
            path.unlink(missing_ok=True)
            assert list(disk.iterdir()) == []


def test_no_file_is_replaced(disk):
    (disk / "backup.tar").write_bytes(b"yesterday's")
    with pytest.raises(ConfigurationError, match="left as it is"), archive.new_file(disk / "backup.tar"):
        raise AssertionError
    assert (disk / "backup.tar").read_bytes() == b"yesterday's"


def test_a_place_that_is_not_there_is_a_sentence(disk):
    with pytest.raises(ConfigurationError, match="No such file"), archive.new_file(disk / "no" / "b.tar"):
        raise AssertionError
