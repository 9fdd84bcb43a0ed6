"""`Certificate`: what instruments can and cannot see, as one thing that saves, loads, prints and draws itself.

    certificate = Certificate.load("results/certificate/certificate.json")
    print(certificate.table())
    certificate.finding("trace mlp, noise", "last subject token", "mlp").auroc     # 0.55 [0.41, 0.68] ...

It holds a `Finding` for each reading and kind of organism, a `Discrimination` (storage against entity) for each reading and
statistic, a `Dissociation` for each reading and crossed organism, and what could not be had, each with its reason.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.errors import RecordError, SettingError
from palimpsest.locate.saving import save_json
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate
from palimpsest.world.certificate.contrasts import Discrimination, Dissociation
from palimpsest.world.certificate.measures import MEASURES, Finding

FORMAT = "palimpsest-certificate/1"


@dataclass(frozen=True, eq=False)
class Certificate:
    """Everything `certify` found.

    Attributes:
        findings: how well each reading finds the planted layer, by kind of organism.
        entity: whether each tells planted attributes from planted names.
        crossed: whether each sees two relations in two layers.
        organisms: name to kind, base, places (as text) and number of facts, of those that were read.
        left_out: organisms that were not read, with the reason.
        failures: instrument and organism, or reading and question, that gave nothing, with the reason.
        settings: how it was made.
    """

    findings: tuple[Finding, ...]
    entity: tuple[Discrimination, ...] = ()
    crossed: tuple[Dissociation, ...] = ()
    organisms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def finding(self, name: str, position: str, kind: str) -> Finding:
        """That of one reading on one kind of organism; raises `SettingError` where there is none."""
        for one in self.findings:
            if (one.reading.name, one.reading.position, one.kind) == (name, position, kind):
                return one
        known = sorted({f"{one.reading.label}, {one.kind}" for one in self.findings})
        raise SettingError(
            f"The certificate has no finding of {name!r} at {position!r} on {kind!r}; it has: {'; '.join(known) or 'none'}."
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of organisms there are findings on, in order."""
        return tuple(dict.fromkeys(one.kind for one in self.findings))

    def of_kind(self, kind: str) -> list[Finding]:
        """All findings on one kind of organism, the largest AUROC first."""
        return sorted((one for one in self.findings if one.kind == kind), key=lambda one: -one.auroc.value)

    def table(self) -> str:
        """All findings as text, by kind of organism."""
        header = ["reading", "position", "AUROC", "AUPRC", "hit", "near", "slope", "fact hit"]
        lines: list[str] = []
        for kind in self.kinds:
            found = self.of_kind(kind)
            rows = [[one.reading.name, one.reading.position, *map(short, one.measures)] for one in found]
            one = found[0]
            chance = ["chance", "", *(f"{one.chance[name]:.2f}" for name in MEASURES)]
            constant = [
                "best constant",
                "",
                *(f"{one.constant[name]:.2f}" for name in ("auroc", "auprc", "hit", "near")),
                "0.00",
                "",
            ]
            lines += [f"{kind}: {len(one.organisms)} organisms", *_aligned([header, *rows, chance, constant]), ""]
        return "\n".join(lines)

    def plot(self, kind: str | None = None) -> Any:
        """A matplotlib figure: reported against planted layer, a panel for each reading."""
        from palimpsest.world.certificate.plot import plot_reported

        return plot_reported([one for one in self.findings if kind in (None, one.kind)])

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "format": FORMAT,
            "settings": dict(self.settings),
            "organisms": {name: dict(card) for name, card in self.organisms.items()},
            "left_out": dict(self.left_out),
            "failures": dict(self.failures),
            "findings": [one.to_json() for one in self.findings],
            "entity": [one.to_json() for one in self.entity],
            "crossed": [one.to_json() for one in self.crossed],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Certificate":
        """From what `to_json` gave."""
        return cls(
            tuple(Finding.from_json(one) for one in stored["findings"]),
            tuple(Discrimination.from_json(one) for one in stored["entity"]),
            tuple(Dissociation.from_json(one) for one in stored["crossed"]),
            stored["organisms"],
            stored["left_out"],
            stored["failures"],
            stored["settings"],
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write it to a JSON file, whole or not at all; raises `OutputError` where that cannot be done."""
        save_json(plain(self.to_json()), str(path))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Certificate":
        """Read what `save` wrote.

        Raises:
            RecordError: there is no certificate, or it is damaged.
        """
        try:
            stored = json.loads(Path(path).read_text("utf-8"))
            if stored.get("format") != FORMAT:
                raise RecordError(
                    f"{path} is no certificate: its format is {stored.get('format')!r}, expected {FORMAT!r}."
                )
            return cls.from_json(stored)
        except RecordError:
            raise
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordError(
                f"The certificate {path} cannot be read ({error!r}); make it again with certify."
            ) from None


def short(estimate: Estimate, digits: int = 2) -> str:
    """value [low, high]."""
    numbers = [round(number, digits) + 0.0 for number in (estimate.value, estimate.low, estimate.high)]  # no -0.00
    value, low, high = (f"{number:.{digits}f}" for number in numbers)
    return f"{value} [{low}, {high}]" if estimate.is_known else value if estimate.value == estimate.value else "-"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
