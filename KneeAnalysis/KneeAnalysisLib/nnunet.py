"""nnU-Net v2 in the process of the worker: its preprocessing and network, our own sliding window.

nnU-Net's predictor starts threads, prints, and loads checkpoints as pickles that may run code. Here the
checkpoint is inspected and read with ``weights_only``, tiles run in this thread (`KneeAnalysisLib.tiles`) and
the classes are resampled one by one, so that the probabilities never lie in memory at full size.

nnunetv2 is imported when a model is loaded.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from KneeAnalysisLib.batches import Batches, Footing
from KneeAnalysisLib.nnunetfolder import NnUnetFolder, find_model, labels_of
from KneeAnalysisLib.segmentation import EngineOptions, UsedFile
from KneeAnalysisLib.watch import Watch
from MedAILib.errors import ConfigMismatch, InvalidWeights, MissingPackage
from MedAILib.models.store import hash_file
from MedAILib.models.torchmodel import import_torch, read_torch
from MedAILib.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

FULLRES = "3d_fullres"
CASCADE = "3d_cascade_fullres"


class NnUnet:
    """A trained nnU-Net, of one stage or of a cascade.

    Parameters
    ----------
    places : sequence of Path
        Folders below which the model lies.
    configuration : str
        `FULLRES` or `CASCADE`; of the latter the stage before it is found beside it.
    options : EngineOptions
        Folds and checkpoint.

    Raises
    ------
    FileMissing, InputError, UnreadableFile, InvalidWeights, ConfigMismatch, MissingPackage
    """

    def __init__(self, places: Sequence[Path], configuration: str, options: EngineOptions) -> None:
        self._stages: list[_Stage] = []
        wanted: str | None = configuration
        while wanted is not None:
            folder = find_model(places, wanted, folds=options.folds, checkpoint=options.checkpoint)
            self._stages.insert(0, _Stage(folder))
            wanted = self._stages[0].previous
            if wanted in [stage.folder.configuration for stage in self._stages]:
                raise ConfigMismatch(f"The stages of the cascade in '{folder.path}' form a ring.")
        last = self._stages[-1].folder
        self.scheme = labels_of(last.dataset)
        self.weights = tuple(used for stage in self._stages for used in stage.weights)
        self.notes: tuple[str, ...] = ()
        if self.scheme.name != "dataset.json":
            self.notes = (
                "The names of the labels in dataset.json were not all understood: their values were taken as the"
                " native scheme of the knee networks.",
            )

    def predict(self, volume: Volume, options: EngineOptions, watch: Watch, device: str) -> tuple[np.ndarray, str]:
        """Label a volume in canonical orientation.

        Returns
        -------
        labels : ndarray, shape (k, j, i), uint8
            In the model's own scheme.
        device : str
            Where it ended up running.
        """
        labels: np.ndarray | None = None
        share = 1 / len(self._stages)
        for number, stage in enumerate(self._stages):
            part = watch.part(share * number, share * (number + 1))
            labels, device = stage.predict(volume, labels, options, part, device)
        assert labels is not None
        return labels, device


class _Stage:
    """One network with its plans."""

    def __init__(self, folder: NnUnetFolder) -> None:
        _import_nnunet()
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.folder = folder
        self.weights = tuple(UsedFile(path, hash_file(path)) for path in folder.checkpoints)
        checkpoints = [_read_checkpoint(path) for path in folder.checkpoints]
        with _quiet(), _plans_of(folder):
            self._plans = PlansManager(dict(folder.plans))
            self._configuration = self._plans.get_configuration(folder.configuration)
            self._labels = self._plans.get_label_manager(dict(folder.dataset))
            self._check()
            self._network = _build_network(self, checkpoints[0]["trainer_name"])
        self._mirror_axes = tuple(checkpoints[0].get("inference_allowed_mirroring_axes") or ())
        self._parameters = [
            _fitting(path, checkpoint["network_weights"], self._network)
            for path, checkpoint in zip(folder.checkpoints, checkpoints, strict=True)
        ]
        self._network.load_state_dict(self._parameters[0])
        self._network.eval()

    @property
    def previous(self) -> str | None:
        """The configuration whose labels this one takes in."""
        name = self._configuration.previous_stage_name
        return None if name is None else str(name)

    def _check(self) -> None:
        channels = self.folder.dataset.get("channel_names") or self.folder.dataset.get("modality") or {}
        problem = ""
        if len(self._configuration.patch_size) != 3:
            problem = f"its tiles have {len(self._configuration.patch_size)} dimensions; three are needed"
        elif self._labels.has_regions:
            problem = "it predicts overlapping regions instead of labels"
        elif len(channels) != 1:
            problem = f"it takes {len(channels)} images as input; one is given"
        if problem:
            raise InvalidWeights(
                f"The nnU-Net model '{self.folder.path}' cannot be used here.", why=f"{problem.capitalize()}."
            )

    def predict(
        self, volume: Volume, previous: np.ndarray | None, options: EngineOptions, watch: Watch, device: str
    ) -> tuple[np.ndarray, str]:
        name = self.folder.configuration.removeprefix("3d_").replace("_", " ")
        watch.progress("Preparing the image", 0.0)
        image, properties = self._prepared(volume, previous)
        batches = Batches(
            Footing(device, options.batch_size or 1, gathers_on_device=not device.startswith("cpu")),
            cpu_fallback=options.cpu_fallback,
            warn=watch.context.warn,
        )
        logits = self._averaged(image, options, batches, watch.part(0.05, 0.85), f"Segmenting ({name})")
        labels = self._most_likely(logits, properties, watch.part(0.85, 1.0))
        return labels, batches.footing.device

    def _prepared(self, volume: Volume, previous: np.ndarray | None) -> tuple[Tensor, dict[str, Any]]:
        """Cropped, normalised and resampled by nnU-Net; with the labels of the stage before as further channels."""
        torch = import_torch()
        image = np.asarray(volume.array, dtype=np.float32)[None]
        properties: dict[str, Any] = {"spacing": list(volume.geometry.spacing_kji_mm)}
        labels = None if previous is None else previous.astype(np.int16)[None]
        with _quiet():
            preprocessor = self._configuration.preprocessor_class(verbose=False)
            data, labels, properties = preprocessor.run_case_npy(
                image, labels, properties, self._plans, self._configuration, dict(self.folder.dataset)
            )
        if previous is not None:
            one_hot = [(labels[0] == label).astype(data.dtype) for label in self._labels.foreground_labels]
            data = np.stack([*data, *one_hot])
        return torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32)), properties

    def _averaged(self, image: Tensor, options: EngineOptions, batches: Batches, watch: Watch, stage: str) -> Tensor:
        """Logits, the mean over the folds."""
        from KneeAnalysisLib.tiles import slid

        total: Tensor | None = None
        count = len(self._parameters)
        for number, parameters in enumerate(self._parameters):
            self._network.load_state_dict(parameters)
            found = slid(
                self._network,
                image,
                self._configuration.patch_size,
                self._labels.num_segmentation_heads,
                step=options.tile_step,
                mirror_axes=self._mirror_axes if options.mirroring else (),
                batches=batches,
                watch=watch.part(number / count, (number + 1) / count),
                stage=stage if count == 1 else f"{stage}, fold {number + 1} of {count}",
            )
            total = found if total is None else total.add_(found)
        assert total is not None
        return total.div_(count) if count > 1 else total

    def _most_likely(self, logits: Tensor, properties: Mapping[str, Any], watch: Watch) -> np.ndarray:
        """The label of the highest logit, on the grid of the image; one class after the other."""
        forward, backward = self._plans.transpose_forward, self._plans.transpose_backward
        shape = properties["shape_after_cropping_and_before_resampling"]
        spacing = [properties["spacing"][axis] for axis in forward]
        best: np.ndarray | None = None
        labels = np.zeros(tuple(shape), dtype=np.uint8)
        for number in range(len(logits)):
            watch.progress("Bringing the labels to the image's grid", number / len(logits))
            found = self._configuration.resampling_fn_probabilities(
                logits[number : number + 1], shape, self._configuration.spacing, spacing
            )
            values = np.asarray(found)[0]
            if best is None:
                best = np.array(values)
                continue
            higher = values > best
            labels[higher] = number
            np.copyto(best, values, where=higher)
        box = tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"])
        whole = np.zeros(properties["shape_before_cropping"], dtype=np.uint8)
        whole[box] = np.asarray(self._labels.all_labels, dtype=np.uint8)[labels]
        return np.ascontiguousarray(whole.transpose(backward))

    def network_arguments(self) -> tuple[Any, Any, int, int]:
        """Plans, configuration, channels in and channels out, as nnU-Net's trainers take them."""
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        channels = determine_num_input_channels(self._plans, self._configuration, dict(self.folder.dataset))
        return self._plans, self._configuration, channels, self._labels.num_segmentation_heads


