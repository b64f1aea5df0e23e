"""A list of the devices that models can run on; GPUs appear as soon as the system has told of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from slicer.i18n import tr as _

from CTReportLib.devices import CPU, DeviceRunners
from MedAILib.jobs.device import Device, probe_devices
from MedAILib.ui.machine import device_text
from MedAILib.ui.ticker import Background


class DeviceBox:
    """Fills a combo box of the panel and follows it.

    Parameters
    ----------
    box : QComboBox
    devices : DeviceRunners
        Is told what the user chose.
    changed : callable
        Called without arguments after that.
    """

    def __init__(self, box: Any, devices: DeviceRunners, changed: Callable[[], None]) -> None:
        self._box, self._devices, self._changed = box, devices, changed
        self._names: list[str] = []
        self._show(())
        box.currentIndexChanged.connect(self._chosen)
        self._search = Background(probe_devices, self._show, self._not_found)

    def close(self) -> None:
        """Follow it no more."""
        self._search.close()
        self._box.currentIndexChanged.disconnect(self._chosen)

    def _show(self, found: Sequence[Device]) -> None:
        texts = {CPU: _("processor"), **{one.id: device_text(one) for one in found if one.id != CPU}}
        self._names = list(texts)
        chosen = self._devices.device
        self._box.blockSignals(True)
        self._box.clear()
        for name, text in texts.items():
            self._box.addItem(f"{name.upper()}: {text}")
        self._box.setCurrentIndex(self._names.index(chosen) if chosen in self._names else 0)
        self._box.blockSignals(False)

    def _not_found(self, _error: Exception) -> None:
        """The processor stays; the hub says what is the matter with the others."""
        self._show(())

    def _chosen(self, _index: int = 0) -> None:
        index = self._box.currentIndex  # what the signal brings along depends on the version of Qt
        if 0 <= index < len(self._names):
            self._devices.choose(self._names[index])
            self._changed()
