"""A lock that processes and threads respect, and that never outlives its holder."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest
from hostile_system import ordinary_user

from MedAILib.errors import Cancelled, InUse, OutputError
from MedAILib.models import locks
from MedAILib.models.locks import is_locked, locked

HOLDER = """
import sys, time
from MedAILib.models import locks
from MedAILib.models.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def holder(repository):
    """A function that starts a process which holds a lock for some seconds; ends them all at last."""
    started = []

    def start(path, seconds=20.0):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), str(seconds)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(repository / "MedAIExtension")},
        )
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_free_lock_is_taken_at_once_and_leaves_no_file(tmp_path):
    lock = tmp_path / "model ü.lock"
    with locked(lock) as waited:
        assert not waited
        assert is_locked(lock)
    assert not is_locked(lock)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_process_is_named_after_the_time(tmp_path, holder):
    process = holder(tmp_path / "model.pth.lock")
    with pytest.raises(InUse, match=rf"model\.pth' is in use\. Process {process.pid} is working") as caught:
        locked(tmp_path / "model.pth.lock", timeout_s=0.2).__enter__()
    assert caught.value.code == "IN_USE"


def test_one_waits_for_another_process_and_is_told_so(tmp_path, holder):
    holder(tmp_path / "lock", 0.4)
    looks = []
    with locked(tmp_path / "lock", on_wait=lambda: looks.append(time.monotonic())) as waited:
        assert waited
    assert len(looks) >= 2


def test_a_killed_holder_leaves_nothing_locked(tmp_path, holder):
    process = holder(tmp_path / "lock")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", timeout_s=2):
        pass
    assert list(tmp_path.iterdir()) == []


def test_waiting_can_be_cancelled(tmp_path, holder):
    holder(tmp_path / "lock")
    started = time.monotonic()
    with pytest.raises(Cancelled):
        locked(tmp_path / "lock", is_cancelled=lambda: time.monotonic() - started > 0.1).__enter__()
    assert time.monotonic() - started < 1


def test_threads_of_one_process_take_turns(tmp_path, monkeypatch):
    """However the removal of the lock file by one falls between the opening and the locking by another."""
    monkeypatch.setattr(locks, "_LOOK_AGAIN_S", 0.0)
    inside, most, rounds = [], [], []

    def work():
        for _ in range(40):
            with locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()
                rounds.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(rounds) == 240
    assert max(most) == 1


def test_the_lock_is_let_go_when_the_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        raise ZeroDivisionError
    assert not is_locked(tmp_path / "lock")


def test_a_folder_one_may_not_write_to_is_named(tmp_path):
    tmp_path.chmod(0o555)
    with ordinary_user(), pytest.raises(OutputError, match="not allowed"), locked(tmp_path / "lock"):
        pass


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="does not exist"), locked(tmp_path / "nowhere" / "lock"):
        pass