def _build_network(stage: _Stage, trainer_name: str) -> Any:
    """The network as the trainer class of that name builds it: its signature changed with nnU-Net 2.8."""
    from nnunetv2.utilities import find_objects

    plans, configuration, channels_in, channels_out = stage.network_arguments()
    trainer = find_objects.recursive_find_trainer_class_by_name(trainer_name)
    build = trainer.build_network_architecture
    if "plans_manager" in inspect.signature(build).parameters:
        return build(plans, configuration, channels_in, channels_out, enable_deep_supervision=False)
    return build(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        channels_in,
        channels_out,
        enable_deep_supervision=False,
    )


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of nnU-Net, read without running anything in it, without its optimizer."""
    content = read_torch(path)
    if not isinstance(content, dict) or not isinstance(content.get("network_weights"), dict):
        raise InvalidWeights(
            f"'{path}' is no checkpoint of nnU-Net.",
            why="It holds no 'network_weights'.",
            todo="Name the results folder of a training, or get the model again.",
        )
    content.pop("optimizer_state", None)
    content.setdefault("trainer_name", "nnUNetTrainer")
    return content


def _fitting(path: Path, weights: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """The weights under the network's names; every one must be there and fit."""
    state = {name.removeprefix("module.").removeprefix("_orig_mod."): tensor for name, tensor in weights.items()}
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    strange = [name for name in state if name not in wanted]
    if missing or strange:
        raise ConfigMismatch(
            f"'{path}' does not belong to the plans beside it.",
            why=f"Only the plans have '{missing[0]}'." if missing else f"Only the checkpoint has '{strange[0]}'.",
            todo="Get the model again: plans.json and checkpoint are of different models.",
        )
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise ConfigMismatch(
                f"'{path}' does not belong to the plans beside it.",
                why=f"'{name}' has the shape {tuple(state[name].shape)}; the plans say {tuple(tensor.shape)}.",
                todo="Get the model again: plans.json and checkpoint are of different models.",
            )
    return state


def _import_nnunet() -> None:
    import_torch()
    try:
        with _quiet():
            import nnunetv2.inference.predict_from_raw_data  # noqa: F401  slow to load: here, not within a stage
    except ImportError as error:
        raise MissingPackage(
            "nnU-Net models need the package nnunetv2, which cannot be imported.",
            why=f"{error}.",
            todo="Install it into the Python that runs the job, PyTorch first: pip install nnunetv2",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Text that nnU-Net prints goes to the log."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            logger.debug("nnU-Net: %s", line)


@contextlib.contextmanager
def _plans_of(folder: NnUnetFolder) -> Iterator[None]:
    """Whatever nnU-Net raises over plans it does not understand becomes one error."""
    try:
        yield
    except (AttributeError, AssertionError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigMismatch(
            f"nnU-Net cannot build the network of '{folder.path}'.",
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}.",
            todo="Its plans need another version of nnunetv2, or a trainer class that is not installed.",
        ) from error
