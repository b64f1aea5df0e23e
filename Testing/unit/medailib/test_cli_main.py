"""The command line: exit codes, errors, JSON, speed; as a user meets it, in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from MedAILib import __version__
from MedAILib.cli.console import Console, progress_line
from MedAILib.cli.main import EXIT_CODES, main
from MedAILib.errors import MedAIError, error_types
from MedAILib.jobs.task import Progress

FEATURE = """
from MedAILib.features import Feature
FEATURE = Feature(name="trial", title="Trial", commands="TrialLib.command:add_commands")
"""
COMMAND = """
def add_commands(commands):
    parser = commands.add_parser("trial", help="fails on request")
    parser.add_argument("how")
    parser.set_defaults(run=run)

def run(arguments, console):
    import os, signal, time, logging
    from MedAILib.errors import FileMissing, NothingDrawn
    from MedAILib.jobs.task import Progress
    match arguments.how:
        case "well":
            console.progress(Progress("working", 0.5))
            console.remark("a remark")
            logging.getLogger("MedAILib").warning("a logged warning")
            console.print("größer 漢字")
            console.result({"answer": "größer 漢字"})
        case "status": return 3
        case "missing": raise FileMissing("No file 'ü漢'.", why="It was moved.", todo="Find it.")
        case "bug": raise ValueError("a bug\\nin two lines")
        case "interrupt": os.kill(os.getpid(), signal.SIGINT); time.sleep(5)
        case "much":
            for _ in range(100_000): console.print("line")
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a feature, packed flat with the shared library as Slicer does."""
    folder = tmp_path_factory.mktemp("qt-scripted modules ü")
    library = Path(sys.modules["MedAILib"].__file__ or "").parent
    (folder / "MedAILib").symlink_to(library, target_is_directory=True)
    (folder / "TrialLib").mkdir()
    (folder / "TrialLib" / "__init__.py").touch()
    (folder / "TrialLib" / "feature.py").write_text(FEATURE, encoding="utf-8")
    (folder / "TrialLib" / "command.py").write_text(COMMAND, encoding="utf-8")
    # An installed distribution would be found first: give this folder one that knows the trial feature.
    metadata = folder / "trial-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: trial\nVersion: 1.0\n", encoding="ascii")
    (metadata / "entry_points.txt").write_text("[medai.features]\ntrial = TrialLib.feature:FEATURE\n", "ascii")
    return folder


def _medai(*arguments: str, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    folders = [str(path)] if path else []
    env = {**os.environ, "PYTHONUTF8": "1", "PYTHONPATH": os.pathsep.join([*folders, *sys.path]), **environment}
    command = [sys.executable, "-m", "MedAILib.cli", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=env, check=False, timeout=60)


def test_help_lists_commands_and_exit_codes(modules: Path) -> None:
    done = _medai("--help", path=modules)
    assert done.returncode == 0, done.stderr
    for words in ("devices", "worker-check", "trial", "fails on request", "exit codes:", "130  cancelled"):
        assert words in done.stdout


def test_help_of_every_command_works(modules: Path) -> None:
    for command in ("devices", "worker-check", "trial"):
        done = _medai(command, "--help", path=modules)
        assert done.returncode == 0
        assert "--json" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from MedAILib.cli.main import main
status = main(["--help"])
heavy = {"numpy", "scipy", "SimpleITK", "torch", "vtk", "slicer", "pydicom", "PIL"} & set(sys.modules)
print("found:", status, sorted(heavy))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "found: 0 []"


def test_the_version_is_told() -> None:
    assert _medai("--version").stdout.strip() == f"medai {__version__}"


def test_devices_are_listed_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices"]) == 0
    assert "cpu" in capsys.readouterr().out
    assert main(["devices", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["devices"][-1]["kind"] == "cpu"


@pytest.mark.parametrize("arguments", [["--json", "worker-check"], ["worker-check", "--json"]])
def test_the_worker_check_runs_a_real_worker(arguments: list[str]) -> None:
    done = _medai(*arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["second_s"] < found["first_s"]
    assert Path(found["executable"]).exists()


def test_results_go_to_standard_output_and_the_rest_to_standard_error(modules: Path) -> None:
    done = _medai("trial", "well", path=modules)
    assert (done.returncode, done.stdout) == (0, "größer 漢字\n")
    assert done.stderr.splitlines() == ["a remark", "WARNING MedAILib: a logged warning"]


def test_quiet_leaves_only_results(modules: Path) -> None:
    done = _medai("trial", "well", "--quiet", path=modules)
    assert (done.stdout, done.stderr) == ("größer 漢字\n", "")


def test_json_mode_writes_one_document(modules: Path) -> None:
    done = _medai("trial", "well", "--json", path=modules)
    assert json.loads(done.stdout) == {"answer": "größer 漢字"}


def test_a_terminal_that_cannot_show_a_letter_gets_it_escaped(modules: Path) -> None:
    done = _medai("trial", "well", path=modules, PYTHONUTF8="0", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "gr\\xf6\\xdfer \\u6f22\\u5b57\n"


def test_the_exit_code_of_a_command_is_passed_on(modules: Path) -> None:
    assert _medai("trial", "status", path=modules).returncode == 3


def test_an_error_is_one_paragraph_with_cause_action_and_code(modules: Path) -> None:
    done = _medai("trial", "missing", path=modules)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "medai: No file 'ü漢'. It was moved. Find it. [FILE_NOT_FOUND]\n"


def test_in_json_mode_an_error_is_json_too(modules: Path) -> None:
    done = _medai("trial", "missing", "--json", path=modules)
    error = {"code": "FILE_NOT_FOUND", "what": "No file 'ü漢'.", "why": "It was moved.", "todo": "Find it."}
    assert json.loads(done.stdout) == {"error": error}
    assert done.returncode == 2


def test_an_unexpected_error_is_one_paragraph_that_names_its_log(modules: Path, tmp_path: Path) -> None:
    done = _medai("trial", "bug", path=modules, TMPDIR=str(tmp_path), TEMP=str(tmp_path))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "ValueError: a bug in two lines" in done.stderr
    (log,) = tmp_path.glob("medai-error-*.log")
    assert str(log) in done.stderr
    assert "Traceback" in log.read_text(encoding="utf-8")


def test_with_debug_the_traceback_is_shown(modules: Path, tmp_path: Path) -> None:
    done = _medai("trial", "bug", "--debug", path=modules, TMPDIR=str(tmp_path), TEMP=str(tmp_path))
    assert "Traceback" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["devices", "--nonsense"], "--nonsense"),
        (["devices", "--js"], "--js"),
    ],
)
def test_wrong_options_are_an_input_error(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert "--help" in said.err


def test_wrong_options_are_json_in_json_mode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "INVALID_INPUT"


def test_a_broken_feature_is_named_in_the_help_and_where_its_command_is_wanted(modules: Path, tmp_path: Path) -> None:
    (tmp_path / "TrialLib").mkdir()
    (tmp_path / "TrialLib" / "__init__.py").write_text("import a_package_nobody_has\n", encoding="ascii")
    path = os.pathsep.join([str(tmp_path), str(modules)])
    done = _medai("--help", path=path)  # type: ignore[arg-type]
    assert done.returncode == 0
    assert "not available:" in done.stdout
    assert "a_package_nobody_has" in done.stdout
    wanted = _medai("trial", "well", path=path)  # type: ignore[arg-type]
    assert wanted.returncode == 2
    assert "a_package_nobody_has" in wanted.stderr
    assert _medai("devices", path=path).returncode == 0  # type: ignore[arg-type]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_an_interrupt_is_a_cancel(modules: Path) -> None:
    done = _medai("trial", "interrupt", path=modules)
    assert done.returncode == 130
    assert done.stderr == "medai: Interrupted. [CANCELLED]\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes close with a signal on POSIX")
def test_a_reader_that_goes_away_is_no_error(modules: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(modules), *sys.path])}
    command = [sys.executable, "-m", "MedAILib.cli", "trial", "much"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 141


def test_every_exit_status_of_our_errors_is_documented() -> None:
    own = {kind.exit_status for kind in error_types().values() if kind.__module__ == MedAIError.__module__}
    assert own <= set(EXIT_CODES)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_that_an_error_replaces() -> None:
    screen = _Terminal()
    console = Console(out=io.StringIO(), err=screen)
    console.progress(Progress("propagating", 0.25, 75.0))
    console.progress(Progress("writing", 1.0))
    console.error(MedAIError("Stop."))
    first, second, *rest = screen.getvalue().split("\r")[1:]
    assert first == "propagating: 25 %, 1 min 15 s left"
    assert second == "writing: 100 %".ljust(len(first))
    assert rest[-1] == "medai: Stop. [MEDAI_ERROR]\n"


def test_progress_elsewhere_says_nothing() -> None:
    screen = io.StringIO()
    Console(out=io.StringIO(), err=screen).progress(Progress("x", 0.5))
    Console(out=io.StringIO(), err=_Terminal(), quiet=True).progress(Progress("x", 0.5))
    assert screen.getvalue() == ""


def test_the_time_left_is_told_in_minutes_and_seconds() -> None:
    assert progress_line(Progress("x", 0.5, 4.4)) == "x: 50 %, 4 s left"
    assert progress_line(Progress("x", 0.0)) == "x: 0 %"
