"""The dock widget: buttons from the table of commands, what is at hand, where to go, live prediction.

It holds no state of its own but what is being typed; all else it reads from the `Proofreader` after each change.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from emlib.proofread.live import bundled_models
from emlib.proofread.window import guide, neurites
from emlib.proofread.window.commands import COMMANDS, run
from emlib.proofread.window.predicting import Predicting
from emlib.proofread.window.proofreader import Proofreader

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

COLUMNS = 3
ON = ("hide_others", "only_this_section")  # buttons that stay down
KEYS = {"Control": "Ctrl", "Delete": "Del", "Escape": "Esc"}


class Dock:
    """The widget and what it shows.

    Parameters
    ----------
    proofreader : Proofreader

    Attributes
    ----------
    widget : QWidget
    buttons : dict of QPushButton by the name of the command
    """

    def __init__(self, proofreader: Proofreader) -> None:
        from qtpy.QtCore import Qt
        from qtpy.QtWidgets import QLabel, QScrollArea, QVBoxLayout, QWidget

        self.proofreader, self.predicting = proofreader, Predicting(proofreader)
        self.buttons: dict[str, Any] = {}
        self.said, self.neurite, self.synapse, self.pair = QLabel(), QLabel(), QLabel(), QLabel()
        for label in (self.said, self.neurite, self.synapse, self.pair):
            label.setWordWrap(True)
        self.said.setTextFormat(Qt.TextFormat.PlainText)
        self.said.setMinimumHeight(54)
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(5)
        column.addWidget(self.said)
        column.addWidget(self._at_hand())
        for group in dict.fromkeys(command.group for command in COMMANDS.values()):
            column.addWidget(self._group(group))
        column.addWidget(self._live())
        column.addStretch(1)
        area = QScrollArea()
        area.setWidget(inner)
        area.setWidgetResizable(True)
        area.setMinimumWidth(350)
        self.widget: QWidget = area
        proofreader.watchers.append(self.show)
        self.widget.destroyed.connect(partial(_forget, proofreader, self.show))
        self.show()

    def show(self) -> None:
        """Show what is so now."""
        proofreader = self.proofreader
        message = proofreader.said
        self.said.setText(message.text)
        self.said.setStyleSheet("color: #ff8a70; font-weight: bold" if message.refused else "")
        neurite = proofreader.neurite
        words = "no neurite at hand: click on one"
        if neurite:
            words = f"neurite <b>{neurite}</b>, {proofreader.session.boxes.voxels(neurite)} voxels"
        self.neurite.setText(words)
        for edit, text in zip((self.name, self.note), proofreader.about(neurite), strict=True):
            if not edit.hasFocus():
                edit.setText(text)
            edit.setEnabled(bool(neurite))
        self.synapse.setText(self._synapse_words())
        names = [f"<span style='color:{colour}'>■</span> {neurite}" for neurite, colour in self._colours()]
        self.pair.setText("put forward: " + "&nbsp; ".join(names) if names else "")
        self.pair.setVisible(bool(names))
        for name, down in zip(ON, (proofreader.hide_others, proofreader.flat), strict=True):
            self.buttons[name].setChecked(down)
        self.buttons["undo"].setEnabled(proofreader.session.can_undo)
        self.buttons["redo"].setEnabled(proofreader.session.can_redo)
        for spin, number in ((self.go_z, proofreader.layers.section), (self.go_id, neurite)):
            spin.blockSignals(True)
            spin.setValue(number)
            spin.blockSignals(False)
        self.predict.setEnabled(not self.predicting.busy)

    def _synapse_words(self) -> str:
        synapse = self.proofreader.synapse
        if synapse is None:
            return "no synapse at hand"
        table = self.proofreader.session.synapses()
        row = table[table["synapse"] == synapse].iloc[0]
        partners = f"{row['new_pre_id']} → {row['new_post_id']}"
        return f"synapse {partners}, score {row['score']:.2f}, <b>{row['decision']}</b>"

    def _colours(self) -> list[tuple[int, str]]:
        from emlib.proofread.window.layers import FIRST, SECOND

        hexes = ["#" + "".join(f"{round(255 * part):02x}" for part in colour[:3]) for colour in (FIRST, SECOND)]
        return list(zip(self.proofreader.shown, hexes, strict=False))

    def _at_hand(self) -> QWidget:
        from qtpy.QtWidgets import QFormLayout, QGroupBox, QLineEdit

        box = QGroupBox("At hand")
        form = QFormLayout(box)
        form.setContentsMargins(6, 4, 6, 4)
        self.name, self.note = QLineEdit(), QLineEdit()
        for edit in (self.name, self.note):
            edit.returnPressed.connect(self._describe)
        form.addRow(self.neurite)
        form.addRow("name", self.name)
        form.addRow("note", self.note)
        form.addRow(self.synapse)
        form.addRow(self.pair)
        return box

    def _describe(self) -> None:
        name, note = self.name.text(), self.note.text()
        self.name.clearFocus()
        self.note.clearFocus()
        self.proofreader.attempt(lambda: neurites.describe(self.proofreader, name, note))

    def _group(self, group: str) -> QWidget:
        from qtpy.QtCore import Qt
        from qtpy.QtWidgets import QGridLayout, QGroupBox, QPushButton

        box = QGroupBox(group)
        grid = QGridLayout(box)
        grid.setContentsMargins(6, 4, 6, 4)
        grid.setSpacing(3)
        names = [name for name, command in COMMANDS.items() if command.group == group]
        for place, name in enumerate(names):
            command = COMMANDS[name]
            button = QPushButton(f"{command.label}  {shown_key(command.key)}")
            button.setToolTip(command.help)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys stay with the picture
            button.setCheckable(name in ON)
            button.clicked.connect(partial(self._pressed, name))
            grid.addWidget(button, place // COLUMNS, place % COLUMNS)
            self.buttons[name] = button
        if group == COMMANDS["next_suspect"].group:
            grid.addLayout(self._go_to(), grid.rowCount(), 0, 1, COLUMNS)
        return box

    def _pressed(self, name: str, *_: object) -> None:
        run(self.proofreader, name)
        self.show()  # also where it was refused: a button that stays down must not lie

    def _go_to(self) -> Any:
        from qtpy.QtWidgets import QHBoxLayout, QLabel, QSpinBox

        row = QHBoxLayout()
        self.go_z, self.go_id = QSpinBox(), QSpinBox()
        self.go_z.setMaximum(self.proofreader.session.labels.shape[0] - 1)
        self.go_id.setMaximum(2**31 - 1)
        for words, spin, go in (
            ("section", self.go_z, guide.go_to_section),
            ("neurite", self.go_id, neurites.go_to_neurite),
        ):
            spin.setKeyboardTracking(False)
            spin.valueChanged.connect(partial(self._go, go))
            row.addWidget(QLabel(words))
            row.addWidget(spin, 1)
        return row

    def _go(self, go: Any, number: int) -> None:
        self.proofreader.attempt(lambda: go(self.proofreader, number))

    def _live(self) -> QWidget:
        from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QGroupBox, QLabel, QPushButton, QSpinBox

        box = QGroupBox("Live prediction")
        grid = QGridLayout(box)
        grid.setContentsMargins(6, 4, 6, 4)
        self.model, self.in_view, self.sections = QComboBox(), QCheckBox("only what is in view"), QSpinBox()
        self.model.setEditable(True)
        self.model.addItems(bundled_models())
        self.model.setToolTip("the name of a bundled model, or the path of a checkpoint")
        self.model.setMinimumContentsLength(12)
        self.sections.setRange(1, 1000)
        browse, self.predict = QPushButton("…"), QPushButton("predict")
        browse.setMaximumWidth(28)
        browse.clicked.connect(self._browse)
        self.predict.clicked.connect(self._predict)
        grid.addWidget(self.model, 0, 0, 1, 3)
        grid.addWidget(browse, 0, 3)
        grid.addWidget(self.in_view, 1, 0)
        grid.addWidget(QLabel("sections"), 1, 1)
        grid.addWidget(self.sections, 1, 2)
        grid.addWidget(self.predict, 1, 3)
        return box

    def _browse(self) -> None:
        from qtpy.QtWidgets import QFileDialog

        chosen, _ = QFileDialog.getOpenFileName(self.widget, "Checkpoint", "", "models (*.pth *.onnx)")
        if chosen:
            self.model.setEditText(chosen)

    def _predict(self) -> None:
        model, in_view, sections = self.model.currentText(), self.in_view.isChecked(), self.sections.value()
        self.proofreader.attempt(lambda: self.predicting.start(model, in_view, sections))


def shown_key(key: str) -> str:
    """Return a key as it stands on a button.

    Examples
    --------
    >>> shown_key("Control-Shift-Z"), shown_key(".")
    ('Ctrl+Shift+Z', '.')
    """
    return "+".join(KEYS.get(part, part) for part in key.split("-"))


def _forget(proofreader: Proofreader, watcher: Any, *_: object) -> None:
    if watcher in proofreader.watchers:
        proofreader.watchers.remove(watcher)
