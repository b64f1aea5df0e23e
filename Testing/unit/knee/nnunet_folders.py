"""Trains tiny nnU-Nets on synthetic knees and leaves them as nnU-Net does, in the layout of the published model.

Run as a program, because nnU-Net takes its folders from the environment: ``python nnunet_folders.py FOLDER``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

DATASET = "Dataset500_KneeMRI"
PLANS = "nnUNetResEncUNetMPlans"
PATCH = (16, 48, 40)


def make_model(folder: Path) -> Path:
    """Train in a process of its own; the folder that then holds ``models/Dataset500_KneeMRI/...``."""
    environment = {**os.environ, "nnUNet_results": str(folder / "models"), "nnUNet_compile": "f"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, str(Path(__file__)), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def configuration_folder(root: Path, configuration: str) -> Path:
    return root / "models" / DATASET / f"nnUNetTrainer__{PLANS}__{configuration}"


def plans() -> dict[str, Any]:
    """As nnU-Net's planner writes them, for a network of two stages."""
    from synthetic_knees import SHAPE_KJI, SPACING_KJI_MM

    def resampling(name: str, order: int, is_seg: bool) -> dict[str, Any]:
        kwargs = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        return {f"resampling_fn_{name}": "resample_data_or_seg_to_shape", f"resampling_fn_{name}_kwargs": kwargs}

    def configuration(spacing: list[float]) -> dict[str, Any]:
        return {
            "preprocessor_name": "DefaultPreprocessor", "batch_size": 1, "patch_size": list(PATCH),
            "median_image_size_in_voxels": list(SHAPE_KJI), "spacing": spacing,
            "normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False], "batch_dice": False,
            **resampling("data", 3, False), **resampling("seg", 1, True), **resampling("probabilities", 1, False),
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
                "arch_kwargs": {
                    "n_stages": 2, "features_per_stage": [4, 8], "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]], "n_blocks_per_stage": [1, 1],
                    "n_conv_per_stage_decoder": [1], "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }  # fmt: skip

    full = {**configuration(list(SPACING_KJI_MM)), "data_identifier": f"{PLANS}_3d_fullres"}
    low = {**configuration([1.3, 0.9, 0.9]), "data_identifier": f"{PLANS}_3d_lowres"}
    low["next_stage"] = "3d_cascade_fullres"
    return {
        "dataset_name": DATASET, "plans_name": PLANS, "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": list(SPACING_KJI_MM),
        "original_median_shape_after_transp": list(SHAPE_KJI),
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "nnUNetPlannerResEncM", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {
            "max": 500.0, "mean": 150.0, "median": 100.0, "min": 0.0, "percentile_00_5": 0.0,
            "percentile_99_5": 450.0, "std": 100.0,
        }},
        "configurations": {
            "3d_fullres": full, "3d_lowres": low,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }  # fmt: skip


def dataset() -> dict[str, Any]:
    from synthetic_knees import NATIVE_NAMES

    return {"channel_names": {"0": "MR"}, "labels": NATIVE_NAMES, "numTraining": 3, "file_ending": ".nii.gz"}


def main(folder: Path) -> None:
    for configuration, fold, steps in (("3d_fullres", 1, 50), ("3d_lowres", 1, 15), ("3d_cascade_fullres", 1, 15)):
        _train(configuration, fold, steps)
    stale = {"model_info": {"fold": 1}, "configuration": "3d_lowres"}
    (configuration_folder(folder, "3d_fullres") / "model_config.json").write_text(json.dumps(stale), encoding="utf-8")


def _train(configuration: str, fold: int, steps: int) -> None:
    """Some steps with nnU-Net's preprocessing, network, loss, optimizer and checkpoint."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from synthetic_knees import SPACING_KJI_MM, synthetic_image, synthetic_labels

    torch.manual_seed(0)
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    trainer = nnUNetTrainer(
        {**plans(), "continue_training": False}, configuration, fold, dataset(), device=torch.device("cpu")
    )
    manager, plan = trainer.configuration_manager, trainer.plans_manager
    trainer.num_input_channels = determine_num_input_channels(plan, manager, dataset())
    trainer.network = trainer.build_network_architecture(
        plan, manager, trainer.num_input_channels, trainer.label_manager.num_segmentation_heads,
        enable_deep_supervision=False,
    )  # fmt: skip
    trainer.enable_deep_supervision = False
    trainer.optimizer = torch.optim.Adam(trainer.network.parameters(), lr=1e-2)  # gets there in few steps
    trainer.loss = trainer._build_loss()
    trainer.inference_allowed_mirroring_axes = (0, 1, 2)
    cases = []
    for seed, shift in enumerate(((0, 0, 0), (1, 2, -1))):
        labels = synthetic_labels(shift)
        properties = {"spacing": list(SPACING_KJI_MM)}
        preprocessor = manager.preprocessor_class(verbose=False)
        case = preprocessor.run_case_npy(
            synthetic_image(labels, seed)[None], labels[None].astype(np.int16), properties, plan, manager, dataset()
        )
        cases.append(case[:2])
    for _ in range(steps):
        batch = [_patch(*cases[random.integers(len(cases))], random) for _ in range(manager.batch_size)]
        images, targets = (np.stack(part) for part in zip(*batch, strict=True))
        data = torch.from_numpy(images).float()
        if trainer.is_cascaded:
            previous = targets[:, 0].copy()
            previous[random.random(previous.shape) < 0.1] = 0
            one_hot = np.stack([previous == label for label in range(1, 10)], axis=1)
            data = torch.cat([data, torch.from_numpy(one_hot).float()], dim=1)
        trainer.optimizer.zero_grad()
        loss = trainer.loss(trainer.network(data), torch.from_numpy(targets).float())
        loss.backward()
        trainer.optimizer.step()
    trainer.logger.log("train_losses", loss.item(), 0)
    trainer._best_ema = np.float64(0.5)
    output = Path(trainer.output_folder)
    (output.parent / "plans.json").write_text(json.dumps(plans()), encoding="utf-8")
    (output.parent / "dataset.json").write_text(json.dumps(dataset()), encoding="utf-8")
    trainer.save_checkpoint(str(output / "checkpoint_best.pth"))
    print(configuration, "loss", loss.item())


def _patch(image: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    padded = [max(size - have, 0) for size, have in zip(PATCH, image.shape[1:], strict=True)]
    edges = [(0, 0), *((0, n) for n in padded)]
    image, labels = np.pad(image, edges), np.pad(labels, edges)
    corner = [int(random.integers(have - size + 1)) for size, have in zip(PATCH, image.shape[1:], strict=True)]
    box = (slice(None), *(slice(low, low + size) for low, size in zip(corner, PATCH, strict=True)))
    return image[box], np.maximum(labels[box], 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
