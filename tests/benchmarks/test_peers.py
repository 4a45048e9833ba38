import json

import pytest

from benchmarks.peers import PeerError, environment


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setitem(environment.__globals__, "_ROOT", tmp_path / ".peers")
    return tmp_path


def stamp(root):
    return root / ".peers" / "sample" / "requirements.json"


def test_an_environment_is_made_once_and_reused(root, capsys):
    # pip is in every new environment, so this installs without an index.
    first = environment("sample", ["pip>=1"])
    assert (first / "bin" / "python").exists()
    assert json.loads(stamp(root).read_text())[1:] == ["pip>=1"]
    capsys.readouterr()
    assert environment("sample", ["pip>=1"]) == first
    assert capsys.readouterr().out == ""


def test_a_failed_installation_says_so_and_leaves_no_stamp(root):
    with pytest.raises(PeerError, match=r"peer sample: .*pip install.* ended with 1"):
        environment("sample", [str(root / "absent")])
    assert not stamp(root).exists()


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_name_that_is_no_plain_word_is_refused(root, name):
    with pytest.raises(PeerError, match="letters, digits and hyphens"):
        environment(name, ["pip>=1"])
    assert not (root / ".peers").exists()
