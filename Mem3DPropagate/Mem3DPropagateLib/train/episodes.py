"""Episodes: a structure, a few slices of it drawn, a few slices wanted, as the network will meet them.

Between references the prior is what the geometric method foretells from them. Beyond the last one it is the shape of
the slice the network stands on, which when propagating is its own earlier answer: here a truth that was spoilt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from Mem3DPropagateLib.geometry import PARTS, STILL, WHOLE, FittedVariant, Variant
from Mem3DPropagateLib.nets.gapinput import ROOM, Appearance, Whereabouts, clipped, shape_planes
from Mem3DPropagateLib.shapes import Stack, holds, signed_distance_mm
from Mem3DPropagateLib.train.painting import altered, painted
from Mem3DPropagateLib.train.subjects import Kind, Subject

SIDE_PX = 96
WANTED = 6
MOST_REFERENCES = 4
FARTHEST_STEPS = 5
"""Slices beyond the last known one that a roll-out answers at once, at most."""
ONE_SIDED_SHARE = 0.4
FAMILY_POWER = 0.65
"""1 would let every family of cases count alike, 0 every case."""
KIND_SHARES = {Kind.DRAWN: 0.5, Kind.REGIONS: 0.22, Kind.PAINTED: 0.28}


@dataclass(frozen=True, eq=False)
class Episode:
    """One structure, ready for the network; names and shapes are those of `GapNet.forward`, without the batch.

    Attributes
    ----------
    references : ndarray, shape (MOST_REFERENCES, 4, SIDE_PX, SIDE_PX), float32
    shapes : ndarray, shape (MOST_REFERENCES, 2, SIDE_PX, SIDE_PX), float32
    held : ndarray, shape (MOST_REFERENCES,), bool
    slices : ndarray, shape (WANTED, 4, SIDE_PX, SIDE_PX), float32
    priors_px : ndarray, shape (WANTED, SIDE_PX, SIDE_PX), float32
    scalars : ndarray, shape (WANTED, 7), float32
    apart_px : ndarray, shape (WANTED, MOST_REFERENCES), float32
    truth : ndarray, shape (WANTED, SIDE_PX, SIDE_PX), bool
    one_sided : bool
    """

    references: np.ndarray
    shapes: np.ndarray
    held: np.ndarray
    slices: np.ndarray
    priors_px: np.ndarray
    scalars: np.ndarray
    apart_px: np.ndarray
    truth: np.ndarray
    one_sided: bool


@dataclass(frozen=True)
class _Plan:
    """Which slices of a structure: indices along the stack, in steps of ``stride`` slices."""

    axis: int
    stride: int
    offset: int
    drawn: tuple[int, ...]
    wanted: tuple[int, ...]
    base: int | None
    """The slice a roll-out stands on; None between references."""


class EpisodeMaker:
    """Draws episodes from subjects; the same seed and numbers give the same episodes.

    Parameters
    ----------
    subjects : sequence of Subject
    seed : int
    """

    def __init__(self, subjects: list[Subject], seed: int) -> None:
        self._seed = seed
        self._by_kind = {kind: [s for s in subjects if s.kind is kind and s.structures] for kind in Kind}
        shares = np.array([KIND_SHARES[kind] * bool(self._by_kind[kind]) for kind in Kind])
        self._shares = shares / shares.sum()
        self._weights = {kind: _weights(found) for kind, found in self._by_kind.items() if found}

    def episode(self, number: int) -> Episode:
        """The episode of that number."""
        for attempt in range(1000):
            rng = np.random.default_rng((self._seed, number, attempt))
            kind = list(Kind)[rng.choice(len(self._shares), p=self._shares)]
            subject = self._by_kind[kind][rng.choice(len(self._by_kind[kind]), p=self._weights[kind])]
            made = make_episode(subject, rng)
            if made is not None:
                return made
        raise RuntimeError("no episode can be drawn from these subjects")


def _weights(subjects: list[Subject]) -> np.ndarray:
    """Of each subject, so that a family of many cases (first word of the name, modality) does not drown the others."""
    families = [" ".join([s.name.split("_")[0].split(" ")[0], s.name.split("_")[-1]]) for s in subjects]
    families = [f.split(" ")[0] if f.startswith(("hippo", "shapes")) else f for f in families]
    counts = {family: families.count(family) for family in families}
    weights = np.array([counts[family] ** -FAMILY_POWER for family in families])
    return weights / weights.sum()


def make_episode(subject: Subject, rng: np.random.Generator) -> Episode | None:
    """An episode of one of a subject's structures; None where the draw does not give one."""
    label, box = subject.structures[rng.integers(len(subject.structures))]
    plan = _plan(subject, box, rng)
    if plan is None:
        return None
    view = _View(subject, label, box, plan, rng)
    return view.episode()


