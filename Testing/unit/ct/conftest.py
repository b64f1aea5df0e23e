"""The neighbours' helpers and the benchmarks' are at hand here too, also where this folder is run by itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "medailib"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
