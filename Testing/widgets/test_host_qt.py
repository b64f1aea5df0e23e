"""The host's ``qt`` behaves as PythonQt's: properties, signals, refusals."""

from __future__ import annotations

from typing import Any

import pytest

from host.host_errors import WindowOpened


@pytest.fixture
def qt(host: Any) -> Any:
    import qt

    return qt


def test_properties_are_attributes_that_can_be_read_and_set(qt: Any) -> None:
    button, box, combo = qt.QPushButton("Go"), qt.QSpinBox(), qt.QComboBox()
    combo.addItems(["a", "b"])
    button.enabled = False
    button.toolTip = "why"
    box.maximum = 500
    box.value = 300
    combo.currentIndex = 1
    assert (button.text, button.enabled, button.toolTip) == ("Go", False, "why")
    assert (box.value, combo.currentText, combo.count) == (300, "b", 2)


def test_a_property_that_a_subclass_defines_anew_is_still_an_attribute(qt: Any) -> None:
    assert qt.QPushButton("x").sizeHint.width() > 0
    assert qt.QLabel("x").text == "x"


def test_visible_follows_show_and_hide(qt: Any) -> None:
    label = qt.QLabel("x")
    assert not label.visible
    label.visible = True
    assert label.isVisible()


def test_setters_and_other_methods_stay_callable(qt: Any) -> None:
    button = qt.QPushButton()
    button.setText("Go")
    button.setEnabled(False)
    assert button.text == "Go" and not button.isEnabled()


def test_a_static_method_of_a_propertys_name_works_on_the_class(host: Any, qt: Any) -> None:
    """``singleShot`` is a property of a timer and a static method of its class."""
    shots: list[int] = []
    qt.QTimer.singleShot(0, lambda: shots.append(1))
    host.wait_until(lambda: bool(shots))
    timer = qt.QTimer()
    timer.singleShot = True
    assert timer.singleShot


def test_name_is_short_for_object_name(qt: Any) -> None:
    widget = qt.QWidget()
    widget.name = "panel"
    assert widget.objectName == "panel" and widget.name == "panel"


def test_attributes_that_a_widget_does_not_have_are_found(qt: Any) -> None:
    from host.pythonqt import unknown_attributes

    panel = qt.QWidget()
    button = qt.QPushButton("x", panel)
    button.enabled = False
    assert unknown_attributes(panel) == []
    button.enabld = False
    assert unknown_attributes(panel) == ["QPushButton '' has no property 'enabld'"]


def test_a_widget_class_of_the_module_may_have_attributes_of_its_own(qt: Any) -> None:
    class Strip(qt.QWidget):
        pass

    strip = Strip()
    strip.values = [1, 2]
    assert strip.values == [1, 2]


def test_a_painted_widget_of_the_module_gets_its_events_and_size(host: Any, qt: Any) -> None:
    painted = []

    class Strip(qt.QWidget):
        def paintEvent(self, event: Any) -> None:
            painted.append(event)

        def sizeHint(self) -> Any:
            return qt.QSize(300, 20)

    strip = Strip()
    strip.show()
    host.wait_until(lambda: bool(painted))
    assert strip.width == 300


def test_signals_connect_by_attribute_and_by_signature(qt: Any) -> None:
    box = qt.QSpinBox()
    by_attribute: list[int] = []
    by_signature: list[int] = []
    box.valueChanged.connect(by_attribute.append)
    box.connect("valueChanged(int)", by_signature.append)
    box.value = 7
    assert by_attribute == by_signature == [7]
    assert box.disconnect("valueChanged(int)", by_signature.append)
    box.value = 8
    assert (by_attribute, by_signature) == ([7, 8], [7])


def test_a_slot_gets_no_more_arguments_than_it_takes(qt: Any) -> None:
    button = qt.QPushButton()
    calls: list[Any] = []
    button.connect("clicked(bool)", lambda: calls.append("none"))
    button.connect("clicked(bool)", calls.append)
    button.connect("clicked()", lambda *values: calls.append(values))
    button.click()
    assert calls == ["none", False, ()]


def test_connecting_an_unknown_signal_is_an_error(qt: Any) -> None:
    with pytest.raises(AttributeError, match="clickd"):
        qt.QPushButton().connect("clickd()", print)


@pytest.mark.parametrize("name", ["Signal", "Slot", "Property", "QNothing"])
def test_qt_lacks_what_pythonqt_lacks(qt: Any, name: str) -> None:
    assert not hasattr(qt, name)


def test_modal_windows_are_refused_instead_of_waiting_for_ever(qt: Any) -> None:
    with pytest.raises(WindowOpened):
        qt.QFileDialog.getOpenFileName(None, "Open")
    with pytest.raises(WindowOpened):
        qt.QMessageBox.question(None, "Sure?", "Sure?")
    with pytest.raises(WindowOpened):
        qt.QDialog().exec()


def test_many_calls_do_not_wear_out_the_interpreter(qt: Any) -> None:
    """Before Python 3.12, PySide6's void methods drop references to None; the host makes up for it."""
    widget = qt.QWidget()
    for _ in range(20_000):
        widget.setEnabled(True)


def test_errors_in_slots_are_collected(host: Any, qt: Any) -> None:
    button = qt.QPushButton()
    button.clicked.connect(lambda: 1 / 0)
    button.click()
    assert len(host.errors) == 1 and "ZeroDivisionError" in host.errors.pop()


def test_settings_start_empty_and_do_not_touch_the_users_own(qt: Any) -> None:
    assert qt.QSettings().allKeys() == []
    assert "medai-settings-" in qt.QSettings().fileName()
