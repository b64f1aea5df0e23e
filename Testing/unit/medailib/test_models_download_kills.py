"""Processes that are killed while they download, and processes that download the same file at once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest
from weight_servers import WeightServer, sha256_of, some_bytes

from MedAILib.models.partial import partial_bytes

CONTENT = some_bytes(1_500_000, seed=11)
SHA256 = sha256_of(CONTENT)
CHILD = """
import sys
sys.path[:0] = [sys.argv[1]]
from MedAILib.models.download import HttpsSource, Network, download
told = []
got = download(
    HttpsSource(sys.argv[2]),
    sys.argv[3],
    sha256=sys.argv[4] or None,
    on_progress=lambda done, total: told.append((done, total)),
    network=Network(proxies={}, allow_http_on_loopback=True, first_wait_s=0.01, attempts=100),
)
print(got.sha256, got.received_bytes, *sorted({total for _, total in told}, key=str), len(told))
"""


@pytest.fixture
def start(repository):
    """A function that starts a process that downloads; all are ended at last."""
    started = []

    def run(url, target, sha256):
        library = str(repository / "MedAIExtension")
        command = [sys.executable, "-S", "-c", CHILD, library, url, str(target), sha256]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def breaking(rng):
    """Breaks two connections of three, at a random byte."""
    return lambda count: rng.randrange(count + 1) if rng.random() < 0.67 else None


@pytest.mark.parametrize(
    ("planned_kills", "known_hash"), [(50, True), (20, False)], ids=["50 with a known hash", "20 with none"]
)
def test_kills_in_a_row_end_in_the_right_file(start, tmp_path, planned_kills, known_hash):
    """Each run is killed after a random number of bytes; the server breaks connections at random bytes besides."""
    rng = random.Random(50)
    target = tmp_path / "Gewichte 東" / "weights.pth"
    kills = whole_files = 0
    furthest = 0
    with WeightServer() as server:
        url = server.add("weights.pth", CONTENT, breaks_after=breaking(rng), pause_s=0.004)
        while kills < planned_kills:
            process = start(url, target, SHA256 if known_hash else "")
            wait_for(server, rng.choice([0, 0, rng.randrange(120_000), rng.randrange(400_000)]), process)
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            kills += process.wait(10) == -signal.SIGKILL
            furthest = max(furthest, partial_bytes(target))
            if target.exists():
                assert sha256_of(target.read_bytes()) == SHA256
                whole_files += 1
                target.unlink()
        server.add("weights.pth", CONTENT, breaks_after=breaking(rng))
        process = start(url, target, SHA256 if known_hash else "")
        output, errors = process.communicate(timeout=20)
    assert output.startswith(SHA256), errors
    assert sha256_of(target.read_bytes()) == SHA256
    assert sorted(path.name for path in target.parent.iterdir()) == ["weights.pth"]
    assert furthest > 300_000 or whole_files


def wait_for(server, count, process):
    """Until the server has sent so many more bytes, or the process has ended."""
    before, give_up_at = server.sent, time.monotonic() + 3
    while server.sent - before <= count and process.poll() is None and time.monotonic() < give_up_at:
        time.sleep(0.002)


@pytest.mark.parametrize("sha256", [SHA256, ""], ids=["known hash", "trust on first use"])
def test_two_processes_that_ask_at_once_make_one_download(start, tmp_path, sha256):
    target = tmp_path / "weights.pth"
    with WeightServer() as server:
        url = server.add("weights.pth", CONTENT, pause_s=0.01)
        first, second = start(url, target, sha256), start(url, target, sha256)
        outputs = [process.communicate(timeout=20)[0].split() for process in (first, second)]
        assert len(server.seen) == 1
        assert server.sent == len(CONTENT)
    assert [output[0] for output in outputs] == [SHA256] * 2
    assert sorted(int(output[1]) for output in outputs) == [0, len(CONTENT)]
    assert all(str(len(CONTENT)) in output[2:-1] for output in outputs), "both show progress with the total"
    assert all(int(output[-1]) >= 3 for output in outputs)


def test_the_one_who_waits_goes_on_when_the_one_who_downloads_is_killed(start, tmp_path):
    target = tmp_path / "weights.pth"
    with WeightServer() as server:
        url = server.add("weights.pth", CONTENT, pause_s=0.01)
        first = start(url, target, SHA256)
        wait_for(server, 400_000, first)
        second = start(url, target, SHA256)
        time.sleep(0.3)
        first.kill()
        output = second.communicate(timeout=20)[0].split()
        assert output[0] == SHA256
        assert 0 < int(output[1]) < len(CONTENT)
        assert len(server.seen) == 2
