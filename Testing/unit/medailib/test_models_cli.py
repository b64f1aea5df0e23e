"""``medai models`` as a user meets it: in a process of its own, with real files and servers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_catalogues as make
import pytest
import weight_files
from weight_servers import WeightServer, loopback

from MedAILib.cli.main import main
from MedAILib.models import install

Run = Callable[..., "subprocess.CompletedProcess[str]"]
STRICT = {"name": "A Strict Licence", "url": "https://example.org/l", "must_be_accepted": True}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store that the commands use, with a model of its own in a catalogue of the user."""
    folder = tmp_path / "Größe home"
    monkeypatch.setenv("MEDAI_HOME", str(folder))
    monkeypatch.delenv("MEDAI_SHARED_HOME", raising=False)
    make.write(folder / "catalogues" / "mine.json", make.entry())
    return folder


@pytest.fixture
def medai(capsys: pytest.CaptureFixture[str], home: Path) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["models", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def weights_file(folder: Path, name: str = "some file") -> Path:
    path = folder / name
    path.write_bytes(make.WEIGHTS)
    return path


@pytest.mark.parametrize(
    "arguments", [["models", "--help"], ["models", "list"], ["models", "list", "--json"], ["--help"]]
)
def test_help_and_list_load_no_framework(home: Path, arguments: list[str]) -> None:
    code = (
        "import sys, json\nfrom MedAILib.cli.main import main\n"
        f"status = main({arguments!r})\n"
        "heavy = ['torch', 'huggingface_hub', 'gdown', 'requests', 'h5py', 'safetensors', 'keras', 'scipy', 'numpy']\n"
        "print(json.dumps([status, [name for name in heavy if name in sys.modules]]), file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert json.loads(done.stderr.splitlines()[-1]) == [0, []]


def test_list_shows_state_size_and_licence_and_searches(medai: Any) -> None:
    status, out, _ = medai("list")
    assert status == 0
    assert "trial" in out
    assert "mem3d-vmn-youtube-vos" in out
    assert "not installed" in out
    _, out, _ = medai("list", "kidneys", "CT", "--json")
    (found,) = json.loads(out)["models"]
    assert (found["id"], found["state"], found["licence"], found["hash"]) == (
        "trial",
        "not installed",
        "MIT License",
        "known",
    )
    _, out, _ = medai("list", "--installed")
    assert "trial" not in out
    assert "medai-propagate-s" in out, "what comes with the extension is there"
    _, out, _ = medai("list", "--feature", "knee", "--json")
    assert {item["feature"] for item in json.loads(out)["models"]} == {"knee"}


def test_show_prints_the_card(medai: Any) -> None:
    status, out, _ = medai("show", "knee-nnunet-fullres")
    assert status == 0
    for word in ("nnU-Net", "patella (SCT 64234005)", "ced27b5e...65d1a", "--accept-licence"):
        assert word in out
    _, out, _ = medai("show", "trial", "--json")
    assert json.loads(out)["entry"]["files"][0]["sha256"] == make.SHA256


def test_import_verify_where_export_and_remove_in_a_row(medai: Any, home: Path, tmp_path: Path) -> None:
    status, out, _ = medai("import", str(weights_file(tmp_path)))
    assert status == 0
    assert "trial is installed" in out
    status, out, _ = medai("verify")
    assert status == 0
    assert "trial: installed, every file has the right SHA-256." in out.splitlines()
    assert medai("where", "trial")[1].strip() == str(home / "models" / "trial")
    use = json.loads(medai("where", "--json")[1])
    assert use["models"]["trial"] > len(make.WEIGHTS)
    bundle = tmp_path / "für die Klinik.zip"
    status, out, _ = medai("export", "trial", "--out", str(bundle), "--json")
    assert json.loads(out)["size"] == bundle.stat().st_size
    assert json.loads(medai("remove", "trial", "--json")[1])["freed_bytes"]["trial"] > 0
    assert medai("where", "trial")[0] == 7
    status, out, _ = medai("import", str(bundle), "--json")
    assert (status, json.loads(out)["installed"]) == (0, ["trial"])
    listed = [item["id"] for item in json.loads(medai("list", "--installed", "--json")[1])["models"]]
    assert listed.count("trial") == 1


def test_get_downloads_and_tells_of_trust_on_first_use(medai: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with WeightServer() as server:
        url = server.add("w", make.WEIGHTS)
        entry = make.entry(
            "net", make.file(size=None, sha256=None, sources=[{"url": url}]), licence=STRICT, terms="Cite."
        )
        make.write(home / "catalogues" / "net.json", entry)
        status, out, err = medai("get", "net")
        assert status == 9
        assert "A Strict Licence" in err
        assert "medai models get net --accept-licence net" in err
        monkeypatch.setattr(install, "download", _through(loopback(), install.download))
        status, out, err = medai("get", "net", "--accept-licence", "net")
        assert (status, "net is installed in" in out) == (0, True)
        assert "trust on first use" in err
        assert make.SHA256 in err
        status, out, err = medai("get", "net", "--json")
        assert json.loads(out)["models"][0]["was_here"] is True


def _through(network: Any, download: Any) -> Any:
    """The real download, with settings for servers on this machine (the command line has none for these)."""

    def run(*arguments: Any, **options: Any) -> Any:
        return download(*arguments, **{**options, "network": network})

    return run


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["get", "trail"], 2, ["No model is called 'trail'", "Did you mean trial"]),
        (["get", "trial"], 10, ["medai models import FILE --as trial"]),
        (["get", "knee-nnunet-fullres"], 9, ["--accept-licence knee-nnunet-fullres"]),
        (["import", "/no/such/file"], 2, ["no file or folder"]),
        (["verify", "trial"], 7, ["medai models get trial"]),
        (["export", "trial", "--out", "/tmp/x.zip"], 7, ["not installed"]),
        (["remove", "trail"], 2, ["Did you mean trial"]),
        (["describe", "/no/such/file.pth"], 2, ["no file"]),
        (["list", "--feature"], 2, ["--feature"]),
        (["fly"], 2, ["fly"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("as_json", [False, True])
def test_every_failure_is_one_paragraph_with_a_way_out(
    medai: Any, arguments: list[str], status: int, words: list[str], as_json: bool
) -> None:
    found, out, err = medai(*arguments, *(["--json"] if as_json else []))
    assert found == status
    assert "Traceback" not in out + err
    assert "unexpected" not in err
    for word in words:
        assert word in err
    if as_json:
        assert set(json.loads(out)["error"]) == {"code", "what", "why", "todo"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pth", weight_files.LFS_POINTER, "Git LFS pointer"),
        ("a.pth", weight_files.DRIVE_VIRUS_PAGE, "virus scan"),
        ("a.pth", weight_files.evil_pickle(), "not safe"),
        ("a.safetensors", make.WEIGHTS[:100], "cut short"),
    ],
    ids=["lfs", "drive", "pickle", "short"],
)
def test_bad_files_are_refused_by_name(medai: Any, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for action in ("import", "describe"):
        status, _, err = medai(action, str(path))
        assert status == 8
        assert words in err


def test_describe_looks_into_a_file_and_writes_beside_it(medai: Any, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    path.write_bytes(make.WEIGHTS)
    status, out, _ = medai("describe", str(path), "--json")
    assert status == 0
    assert json.loads(out)["files"][0]["tensors"] == 2
    status, out, _ = medai("describe", str(path), "--write")
    assert status == 0
    assert "written" in out
    assert list(tmp_path.glob("*.json"))


def test_verify_goes_on_after_a_broken_model_and_says_so(medai: Any, home: Path, tmp_path: Path) -> None:
    second = weight_files.safetensors_bytes({"second": "yes"})
    entry = make.entry("second", make.file(size=len(second), sha256=hashlib.sha256(second).hexdigest()))
    make.write(home / "catalogues" / "second.json", entry)
    (tmp_path / "2").write_bytes(second)
    medai("import", str(weights_file(tmp_path)))
    medai("import", str(tmp_path / "2"))
    (home / "models" / "second" / "model.safetensors").write_bytes(second[:-4] + b"oops")
    status, out, _ = medai("verify", "--json")
    assert status == 8
    states = {item["id"]: item["state"] for item in json.loads(out)["models"]}
    assert (states.pop("second"), states.pop("trial")) == ("invalid", "installed")
    assert set(states.values()) == {"embedded"}


def test_prune_says_what_it_would_delete(medai: Any, home: Path) -> None:
    assert "Nothing to delete" in medai("prune")[1]
    (home / "models" / "stranger").mkdir(parents=True)
    status, out, _ = medai("prune", "--dry-run")
    assert (status, "would delete" in out) == (0, True)
    assert json.loads(medai("prune", "--unknown", "--json")[1])["items"][0]["path"].endswith("stranger")


def test_a_broken_catalogue_is_a_warning(medai: Any, home: Path) -> None:
    (home / "catalogues" / "broken.json").write_text("{")
    status, out, err = medai("list", "--json")
    assert status == 0
    assert "broken.json" in err
    assert json.loads(out)["models"]


def test_another_store_can_be_named(medai: Any, tmp_path: Path) -> None:
    make.write(tmp_path / "other" / "catalogues" / "c.json", make.entry("elsewhere"))
    assert "elsewhere" in medai("list", "--home", str(tmp_path / "other"))[1]
