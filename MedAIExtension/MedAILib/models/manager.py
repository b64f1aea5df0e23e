"""All models of this machine, in one class: what there is, get it, where it lies, check it, pass it on.

>>> from MedAILib.models.manager import Manager
>>> manager = Manager()
>>> [status.model_id for _, status in manager.models("knee")]        # doctest: +SKIP
>>> folder = manager.get("knee-nnunet-fullres", accept_licence=True)  # doctest: +SKIP
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from MedAILib.atomic import output_error
from MedAILib.errors import InputError, InvalidWeights, ModelNotInstalled, OutputError
from MedAILib.models.bundle import Packed, install_bundle, is_bundle, write_bundle
from MedAILib.models.card import model_card
from MedAILib.models.catalogue import Catalogue, shipped_catalogues, user_catalogues
from MedAILib.models.config import FileRole
from MedAILib.models.embedded import embedded_record, embedded_status
from MedAILib.models.entries import ModelEntry
from MedAILib.models.home import default_home, shared_homes
from MedAILib.models.install import Installer, Watch
from MedAILib.models.intake import Imported, Intake
from MedAILib.models.licences import Acceptance, licence_text
from MedAILib.models.network import Network
from MedAILib.models.states import State, Status
from MedAILib.models.store import InstallRecord, Leftover, OnProgress, Store, tree_bytes

logger = logging.getLogger(__name__)


def _nothing(stage: str, done: int, total: int | None) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class DiskUse:
    """Bytes in the user's store: per model, in total, and free on that disk."""

    models: dict[str, int]
    total: int
    free: int


