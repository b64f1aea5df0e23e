"""The repository as such: small, portable, its documents true to what is in it."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LARGEST_FILE_BYTES = 2_500_000
LARGEST_HISTORY_BYTES = 100_000_000
FENCE = re.compile(r"^```(?:bash|sh|console|shell)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")


@cache
def _files() -> tuple[Path, ...]:
    """Every file that is or would be committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        pytest.skip("not a git working tree")
    paths = sorted({REPOSITORY / name for name in done.stdout.split("\0") if name})
    return tuple(path for path in paths if path.is_file())


def _text(path: Path) -> str:
    """The file's text, empty where it is binary."""
    data = path.read_bytes()
    return "" if b"\0" in data[:8192] else data.decode("utf-8", errors="replace")


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    machine = re.compile(r"/(?:home|Users|root)/[A-Za-z]|\b[A-Z]:\\\\?Users\\|" + re.escape(str(REPOSITORY)) + r"\b")
    found = [
        f"{path.relative_to(REPOSITORY)}: {match.group()}"
        for path in _files()
        for match in machine.finditer(_text(path))
    ]
    assert found == []


def test_no_committed_file_is_large() -> None:
    assert [p.name for p in _files() if p.stat().st_size > LARGEST_FILE_BYTES] == []


def test_the_history_fits_the_extension_catalogue() -> None:
    """The Extensions Index takes repositories up to 100 MB, history included."""
    command = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git working tree")
    size = sum(path.stat().st_size for path in Path(done.stdout.strip()).rglob("*") if path.is_file())
    assert size < LARGEST_HISTORY_BYTES


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them as top-level modules."""
    names = Counter(path.name for path in _files() if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_test_file_is_in_a_folder_that_make_test_runs() -> None:
    stages = ("unit", "mrml", "widgets", "package", "training")
    tests = [path.relative_to(REPOSITORY) for path in _files() if re.fullmatch(r"test_.*\.py", path.name)]
    assert [str(path) for path in tests if path.parts[0] != "Testing" or path.parts[1] not in stages] == []


def test_the_version_is_said_once_and_cited_right() -> None:
    library = (REPOSITORY / "MedAIExtension/MedAILib/__init__.py").read_text("utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', library, re.MULTILINE)
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text("utf-8")


def test_the_licence_is_the_same_everywhere() -> None:
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text("utf-8").splitlines()[1]
    assert 'license = "Apache-2.0"' in (REPOSITORY / "pyproject.toml").read_text("utf-8")
    assert "license: Apache-2.0" in (REPOSITORY / "CITATION.cff").read_text("utf-8")


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for document in _documents():
        for match in LINK.finditer(_text(document)):
            target = match.group(1) or match.group(2)
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            linked = (document.parent / path) if path else document
            if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in _anchors(linked)):
                broken.append(f"{document.relative_to(REPOSITORY)}: {target}")
    assert broken == []


def _anchors(document: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as the usual hosts make them."""
    headings = re.findall(r"^#+\s+(.+?)\s*$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _shell_commands(*documents: Path) -> list[list[str]]:
    """The command lines of the documents' shell blocks, split as a shell does."""
    blocks = [block for document in documents for block in FENCE.findall(document.read_text("utf-8"))]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.removeprefix("$ "), comments=True))]


def _documents() -> list[Path]:
    return [path for path in _files() if path.suffix == ".md"]


def test_the_readme_shows_the_two_commands_and_the_command_line() -> None:
    shown = _shell_commands(REPOSITORY / "README.md")
    assert ["make", "demo"] in shown
    assert ["make", "test"] in shown
    assert "propagate" in {words[1] for words in shown if Path(words[0]).name == "medai"}


def test_documents_name_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = [words[1:] for words in _shell_commands(*_documents()) if words[0] == "make"]
    assert {word for words in shown for word in words if "=" not in word} <= targets


def test_documents_use_options_that_the_command_has() -> None:
    shown = [words[1:] for words in _shell_commands(*_documents()) if Path(words[0]).name == "medai"]
    for words in shown:
        help_text = _help_of(words)
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in help_text]
        assert unknown == [], f"{' '.join(words)}: {unknown}"


def _help_of(words: list[str]) -> str:
    """What ``--help`` says of a command line's command: of two words (``models get``) or of one."""
    code = "import sys; from MedAILib.cli.main import main; sys.exit(main())"
    plain = list(itertools.takewhile(lambda word: not word.startswith("-"), words))[:2]
    for command in (plain, plain[:1]):
        run = [sys.executable, "-c", code, *command, "--help"]
        done = subprocess.run(run, capture_output=True, encoding="utf-8", check=False)
        if done.returncode == 0:
            return done.stdout
    raise AssertionError(f"medai {' '.join(words)}: {done.stderr}")
