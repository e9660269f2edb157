"""What the Model page says about a model."""

from __future__ import annotations

from PySide6.QtCore import QObject

from tunedesk.core.describe import ModelInfo, TaskKind
from tunedesk.gui import words


class ModelWords(QObject):
    """Facts in words, made from a description."""

    def rows(self, model: ModelInfo | None) -> list[tuple[str, str]]:
        """Names and values; the names stay while nothing is known."""
        names = [
            self.tr("Family"),
            self.tr("Size"),
            self.tr("Context length"),
            self.tr("Licence"),
            self.tr("Chat template"),
            self.tr("Can be tuned for"),
            self.tr("Vocabulary"),
            self.tr("Architecture"),
            self.tr("Lies in"),
        ]
        values = self._values(model) if model else [""] * len(names)
        return list(zip(names, values, strict=True))

    def _values(self, model: ModelInfo) -> list[str]:
        family = self.tr("%1, %2 layers").replace("%1", model.family).replace("%2", words.count(model.layers))
        size = self.tr("%1 weights, %2 on disk (%3)")
        size = size.replace("%1", words.large(model.parameters)).replace("%2", words.file_size(model.weight_bytes))
        context = self.tr("%1 tokens").replace("%1", words.count(model.context_length or 0))
        template = self.tr("None, it only goes on with text")
        if model.has_chat_template:
            template = self.tr("Yes, it knows turns of a conversation")
        elif model.kind == "encoder":
            template = self.tr("Not needed, it answers with a label")
        elif model.kind == "seq2seq":
            template = self.tr("Not needed, it reads one text and writes another")
        return [
            family,
            size.replace("%3", model.dtype),
            context if model.context_length else self.tr("Not stated"),
            model.licence or self.tr("Not stated; ask its maker before you share the result"),
            template,
            self.tasks(model),
            self.tr("%1 tokens").replace("%1", words.count(model.vocabulary)),
            model.architecture,
            model.path or self.tr("Not on this computer yet"),
        ]

    def tasks(self, model: ModelInfo) -> str:
        """What the model can learn to do, as it begins a sentence."""
        names: dict[TaskKind, str] = {
            "chat": self.tr("conversations"),
            "completion": self.tr("going on with a text"),
            "classification": self.tr("labels for texts"),
            "seq2seq": self.tr("turning one text into another"),
            "preference": self.tr("preferring better answers"),
        }
        text = words.listed([names[task] for task in model.tasks])
        return text[:1].upper() + text[1:] if text else self.tr("Nothing that TuneDesk does yet")

    def task_note(self, model: ModelInfo | None, task: TaskKind) -> str:
        """What this model will learn as things stand, and where that is chosen."""
        if model is None or task not in model.tasks:
            return words.DASH
        if model.kind == "encoder":
            return self.tr(
                "It is an encoder: it reads a text and gives it labels or a number. So the task is now classification, "
                "and the data is texts with labels."
            )
        if model.kind == "seq2seq":
            return self.tr("It reads one text and writes another, so the data is pairs of texts.")
        notes: dict[TaskKind, str] = {
            "chat": self.tr("It will learn to answer in conversations."),
            "completion": self.tr("It will learn to go on with plain text."),
            "classification": self.tr("It will learn to give texts labels or a number, by a new output layer."),
            "preference": self.tr("It will learn to prefer better answers."),
        }
        more = self.tr("What it should learn is chosen on the Data page.") if len(model.tasks) > 1 else ""
        return f"{notes[task]} {more}".strip()
