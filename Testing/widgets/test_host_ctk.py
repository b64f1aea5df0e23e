"""The host's CTK widgets."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def section(host: Any) -> Any:
    import ctk
    import qt

    section = ctk.ctkCollapsibleButton("Inputs")
    form = qt.QFormLayout(section)
    form.addRow("Volume:", qt.QLineEdit())
    section.show()
    return section


def test_a_collapsed_section_hides_its_contents_and_shrinks_to_its_header(host: Any, section: Any) -> None:
    import qt

    line = section.findChild(qt.QLineEdit)
    open_height = section.sizeHint().height()
    heard: list[bool] = []
    section.contentsCollapsed.connect(heard.append)
    assert line.visible
    section.collapsed = True
    assert not line.visible and section.sizeHint().height() < open_height and heard == [True]
    section.collapsed = False
    assert line.visible and section.sizeHint().height() == open_height


def test_what_the_module_hid_stays_hidden_when_a_section_opens(section: Any) -> None:
    import qt

    line = section.findChild(qt.QLineEdit)
    line.visible = False
    section.collapsed = True
    section.collapsed = False
    assert not line.visible


def test_contents_added_to_a_collapsed_section_stay_hidden(host: Any) -> None:
    import ctk
    import qt

    section = ctk.ctkCollapsibleButton("Advanced")
    section.collapsed = True
    qt.QVBoxLayout(section).addWidget(qt.QLabel("x", section))
    section.show()
    host.process_events()
    assert not section.findChild(qt.QLabel).visible


def test_a_slider_keeps_its_limits_and_tells_of_changes(host: Any) -> None:
    import ctk

    slider = ctk.ctkSliderWidget()
    slider.minimum, slider.maximum, slider.singleStep, slider.decimals = -1.0, 1.0, 0.01, 2
    heard: list[float] = []
    slider.valueChanged.connect(heard.append)
    slider.value = 0.25
    slider.value = 7.0
    assert heard == [0.25, 1.0] and slider.value == 1.0


def test_a_range_never_has_its_ends_crossed(host: Any) -> None:
    import ctk

    limits = ctk.ctkRangeWidget()
    heard: list[tuple[float, float]] = []
    limits.valuesChanged.connect(lambda low, high: heard.append((low, high)))
    limits.minimumValue = 20.0
    limits.maximumValue = 10.0
    assert (limits.minimumValue, limits.maximumValue) == (10.0, 10.0)
    assert heard == [(20.0, 99.0), (10.0, 10.0)]


def test_an_unknown_ctk_widget_is_an_error(host: Any) -> None:
    import ctk

    with pytest.raises(AttributeError):
        ctk.ctkNothing()