class Manager:
    """The models of this machine.

    Parameters
    ----------
    home : path, optional
        The user's store. Default: ``MEDAI_HOME``, else the operating system's folder for a user's data.
    shared : sequence of path, optional
        Stores that are searched first and never written. Default: ``MEDAI_SHARED_HOME``.
    catalogue : Catalogue, optional
        Default: what the features ship, then what users added to the stores.
    network : Network, optional
        Proxies, certificates, hub address; default: as the system says.

    Notes
    -----
    ``on_progress`` is called with what is being done, bytes done and bytes in total (None: not known);
    ``is_cancelled`` is asked several times a second. All methods may block; `models` and `state` read no
    weights and take milliseconds.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        *,
        shared: Sequence[str | os.PathLike[str]] | None = None,
        catalogue: Catalogue | None = None,
        network: Network | None = None,
    ) -> None:
        self.home = Path(home).expanduser().absolute() if home is not None else default_home()
        places = shared_homes() if shared is None else tuple(Path(path).absolute() for path in shared)
        self._store = Store(self.home)
        self._shared = tuple(Store(p, memory=self.home, is_shared=True) for p in places if p != self.home)
        self._installer = Installer(self._store, network)
        self._given_catalogue = catalogue
        self.catalogue = self._read_catalogue()

    def _read_catalogue(self) -> Catalogue:
        if self._given_catalogue is not None:
            return self._given_catalogue
        users = [path for store in (*self._shared, self._store) for path in user_catalogues(store.home)]
        return Catalogue([*shipped_catalogues(), *users])

    # Looking

    def models(self, text: str = "", *, feature: str = "") -> tuple[tuple[ModelEntry, Status], ...]:
        """Models whose texts hold every word, with their states."""
        return tuple((entry, self.state(entry.id)) for entry in self.catalogue.search(text, feature=feature))

    def state(self, model_id: str) -> Status:
        """The state of a model; `InputError` where no catalogue knows it."""
        return self._find(model_id)[0]

    def card(self, model_id: str) -> str:
        """The model card, Markdown."""
        return model_card(self.catalogue.entry(model_id), self.state(model_id))

    def record(self, model_id: str) -> InstallRecord | None:
        """What was installed: files, hashes, date, source; None where nothing is."""
        status, store = self._find(model_id)
        return store.record(model_id) if store is not None and status.is_usable else None

    def path(self, model_id: str) -> Path:
        """The folder of a model that can be used.

        Raises
        ------
        ModelNotInstalled
            With the command that gets it.
        InvalidWeights
            It is there and not right. A file that was only touched is hashed and then used.
        """
        return self._checked_path(model_id, Watch())

    def _checked_path(self, model_id: str, watch: Watch) -> Path:
        status, store = self._find(model_id)
        if status.state is State.INVALID and store is not None and store.record(model_id) is not None:
            status = self.verify(model_id, on_progress=watch.on_progress, is_cancelled=watch.is_cancelled)
        if status.is_usable and status.folder is not None:
            return status.folder
        if status.state is State.INVALID:
            raise InvalidWeights(f"The model '{model_id}' cannot be used.", why=status.why)
        raise self._not_installed(model_id, status)

    def weights(self, model_id: str) -> Path:
        """The weight file of a model that has one; errors as in `path`, `InputError` where it has several."""
        folder = self.path(model_id)
        entry = self.catalogue.entry(model_id)
        files = [file for file in entry.files if file.role is FileRole.WEIGHTS]
        if len(files) != 1:
            raise InputError(f"'{model_id}' has {len(files)} weight files.", todo=f"They are in '{folder}'.")
        if entry.is_embedded:
            return self.catalogue.embedded_path(entry, files[0])
        return folder / files[0].path

    def disk_use(self) -> DiskUse:
        """What the user's store takes."""
        models = {model_id: tree_bytes(self._store.folder(model_id)) for model_id in self._store.ids()}
        place = next(folder for folder in (self.home, *self.home.parents) if folder.exists())
        return DiskUse(models, tree_bytes(self.home), shutil.disk_usage(place).free)

    # Licences

    def licence(self, model_id: str) -> str:
        """What has to be shown before the licence is accepted."""
        return licence_text(self.catalogue.entry(model_id))

    def needs_acceptance(self, model_id: str) -> bool:
        """Whether the licence must be accepted and was not yet."""
        entry = self.catalogue.entry(model_id)
        return entry.licence.must_be_accepted and self._installer.licences.accepted(entry) is None

    def accept_licence(self, model_id: str) -> Acceptance:
        """Write down that the user of this account accepts the licence."""
        return self._installer.licences.accept(self.catalogue.entry(model_id))

    # Getting and giving

    def get(
        self,
        model_id: str,
        *,
        accept_licence: bool = False,
        token: str | None = None,
        on_progress: OnProgress = _nothing,
        is_cancelled: Callable[[], bool] = _never,
    ) -> Path:
        """The folder of a model, downloaded where it is not here yet. What arrived of a broken try is used.

        Parameters
        ----------
        model_id : str
        accept_licence : bool
            The user has read `licence` and accepts.
        token : str, optional
            For a hub that asks for one; default: ``HF_TOKEN`` or what ``hf auth login`` stored.
        on_progress, is_cancelled : callable

        Raises
        ------
        LicenceNotAccepted, DownloadFailed, InvalidWeights, OutputError, Cancelled
        """
        entry = self.catalogue.entry(model_id)
        watch = Watch(on_progress, is_cancelled)
        try:
            return self._checked_path(model_id, watch)
        except (ModelNotInstalled, InvalidWeights) as error:
            if entry.is_embedded:
                raise
            logger.info("%s is fetched: %s", model_id, error.what)
        if accept_licence and entry.licence.must_be_accepted:
            self.accept_licence(model_id)
        self._installer.licences.require(entry)
        with self._installer.alone(entry, watch):
            if not self.state(model_id).is_usable:  # another process may just have finished
                self._installer.download(entry, token=token, watch=watch)
        return self.path(model_id)

    def import_(
        self,
        path: str | os.PathLike[str],
        *,
        as_model: str = "",
        accept_licences: Iterable[str] = (),
        on_progress: OnProgress = _nothing,
        is_cancelled: Callable[[], bool] = _never,
    ) -> Imported:
        """Install from a file, a folder, an archive or a bundle. Files are recognised by their hashes.

        Parameters
        ----------
        path : path
        as_model : str
            Take it for this model, where its catalogue entry knows no hash.
        accept_licences : iterable of str
            Ids of models whose licences the user has read and accepts.

        Raises
        ------
        InputError
            Nothing in it is known; says what can be done.
        LicenceNotAccepted, InvalidWeights, OutputError, Cancelled
        """
        source, watch = Path(path), Watch(on_progress, is_cancelled)
        if is_bundle(source):
            return self._import_bundle(source, as_model, set(accept_licences), watch)
        for model_id in accept_licences:
            self.accept_licence(model_id)
        found = Intake(self._installer, self.catalogue).take(source, as_model=as_model, watch=watch)
        if not found.installed:
            raise _nothing_known(source, found)
        return found

    def _import_bundle(self, path: Path, as_model: str, accepted: set[str], watch: Watch) -> Imported:
        from MedAILib.models.archives import open_zip
        from MedAILib.models.bundle import read_bundle

        with open_zip(path) as archive:
            packed = {entry.id: entry for entry, _ in read_bundle(archive, path).models}
        for model_id in accepted & set(packed):
            known = model_id in self.catalogue
            self._installer.licences.accept(self.catalogue.entry(model_id) if known else packed[model_id])
        chosen = (as_model,) if as_model else ()
        installed = install_bundle(path, self._installer, self.catalogue, model_ids=chosen, watch=watch)
        self.catalogue = self._read_catalogue()
        if not installed:
            raise InputError(f"'{path}' does not hold '{as_model}'.", todo=f"It holds: {', '.join(packed)}")
        return Imported(installed)

    def export(
        self,
        model_ids: Sequence[str],
        path: str | os.PathLike[str],
        *,
        on_progress: OnProgress = _nothing,
        is_cancelled: Callable[[], bool] = _never,
    ) -> Path:
        """Pack installed models into one file for a machine without a network; `import_` takes it.

        Raises
        ------
        ModelNotInstalled, InvalidWeights, OutputError, Cancelled
        """
        if not model_ids:
            raise InputError("No model was named.", todo="Name those to export: medai models export ID... --out FILE")
        packed = [self._packed(model_id) for model_id in dict.fromkeys(model_ids)]
        write_bundle(Path(path), packed, Watch(on_progress, is_cancelled))
        return Path(path)

    def _packed(self, model_id: str) -> Packed:
        folder, entry = self.path(model_id), self.catalogue.entry(model_id)
        if entry.is_embedded:
            places = {file.path: self.catalogue.embedded_path(entry, file) for file in entry.files}
            return Packed(entry, embedded_record(entry, self.catalogue), places)
        record = self.record(model_id)
        assert record is not None
        return Packed(entry, record, {file.path: folder / file.path for file in record.files})

    # Keeping

    def verify(
        self, model_id: str, *, on_progress: OnProgress = _nothing, is_cancelled: Callable[[], bool] = _never
    ) -> Status:
        """Hash every file of a model. Files that lie there unrecorded are taken over if their hashes are known.

        Raises
        ------
        ModelNotInstalled, InvalidWeights, Cancelled
        """
        entry = self.catalogue.entry(model_id)
        status, store = self._find(model_id)
        watch = Watch(on_progress, is_cancelled)
        if entry.is_embedded:
            if status.state is not State.EMBEDDED:
                raise InvalidWeights(f"The model '{model_id}' is damaged.", why=status.why, todo="Install MedAI again.")
            return status
        record = store.record(model_id) if store is not None else None
        if store is not None and record is not None:
            store.verify(entry, record, on_progress=on_progress, is_cancelled=is_cancelled)
        elif store is not None and not store.is_shared:
            with self._installer.alone(entry, watch):
                record = self._installer.known_record(entry, watch)
        if record is None:
            raise self._not_installed(model_id, status)
        return self.state(model_id)

    def remove(self, model_id: str, *, forget_first_use: bool = False) -> int:
        """Delete a model from the user's store; the bytes freed.

        Parameters
        ----------
        forget_first_use : bool
            Also forget the hashes recorded at its first download: the next one is trusted anew.
        """
        folder = self._store.folder(model_id)
        if model_id not in self.catalogue and not folder.is_dir():
            self.catalogue.entry(model_id)  # raises, with similar names
        if forget_first_use:
            self._installer.first_uses.forget(model_id)
        if not folder.is_dir():
            status = self.state(model_id)
            if status.is_usable:
                kind = "comes with the extension" if status.state is State.EMBEDDED else "lies in a shared store"
                raise OutputError(f"'{model_id}' {kind} ('{status.folder}') and is not removed from here.")
            return 0
        return self._store.remove(model_id)

    def leftovers(self) -> tuple[Leftover, ...]:
        """What `prune` would delete, and folders of models that no catalogue knows (which it leaves)."""
        return tuple(self._store.leftovers({entry.id for entry in self.catalogue}))

    def prune(self, *, unknown: bool = False) -> tuple[Leftover, ...]:
        """Delete rests of downloads older than a week; with ``unknown`` also models that no catalogue knows.

        Returns
        -------
        tuple of Leftover
            What was deleted.
        """
        deleted = []
        for item in self.leftovers():
            is_model = item.path.parent == self._store.folder("x").parent
            if is_model and not unknown:
                continue
            try:
                shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink(missing_ok=True)
            except OSError as error:
                raise output_error(item.path, error) from error
            deleted.append(item)
        return tuple(deleted)

    def _find(self, model_id: str) -> tuple[Status, Store | None]:
        """The best of the stores: shared ones first, but an installed model before a broken one."""
        entry = self.catalogue.entry(model_id)
        if entry.is_embedded:
            return embedded_status(entry, self.catalogue), None
        found = [(store.status(entry), store) for store in (*self._shared, self._store)]
        order = {State.INSTALLED: 0, State.INVALID: 1, State.PARTIAL: 1, State.NOT_INSTALLED: 2}
        return min(found, key=lambda item: (order[item[0].state], item[1].is_shared and not item[0].is_usable))

    def _not_installed(self, model_id: str, status: Status) -> ModelNotInstalled:
        entry = self.catalogue.entry(model_id)
        accept = f" --accept-licence {model_id}" if self.needs_acceptance(model_id) else ""
        how = f"medai models get {model_id}{accept}"
        return ModelNotInstalled(
            f"The weights of '{entry.title}' are {status.state.value} on this machine.",
            why=status.why if how not in status.why else "",
            todo=f"Get them: {how} (without a network: medai models import FILE)",
        )


def _nothing_known(path: Path, found: Imported) -> InputError:
    if found.incomplete:
        model_id, missing = next(iter(found.incomplete.items()))
        lacks = f"Missing: {', '.join(missing)}." if missing else "None of its files was found."
        return InputError(f"'{path}' holds only part of '{model_id}'.", why=lacks, todo="Import the whole folder.")
    if not found.unknown:
        return InputError(f"'{path}' holds no files.", todo="Name a weight file, a folder, an archive or a bundle.")
    first = found.unknown[0]
    return InputError(
        f"No catalogue knows {'this file' if len(found.unknown) == 1 else 'any of these files'}: '{first.path.name}' "
        f"with SHA-256 {first.sha256}.",
        why=f"{first.why[0].upper()}{first.why[1:].rstrip('.')}.",
        todo=f"If you know which model it is: medai models import '{path}' --as ID. "
        f"To see what it holds and describe it as a model of its own: medai models describe '{path}' --write",
    )
