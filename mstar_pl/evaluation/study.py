"""A study: recipes x seeds, as steps in their order, and what is complete of it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from mstar_pl.types import InputError

DONE, STARTED, TEST = "done.json", "started.json", "test"
_FOLDER = re.compile(r"\$\{?(?:out|run)\}?/([^/\s'\"]+)")


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a study.

    Attributes:
        name: What it is called in messages.
        folder: Where its output goes; `done.json` there says that it is complete, and what made it,
            `started.json` what began it.
        command: Arguments of `mstar-pl`.
    """

    name: str
    folder: Path
    command: tuple[str, ...]

    def is_done(self) -> bool:
        """Tell whether the step is complete.

        Raises:
            InputError: Another command completed it, or began it.
        """
        for name in (DONE, STARTED):
            file, fix = self.folder / name, "move it away, or take a new out"
            if file.is_file() and json.loads(file.read_text())["command"] != list(self.command):
                raise InputError(f"{self.folder}: was made by another command (see {name}); {fix}")
        return (self.folder / DONE).is_file()

    def needs(self, other: Step) -> bool:
        """Tell whether the step may read what another one writes: its command mentions that one's folder."""
        folder = re.compile(re.escape(str(other.folder)) + r"(?![\w.-])")
        return any(folder.search(argument) for argument in self.command)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is run.

    In each command `$out` is the study's folder, `$seed` the seed, `$run` the folder of the seed and `$dir`
    the folder of the step itself.

    Attributes:
        out: Folder of the study.
        seeds: One run of each row a seed.
        once: Commands by name that all seeds share, such as the data.
        each_seed: Commands by name that come before the rows of a seed, such as warm-up, labels and process
            reward model.
        recipe: Command of a row; `$name` is the row's name.
        rows: What is added to it, by name of the row; may be empty.
        test: Command that evaluates `$policy`, the policy of a row or of `baseline`, into `$dir`; on a prompt
            file, as the tables read it.
        baseline: The step of `each_seed` whose policy the rows start from.
        against: A row that the tables also compare the others with.
    """

    out: Path
    seeds: tuple[int, ...]
    recipe: str
    rows: Mapping[str, str]
    test: str
    once: Mapping[str, str] = field(default_factory=dict)
    each_seed: Mapping[str, str] = field(default_factory=dict)
    baseline: str = "warmup"
    against: str | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        names = [*self.once, *self.each_seed, *self.rows]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"study: {twice!r} names two steps; names must be unique")
        if self.baseline not in self.each_seed:
            raise InputError(
                f"study: baseline {self.baseline!r} is none of each_seed ({', '.join(self.each_seed)})"
            )
        if self.against is not None and self.against not in self.rows:
            raise InputError(f"study: against {self.against!r} is none of the rows ({', '.join(self.rows)})")
        if "--benchmark" in self.test:
            raise InputError("study: test: the tables read one prompt file; give --data FILE, no --benchmark")
        if not self.seeds or not self.rows:
            raise InputError("study: give at least one seed and one row")

    def steps(self, only: Collection[str] | None = None) -> Iterator[Step]:
        """Yield the steps in their order: what is shared, then seed by seed.

        Args:
            only: Names of the steps and rows that are wanted; what they need comes, too. None wants all.

        Raises:
            InputError: There is no such step or row.
        """
        commands = self._commands()
        needed = commands.keys() if only is None else self._needed(only)
        wanted = [name for name in commands if name in needed]
        for name in wanted:
            if name in self.once:
                yield self._step(name, self.out / name, commands[name])
        each = {name: commands[name] for name in wanted if name not in self.once}
        for seed in self.seeds:
            for name, command in each.items():
                folder = self.folder(name, seed)
                yield self._step(f"seed {seed}, {name}", folder, command, seed)
                if name == self.baseline or name in self.rows:
                    yield self._step(f"seed {seed}, {name}, test", folder / TEST, self.test, seed)

    def _commands(self) -> dict[str, str]:
        rows = {name: f"{self.recipe} {options}" for name, options in self.rows.items()}
        return {**self.once, **self.each_seed, **rows}

    def _needed(self, only: Collection[str]) -> set[str]:
        """Return the named steps and all whose folders their commands mention, and so on."""
        commands, needed, todo = self._commands(), set[str](), set(only)
        if unknown := todo - commands.keys():
            raise InputError(f"study: no step or row {min(unknown)!r}; known are {', '.join(commands)}")
        while todo:
            name = todo.pop()
            needed.add(name)
            text = commands[name]
            if name in self.rows or name == self.baseline:  # it is tested, and compared with the baseline
                text += f" {self.test} $run/{self.baseline}"
            todo |= (set(_FOLDER.findall(text)) & commands.keys()) - needed
        return needed

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of a step of a seed."""
        return self.out / f"seed-{seed}" / name

    def _step(self, name: str, folder: Path, command: str, seed: int | None = None) -> Step:
        names: dict[str, Any] = {"out": self.out, "dir": folder, "policy": folder.parent / "policy"}
        if seed is not None:
            names |= {"seed": seed, "run": self.out / f"seed-{seed}", "name": folder.name}
        try:
            words = shlex.split(command)  # first: a folder may have a space
            return Step(name, folder, tuple(Template(word).substitute(names) for word in words))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"study: {name}: {error} in {command!r}; known are ${', $'.join(names)}"
            ) from None
