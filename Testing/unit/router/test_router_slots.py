"""What is in the router's thirteen slots, and how files come into them."""

from __future__ import annotations

from pathlib import Path

import pytest
from router_models import class_count, dense, input_layer, write_model
from router_models import keras_file as write_keras_file

from MedAILib.errors import FileMissing, InputError, InvalidWeights, ModelNotInstalled
from MedAILib.models.config import CONFIG_FILE
from MedMNISTRouterLib.datasets import DATASETS, FLAGS
from MedMNISTRouterLib.request import ROUTER, ModelChoice
from MedMNISTRouterLib.slots import SLOTS, SlotKind, Slots, keras_file, trained_folder

NOT_USERS = (SlotKind.MISSING, SlotKind.EMBEDDED)


def write(folder: Path, *slots: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for slot in slots:
        write_keras_file(folder / keras_file(slot), input_layer(), dense(slot, class_count(slot)))
    return folder


def test_there_are_thirteen_slots_in_the_published_order() -> None:
    assert (ROUTER, *sorted(item.flag for item in DATASETS)) == SLOTS
    assert keras_file(ROUTER) == "stage1_final.keras"
    assert keras_file("octmnist") == "stage2_octmnist_final.keras"


def test_an_empty_store_has_no_models_of_the_user(tmp_path: Path) -> None:
    states = Slots(tmp_path / "new").all()
    assert [state.slot for state in states] == list(SLOTS)
    assert all(state.kind in NOT_USERS for state in states)
    missing = next(state for state in states if state.slot == "retinamnist")
    with pytest.raises(ModelNotInstalled, match=r"stage2_retinamnist_final\.keras.*medai models import"):
        missing.require()
    assert not (tmp_path / "new").exists(), "looking makes nothing"


def test_files_in_a_plain_folder_are_used_where_they_lie(tmp_path: Path) -> None:
    folder = write(tmp_path / "Meine Modelle", ROUTER, "octmnist")
    slots = Slots(folder)

    assert slots.find(ROUTER).require() == folder / "stage1_final.keras"
    assert slots.find("octmnist").kind is SlotKind.KERAS
    assert slots.find("bloodmnist").kind in NOT_USERS


def test_files_are_imported_through_the_weights_manager(tmp_path: Path) -> None:
    source = write(tmp_path / "usb", ROUTER, "octmnist", "chestmnist")
    slots = Slots(tmp_path / "store")

    assert slots.import_models(source) == (ROUTER, "chestmnist", "octmnist")
    for slot in (ROUTER, "chestmnist", "octmnist"):
        state = slots.find(slot)
        assert state.kind is SlotKind.KERAS
        assert state.model_id == f"medmnist-{slot}-keras"
        assert state.require().read_bytes() == (source / keras_file(slot)).read_bytes()


def test_a_single_file_is_imported_by_its_name(tmp_path: Path) -> None:
    source = write(tmp_path / "usb", "octmnist") / "stage2_octmnist_final.keras"
    assert Slots(tmp_path / "store").import_models(source) == ("octmnist",)
    with pytest.raises(InputError, match="none of the names"):
        Slots(tmp_path / "store").import_models(source.rename(tmp_path / "mine.keras"))


def test_a_file_that_does_not_fit_its_slot_is_not_imported_nor_any_beside_it(tmp_path: Path) -> None:
    source = write(tmp_path / "usb", "octmnist")
    write_keras_file(source / keras_file("pathmnist"), input_layer(), dense("x", 4))
    slots = Slots(tmp_path / "store")

    with pytest.raises(InvalidWeights, match="answers 4 numbers, but PathMNIST has 9 classes"):
        slots.import_models(source)
    assert slots.find("octmnist").kind in NOT_USERS


def test_an_imported_file_that_was_changed_since_is_not_used(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "store")
    slots.import_models(write(tmp_path / "usb", "octmnist"))
    path = slots.find("octmnist").require()
    path.write_bytes(path.read_bytes() + b"more")

    state = Slots(tmp_path / "store").find("octmnist")
    assert state.kind is SlotKind.INVALID
    with pytest.raises(InvalidWeights, match="octmnist"):
        state.require()


def test_nothing_to_import_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the router's models"):
        Slots(tmp_path / "store").import_models(tmp_path)
    with pytest.raises(FileMissing):
        Slots(tmp_path / "store").import_models(tmp_path / "nowhere")


def test_a_model_that_was_trained_here_counts_before_one_that_comes_with_the_extension(tmp_path: Path) -> None:
    folder = trained_folder(tmp_path, "pneumoniamnist")
    write_model(folder, "pneumoniamnist")
    state = Slots(tmp_path).find("pneumoniamnist")

    assert (state.kind, state.require()) == (SlotKind.TRAINED, folder)


def test_a_keras_file_counts_before_a_trained_model_and_a_choice_before_both(tmp_path: Path) -> None:
    write_model(trained_folder(tmp_path, "octmnist"), "octmnist")
    write(tmp_path, "octmnist")
    assert Slots(tmp_path).find("octmnist").kind is SlotKind.KERAS

    chosen = ModelChoice("octmnist", trained_folder(tmp_path, "octmnist"))
    assert Slots(tmp_path, (chosen,)).find("octmnist").kind is SlotKind.CHOSEN


def test_a_choice_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="nowhere"):
        Slots(tmp_path, (ModelChoice("octmnist", tmp_path / "nowhere"),)).find("octmnist")
    with pytest.raises(InputError, match="no slot"):
        Slots(tmp_path, (ModelChoice("cats", tmp_path),))


def test_the_store_of_this_account_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDAI_HOME", str(tmp_path / "home"))
    assert Slots().home == tmp_path / "home"


def test_every_slot_has_a_catalogue_entry_with_its_file(tmp_path: Path) -> None:
    from MedAILib.models.catalogue import Catalogue
    from MedMNISTRouterLib.slots import CATALOGUE_FILE, keras_id

    catalogue = Catalogue([CATALOGUE_FILE])
    assert catalogue.problems == ()
    for slot in SLOTS:
        assert [file.path for file in catalogue.entry(keras_id(slot)).files] == [keras_file(slot)]


def test_models_that_come_with_the_extension_are_whole_and_say_their_slot() -> None:
    from MedMNISTRouterLib.modelfolder import read_model_folder

    found = [state for state in Slots(Path("nowhere")).all() if state.kind is SlotKind.EMBEDDED]
    for state in found:
        model = read_model_folder(state.require())
        assert model.config.architecture.parameters["slot"] == state.slot
        assert model.gate is not None
        assert (model.folder / CONFIG_FILE).is_file()
    if not found:
        pytest.skip("no model comes with this version")


def test_flags_are_all_slots() -> None:
    assert set(FLAGS) < set(SLOTS)