def _plan(subject: Subject, box: tuple[slice, slice, slice], rng: np.random.Generator) -> _Plan | None:
    spacing = np.array(subject.spacing_mm)
    thick = int(spacing.argmax())
    axis = thick if spacing.max() > 1.5 * spacing.min() else int(rng.integers(3))
    length = box[axis].stop - box[axis].start
    thin = spacing[axis] <= 1.5 * np.delete(spacing, axis).min()
    stride = int(rng.choice((1, 1, 2, 3, 4))) if thin else int(rng.choice((1, 1, 1, 2)))
    stride = max(min(stride, length // 6), 1)
    offset = int(rng.integers(stride))
    first, last = -(-(box[axis].start - offset) // stride), (box[axis].stop - 1 - offset) // stride
    count = (subject.labels.shape[axis] - 1 - offset) // stride + 1
    if last - first < 3:
        return None
    if rng.random() < ONE_SIDED_SHARE:
        return _one_sided(axis, stride, offset, first, last, count, rng)
    return _between(axis, stride, offset, first, last, rng)


def _between(axis: int, stride: int, offset: int, first: int, last: int, rng: np.random.Generator) -> _Plan | None:
    if rng.random() < 0.5:  # a stretch of the structure, else all of it
        length = int(rng.integers(3, last - first + 1))
        first = int(rng.integers(first, last - length + 1))
        last = first + length
    many = int(rng.choice((2, 3, 3, 3, 4, 5)))
    drawn = np.linspace(first, last, many)
    drawn[1:-1] += rng.uniform(-0.25, 0.25, many - 2) * (last - first) / (many - 1)
    drawn = np.unique(drawn.round().astype(int))
    open_ = np.setdiff1d(np.arange(first, last + 1), drawn)
    if len(drawn) < 2 or not len(open_):
        return None
    wanted = np.sort(rng.choice(open_, WANTED, replace=len(open_) < WANTED))
    return _Plan(axis, stride, offset, tuple(map(int, drawn)), tuple(map(int, wanted)), None)


def _one_sided(
    axis: int, stride: int, offset: int, first: int, last: int, count: int, rng: np.random.Generator
) -> _Plan | None:
    way = int(rng.choice((-1, 1)))
    start, end = (first, last) if way > 0 else (last, first)
    length = abs(end - start)
    # Half of the roll-outs stand near the end, where they must learn to stop.
    to_end = int(rng.integers(0, min(5, length) + 1)) if rng.random() < 0.5 else int(rng.integers(0, length + 1))
    base = end - way * to_end
    behind = int(rng.choice((0, 0, 0, 1, 2, 3, 5, 8)))
    nearest = base - way * min(behind, abs(base - start))
    drawn = {nearest}
    for _ in range(int(rng.choice((0, 0, 1, 2)))):
        drawn.add(int(rng.integers(min(start, nearest), max(start, nearest) + 1)))
    steps = rng.choice(FARTHEST_STEPS, WANTED) + 1
    wanted = [base + way * int(step) for step in np.sort(steps)]
    wanted = [index for index in wanted if 0 <= index < count]
    if not wanted:
        return None
    wanted += [wanted[-1]] * (WANTED - len(wanted))
    return _Plan(axis, stride, offset, tuple(sorted(drawn)), tuple(wanted), base)


class _View:
    """The slices of a plan on a turned, scaled, shifted working grid."""

    def __init__(
        self, subject: Subject, label: int, box: tuple[slice, slice, slice], plan: _Plan, rng: np.random.Generator
    ) -> None:
        self.subject, self.plan, self.rng = subject, plan, rng
        self.known = sorted({*plan.drawn, plan.base} if plan.base is not None else plan.drawn)
        self._labels = np.moveaxis(subject.labels, plan.axis, 0)
        self._image = None if subject.image is None else np.moveaxis(subject.image, plan.axis, 0)
        self._label = label
        spacing = np.delete(np.array(subject.spacing_mm), plan.axis)
        self._slice_mm = subject.spacing_mm[plan.axis] * plan.stride
        rows, columns = (part for a, part in enumerate(box) if a != plan.axis)
        side_mm = max((p.stop - p.start) * s for p, s in zip((rows, columns), spacing, strict=True))
        self.pixel_mm = max(side_mm * ROOM * rng.uniform(0.75, 1.3) / SIDE_PX, 0.45 * spacing.min())
        centre = np.array([(p.start + p.stop - 1) / 2 for p in (rows, columns)]) + rng.normal(0, 0.05, 2) * side_mm
        turn = rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else rng.normal(0, 0.25)
        flip = np.diag(rng.choice((-1.0, 1.0), 2))
        matrix = flip @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        stretch = np.exp(rng.normal(0, 0.08, 2))
        at = (np.arange(SIDE_PX) - (SIDE_PX - 1) / 2) * self.pixel_mm
        grid = np.stack(np.meshgrid(at * stretch[0], at * stretch[1], indexing="ij"), -1) @ matrix.T
        self._where = centre + grid / spacing
        self._step = self.pixel_mm / spacing.min()

    def _plane(self, index: int) -> int:
        count = self._labels.shape[0]
        return min(max(index * self.plan.stride + self.plan.offset, 0), count - 1)

    def masks(self, indices: list[int]) -> np.ndarray:
        planes = [(self._labels[self._plane(i)] == self._label).astype(np.float32) for i in indices]
        return _sampled(np.stack(planes), self._where, self._step, 0.0) >= 0.5

    def images(self, indices: list[int]) -> np.ndarray:
        """The image on those slices: float32, shape (n, SIDE_PX, SIDE_PX)."""
        planes = [self._plane(index) for index in indices]
        if self._image is None:
            labels = _nearest(np.stack([self._labels[p] for p in planes]), self._where)
            return painted(labels, self._label, self.rng)
        return _sampled(np.stack([self._image[p] for p in planes]).astype(np.float32), self._where, self._step, None)

    def episode(self) -> Episode | None:
        plan, rng = self.plan, self.rng
        masks = self.masks(self.known)
        if (np.count_nonzero(masks, axis=(1, 2)) < 8).any():
            return None
        around = sorted({i + d for i in (*self.known, *plan.wanted) for d in (-1, 0, 1)})
        images = dict(zip(around, altered(self.images(around), rng), strict=True))
        drawn = [_slopped(mask, rng) for mask in masks]
        if plan.base is not None and plan.base not in plan.drawn:
            place = self.known.index(plan.base)
            drawn[place] = _spoilt(drawn[place], rng)
        shapes = np.stack(drawn)
        if not holds(shapes).all():
            return None
        unit = (1.0, 1.0)
        distances = np.stack([signed_distance_mm(mask, unit) for mask in shapes])
        priors = self._priors(shapes, distances)
        if priors is None:
            return None
        keep = self._remembered()
        look = Appearance.of(np.stack([images[self.known[p]] for p in keep]), distances[keep])
        truth = self.masks(list(plan.wanted))
        where = [self._whereabouts(index) for index in plan.wanted]
        held = np.zeros(MOST_REFERENCES, bool)
        held[: len(keep)] = True
        apart = np.full((WANTED, MOST_REFERENCES), 1e3, np.float32)
        for column, position in enumerate(keep):
            apart[:, column] = [abs(index - self.known[position]) * self._slice_px for index in plan.wanted]
        return Episode(
            references=_padded(look.planes(*self._thrice(images, [self.known[p] for p in keep]))),
            shapes=_padded(shape_planes(distances[keep])),
            held=held,
            slices=look.planes(*self._thrice(images, list(plan.wanted))),
            priors_px=priors,
            scalars=np.stack([w.scalars(prior) for w, prior in zip(where, priors, strict=True)]),
            apart_px=apart,
            truth=truth,
            one_sided=plan.base is not None,
        )

    @property
    def _slice_px(self) -> float:
        return self._slice_mm / self.pixel_mm

    def _thrice(self, images: dict[int, np.ndarray], indices: list[int]) -> tuple[np.ndarray, ...]:
        return tuple(np.stack([images[index + step] for index in indices]) for step in (-1, 0, 1))

    def _remembered(self) -> list[int]:
        """Positions of the references nearest to the wanted slices."""
        middle = float(np.mean(self.plan.wanted))
        order = sorted(range(len(self.known)), key=lambda p: abs(self.known[p] - middle))
        return sorted(order[:MOST_REFERENCES])

    def _priors(self, shapes: np.ndarray, distances: np.ndarray) -> np.ndarray | None:
        plan = self.plan
        if plan.base is not None:
            distance = clipped(distances[self.known.index(plan.base)])
            return np.repeat(distance[None], WANTED, axis=0)
        stack = Stack(np.array(self.known), shapes, (self.pixel_mm, self.pixel_mm), self._slice_mm)
        variants: tuple[Variant, ...] = (PARTS, PARTS, WHOLE, STILL)
        fitted = FittedVariant(variants[self.rng.integers(4)], stack)
        levels = {index: clipped(fitted.level(index) / self.pixel_mm) for index in set(plan.wanted)}
        return np.stack([levels[index] for index in plan.wanted])

    def _whereabouts(self, index: int) -> Whereabouts:
        plan = self.plan
        drawn_px = min(abs(index - d) for d in plan.drawn) * self._slice_px
        if plan.base is not None:
            steps = abs(index - plan.base)
            return Whereabouts(steps, steps * self._slice_px, None, drawn_px)
        below = index - max(d for d in plan.drawn if d < index)
        above = min(d for d in plan.drawn if d > index) - index
        near, far = sorted((below, above))
        return Whereabouts(near, near * self._slice_px, far * self._slice_px, drawn_px)


def _sampled(planes: np.ndarray, where: np.ndarray, step: float, outside: float | None) -> np.ndarray:
    """Planes, shape (n, rows, columns), at places, shape (r, c, 2), linear, averaged where they are finer."""
    low = np.floor(where.min(axis=(0, 1))).astype(int) - 2
    high = np.ceil(where.max(axis=(0, 1))).astype(int) + 3
    (r0, c0), (r1, c1) = np.maximum(low, 0), np.minimum(high, planes.shape[1:])
    planes = planes[:, min(r0, planes.shape[1] - 1) : max(r1, 1), min(c0, planes.shape[2] - 1) : max(c1, 1)]
    if step > 1.25:
        planes = ndimage.gaussian_filter(planes, (0, 0.35 * step, 0.35 * step), mode="nearest", truncate=2.5)
    where = where - (min(r0, where.shape[0] * 10**6), min(c0, where.shape[1] * 10**6))
    beyond = ((where < 0) | (where > np.array(planes.shape[1:]) - 1)).any(axis=-1)
    where = np.clip(where, 0, np.array(planes.shape[1:]) - 1)
    base = np.minimum(where.astype(np.intp), np.maximum(np.array(planes.shape[1:]) - 2, 0))
    part = (where - base).astype(np.float32)
    rows, columns = base[..., 0], base[..., 1]
    rows1, columns1 = np.minimum(rows + 1, planes.shape[1] - 1), np.minimum(columns + 1, planes.shape[2] - 1)
    a, b = part[..., 0], part[..., 1]
    upper = planes[:, rows, columns] * (1 - b) + planes[:, rows, columns1] * b
    lower = planes[:, rows1, columns] * (1 - b) + planes[:, rows1, columns1] * b
    result = upper * (1 - a) + lower * a
    if outside is not None:
        result[:, beyond] = outside
    return result


def _nearest(planes: np.ndarray, where: np.ndarray) -> np.ndarray:
    place = np.clip(np.rint(where).astype(np.intp), 0, np.array(planes.shape[1:]) - 1)
    return planes[:, place[..., 0], place[..., 1]]


def _slopped(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask as a hurried user draws it: an outline off by up to a pixel or so, in half of the cases."""
    return mask if rng.random() < 0.5 else _wobbled(mask, rng.uniform(0.2, 0.8), 0.0, rng)


def _spoilt(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask as the network itself may have answered it: wobbled, grown or shrunk."""
    return _wobbled(mask, rng.uniform(0.5, 2.0), rng.normal(0, 0.8), rng)


def _wobbled(mask: np.ndarray, by_px: float, grown_px: float, rng: np.random.Generator) -> np.ndarray:
    noise = ndimage.zoom(rng.standard_normal((8, 8)), SIDE_PX / 8, order=1)
    return np.asarray(signed_distance_mm(mask, (1.0, 1.0)) + grown_px + by_px * noise >= 0)


def _padded(planes: np.ndarray) -> np.ndarray:
    missing = MOST_REFERENCES - len(planes)
    return np.concatenate((planes, np.zeros((missing, *planes.shape[1:]), np.float32)))
