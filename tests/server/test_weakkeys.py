"""The files with lists of weak keys, at the start."""

import pytest

from acme_ca.config import ConfigurationError, Settings
from acme_ca.server import weakkeys


def test_without_files_there_is_no_list():
    assert len(weakkeys.load(Settings())) == 0


def test_lists_of_both_forms_are_taken_together(tmp_path):
    (tmp_path / "one").write_text("# head\n" + "ab" * 10 + "\n" + "cd" * 10 + "\n")
    (tmp_path / "two").write_text("ab" * 10 + "\n" + "ab" * 32 + "\n")
    weak_keys = weakkeys.load(Settings(weak_keys_files=f"{tmp_path / 'one'}, {tmp_path / 'two'}"))
    assert (len(weak_keys.moduli), len(weak_keys.spkis)) == (2, 1)


UNUSABLE = {
    "missing": (None, "cannot be read"),
    "a line that is no key": (b"# head\nnonsense\n", "line 2"),
    "packed": (b"\x1f\x8b\x08\x00", "ASCII"),
    "only comments": (b"# head\n\n", "lists no key"),
    "empty": (b"", "lists no key"),
}


@pytest.mark.parametrize(("content", "says"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_file_is_named_in_one_sentence(tmp_path, content, says):
    file = tmp_path / "list"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as refused:
        weakkeys.load(Settings(weak_keys_files=str(file)))
    sentence = str(refused.value)
    assert sentence.startswith("ACME_CA_WEAK_KEYS_FILES: ")
    assert str(file) in sentence
    assert says in sentence
    assert "\n" not in sentence


def test_a_folder_is_no_list(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        weakkeys.load(Settings(weak_keys_files=str(tmp_path)))
