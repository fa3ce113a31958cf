"""One evaluation by several processes, which share nothing but a folder. Torch-free.

Every process prepares a part of the questions and tells the others, makes the same batches of all of them, and answers some
of these, so each answer is the one that a single process would give, whatever the number of processes (where batches are refilled: in
fp32). Batches with pictures in common go to one process. Rank 0 hears the others' answers, and it alone lets lmms-eval score them.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.evaluation.engine import Answer

AHEAD = 4
"""HR-Bench asks four questions on a picture, in batches that follow each other."""
Key = tuple[str, int]
"""Task name, doc_id."""


class Elsewhere(Exception):
    """Raised by a rank that has told its answers: the only way out of lmms-eval's run before it scores them."""


@dataclass
class Shard:
    """The part of rank `rank` out of `ranks`. folder: fresh, seen by all ranks; None for a process alone."""

    rank: int = 0
    ranks: int = 1
    folder: Path | None = None
    _heard: dict[int, int] = field(default_factory=dict)
    """Rank → bytes that were read of what it told."""
    _exchanged: int = 0

    @property
    def alone(self) -> bool:
        return self.ranks == 1 or self.folder is None

    def mine(self, parts: list[Any]) -> list[Any]:
        """This rank's of all ranks' parts."""
        return parts[self.rank :: self.ranks]

    def balanced(self, batches: Sequence[Any], pictures: Sequence[AbstractSet[str]], tokens: Sequence[int]) -> list[Any]:
        """This rank's of all ranks' batches: each goes to the rank that has a picture of it, unless that one is ahead by AHEAD
        such batches, or else to the one with the fewest tokens. pictures, tokens: of each batch."""
        loads, owner, mine = [0] * self.ranks, {}, []
        for batch, shown, size in zip(batches, pictures, tokens, strict=True):
            rank = next((owner[one] for one in sorted(shown) if one in owner), None)
            if rank is None or loads[rank] - min(loads) > AHEAD * size:
                rank = loads.index(min(loads))
            owner |= dict.fromkeys(shown - owner.keys(), rank)
            loads[rank] += size
            if rank == self.rank:
                mine.append(batch)
        return mine

    def exchange(self, own: Any, wait: Callable[[], None]) -> list[Any]:
        """What each rank hands over here, this one `own`, in the order of ranks. wait: called while some are missing; it may
        raise. Every rank has to come here equally often."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = [self.folder / f"part{self._exchanged}-rank{rank}" for rank in range(self.ranks)]
        self._exchanged += 1
        new = files[self.rank].with_suffix(".new")
        new.write_bytes(pickle.dumps(own))
        new.replace(files[self.rank])
        while not all(file.exists() for file in files):
            wait()
        return [pickle.loads(file.read_bytes()) for file in files]

    def tell(self, answers: Mapping[Key, Answer]) -> None:
        """Let rank 0 know."""
        if self.rank and self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file(self.rank).open("a") as file:
                file.write(lines_of(answers))

    def hear(self) -> dict[Key, Answer]:
        """What was told since the last time; only rank 0 listens."""
        found: dict[Key, Answer] = {}
        for other in range(1, self.ranks) if not self.rank and self.folder is not None else ():
            try:
                with self._file(other).open("rb") as file:
                    file.seek(self._heard.get(other, 0))
                    whole = file.read().rpartition(b"\n")
            except FileNotFoundError:
                continue
            told = whole[0] + whole[1]  # a line without its end is still being written
            self._heard[other] = self._heard.get(other, 0) + len(told)
            found |= answers_in(told.decode())
        return found

    def stop(self) -> None:
        """This rank stops, so all do: each would miss its part."""
        if not self.alone:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "stopped").touch()

    def stopped(self) -> bool:
        """Whether some rank has stopped."""
        return not self.alone and (self.folder / "stopped").exists()

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.jsonl"


def lines_of(answers: Mapping[Key, Answer]) -> str:
    """One JSON object a line: the key's and the answer's fields."""
    rows: Iterable[dict[str, Any]] = (
        {"task": task, "doc_id": doc, **asdict(answer)} for (task, doc), answer in answers.items()
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def answers_in(lines: str) -> dict[Key, Answer]:
    """What `lines_of` wrote."""
    from models.evaluation.engine import Answer
    from models.evaluation.likelihood import AnswerLetters

    rows = [json.loads(line) for line in lines.split("\n") if line]
    return {
        (row.pop("task"), row.pop("doc_id")): Answer(**row | {"letters": AnswerLetters.read(row.get("letters"))}) for row in rows
    }
