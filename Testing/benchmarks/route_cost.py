"""What routing an image costs, against plain ``model.predict`` per image in TensorFlow: same files, same run.

    python Testing/benchmarks/route_cost.py                  # a pair of ResNet50 at 64 x 64, random weights, 1 thread
    python Testing/benchmarks/route_cost.py --threads 2 --rounds 30

Both ways open the same picture files, prepare them as ResNet50 asks for, ask the router and then the expert it chose.
``predict`` does what the published service does: ``model.predict(verbose=0)`` for each image and each model. Each way
runs in a process of its own that is told what to do next; they take turns, round by round, so that a machine that is
busy now and then treats both alike. ``cold`` is from the start of Python to the first answer, with the conversion to
ONNX, which happens once, done before (its seconds are told apart). ``cpu`` is processor time, which other programs
disturb less than the clock does. Memory is what the system counts as resident.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

EXPERT = "pathmnist"
PICTURES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cold-rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for models and pictures, used again where it has them")
    parser.add_argument("--as", dest="way", choices=("ours", "predict", "make"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        {"ours": serve_ours, "predict": serve_predict, "make": make_models}[arguments.way](arguments)
        return
    with TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        prepare(arguments, folder)
        compare(arguments, folder)


def prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """Models, pictures, and the conversion."""
    from MedMNISTRouterLib.conversion import CONVERTED, made_up_pictures

    if not (folder / "stage1_final.keras").exists():
        subprocess.run(command(arguments, "make", folder), check=True, env=environment(arguments))
    pictures = folder / "pictures"
    if not pictures.exists():
        from PIL import Image

        pictures.mkdir()
        for index, pixels in enumerate(made_up_pictures(PICTURES, (96, 110), seed=7)):
            Image.fromarray(pixels).save(pictures / f"{index:03}.png")
    if not (folder / CONVERTED).exists():
        started = time.perf_counter()
        with Way(arguments, "ours", folder) as ours:
            ours.ask("one 0")
        print(f"Conversion of both models, once: {time.perf_counter() - started:.0f} s\n")


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    cold: dict[str, list[float]] = {"ours": [], "predict": []}
    for _ in range(arguments.cold_rounds):
        for name, seconds in cold.items():
            with Way(arguments, name, folder) as way:
                seconds.append(way.ask("one 0")["since_start"])
    with Way(arguments, "ours", folder) as ours, Way(arguments, "predict", folder) as predict:
        ways = {"ours": ours, "predict": predict}
        same = {name: way.ask("one 0") for name, way in ways.items()}
        difference = max(abs(a - b) for a, b in zip(same["ours"]["row"], same["predict"]["row"], strict=True))
        single = {name: ([], []) for name in ways}
        batch = {name: ([], []) for name in ways}
        for index in range(arguments.rounds):
            for name, way in ways.items():
                take(single[name], way.ask(f"one {index % PICTURES}"))
        for _ in range(max(arguments.rounds // 5, 2)):
            for name, way in ways.items():
                take(batch[name], way.ask("all"))
        memory = {name: way.ask("memory") for name, way in ways.items()}
    print(f"Pair of ResNet50 at 64 x 64, {PICTURES} PNG files, {arguments.threads} thread(s), {sys.platform}")
    print(f"Largest difference of the expert's probabilities between the two ways: {difference:.1e}\n")
    print("| | ours | `model.predict` | ratio |\n|---|---|---|---|")
    row("cold start to the first answer, s", {name: min(seconds) for name, seconds in cold.items()}, "{:.2f}")
    for which, label in ((0, "wall"), (1, "cpu")):
        for kind, pick in (("fastest", min), ("median", statistics.median)):
            values = {name: 1000 * pick(found[which]) for name, found in single.items()}
            row(f"one image, warm, {label}, {kind}, ms", values, "{:.1f}")
    row("images a second, all files", {name: PICTURES / min(found[0]) for name, found in batch.items()}, "{:.0f}")
    row("cpu ms an image, all files", {n: 1000 * min(found[1]) / PICTURES for n, found in batch.items()}, "{:.1f}")
    for key, label in (("peak", "peak memory, MB"), ("cleared", "memory after the models were let go, MB")):
        row(label, {name: found[key] / 1e6 for name, found in memory.items()}, "{:.0f}")
    row("of it, with libraries loaded and no model, MB", {n: f["start"] / 1e6 for n, f in memory.items()}, "{:.0f}")


def take(into: tuple[list[float], list[float]], found: dict[str, Any]) -> None:
    into[0].append(found["wall"])
    into[1].append(found["cpu"])


def row(label: str, values: dict[str, float], form: str) -> None:
    ours, predict = values["ours"], values["predict"]
    ratio = max(ours, predict) / max(min(ours, predict), 1e-9)
    print(f"| {label} | {form.format(ours)} | {form.format(predict)} | {ratio:.1f} |")


class Way:
    """One of the two ways, in its own process."""

    def __init__(self, arguments: argparse.Namespace, name: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            command(arguments, name, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**environment(arguments), "STARTED_AT": repr(time.time())},
        )

    def ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise SystemExit(f"the process ended while it was asked for '{what}'")

    def __enter__(self) -> Way:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def command(arguments: argparse.Namespace, way: str, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--as", way, "--folder", str(folder), "--threads", str(arguments.threads)]


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    threads = str(arguments.threads)
    return {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "",
    }


def serve(one: Callable[[int], list[float]], every: Callable[[], None], clear: Callable[[], None], start: int) -> None:
    """Do what standard input says, and tell what it took."""
    from MedAILib.jobs.report import peak_memory_mb
    from MedMNISTRouterLib.memory import resident_bytes

    for line in sys.stdin:
        what, _, number = line.strip().partition(" ")
        wall, cpu = time.perf_counter(), time.process_time()
        answer: list[float] = []
        if what == "one":
            answer = one(int(number))
        elif what == "all":
            every()
        found = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "since_start": time.time() - float(os.environ["STARTED_AT"]),
            "row": answer,
        }
        if what == "memory":
            found |= {"peak": (peak_memory_mb() or 0) * 2**20, "start": start}
            clear()
            found["cleared"] = resident_bytes()
        print(json.dumps(found), flush=True)


def serve_ours(arguments: argparse.Namespace) -> None:
    from MedMNISTRouterLib.engine import RouteEngine
    from MedMNISTRouterLib.memory import resident_bytes
    from MedMNISTRouterLib.request import PlainImage, RouteRequest

    files = sorted((arguments.folder / "pictures").glob("*.png"))
    engine = RouteEngine(arguments.threads)
    start = resident_bytes() or 0

    def ask(paths: list[Path]) -> Any:
        from PIL import Image

        images = tuple(PlainImage(path.name, np.asarray(Image.open(path).convert("RGB"))) for path in paths)
        return engine.route(RouteRequest(images, models_folder=arguments.folder, without_gate=True)).answers

    def one(index: int) -> list[float]:
        answer = ask([files[index]])[0]
        if not answer.success:
            raise SystemExit(answer.error or answer.reason)
        return list(answer.all_class_probs)

    serve(one, lambda: ask(files), engine.clear, start)


def serve_predict(arguments: argparse.Namespace) -> None:
    import gc

    import tensorflow as tf
    from PIL import Image

    from MedMNISTRouterLib.datasets import FLAGS
    from MedMNISTRouterLib.memory import resident_bytes

    files = sorted((arguments.folder / "pictures").glob("*.png"))
    start = resident_bytes() or 0
    models: dict[str, Any] = {}

    def model(name: str) -> Any:
        if name not in models:
            models[name] = tf.keras.models.load_model(arguments.folder / name, compile=False)
        return models[name]

    def one(index: int) -> list[float]:
        picture = Image.open(files[index]).convert("RGB").resize((64, 64))
        batch = tf.keras.applications.resnet50.preprocess_input(np.asarray(picture, np.float32)[None])
        flag = FLAGS[int(model("stage1_final.keras").predict(batch, verbose=0)[0].argmax())]
        return [float(p) for p in model(f"stage2_{flag}_final.keras").predict(batch, verbose=0)[0]]

    def every() -> None:
        for index in range(len(files)):
            one(index)

    def clear() -> None:
        models.clear()
        gc.collect()
        tf.keras.backend.clear_session()

    serve(one, every, clear, start)


def make_models(arguments: argparse.Namespace) -> None:
    """A router that prefers one expert, and that expert: ResNet50 with random weights."""
    import keras

    from MedMNISTRouterLib.datasets import BY_FLAG, FLAGS

    keras.utils.set_random_seed(0)
    for name, classes in (("stage1_final", len(FLAGS)), (f"stage2_{EXPERT}_final", len(BY_FLAG[EXPERT].class_names))):
        model = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=classes)
        if name == "stage1_final":
            kernel, bias = model.layers[-1].get_weights()
            bias[FLAGS.index(EXPERT)] = 50.0
            model.layers[-1].set_weights([kernel, bias])
        model.save(arguments.folder / f"{name}.keras")


if __name__ == "__main__":
    main()
