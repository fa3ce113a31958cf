"""What becomes of a sample that fails while a model trains: a picture that was deleted or damaged after the data job read it.

Rule: the next sample by number that can be read takes its place, in a circle over the same part of the data set. That
depends on the sample alone, so that every rank, number of ranks and resumed run trains on the same. A clip has no substitute:
one that cannot be read any more ends the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from models.training.data import DataError, Samples

if TYPE_CHECKING:
    from models.training.collate import Collated, Collator

MOST_SHARE = 0.01
"""More replaced samples than this share of all that a training draws end it: the data are not what they were ..."""
ALWAYS_ALLOWED = 8
"""... but so few never do."""
MOST_TRIES = 64
"""Samples in a row that may fail."""
FAILURES = (ValueError, KeyError, OSError)
"""What a sample's row or picture raises when it cannot be read. KeyError: its features are not in the store."""


def allowed(drawn: int) -> int:
    """How many of so many samples may be replaced."""
    return max(ALWAYS_ALLOWED, int(MOST_SHARE * drawn))


def too_many(replaced: int, drawn: int, last: str) -> DataError:
    return DataError(
        f"{replaced} samples could not be read and were replaced, more than {allowed(drawn)} of the {drawn} that are drawn; the last: {last}; "
        "see whether the picture folder is still there and whole, then retry the job"
    )


def no_substitute(sample: str, why: str) -> DataError:
    return DataError(f"sample {sample}: {why}; a clip has no substitute: mend the file, or take the record out")


class Substituting:
    """A collator of sample numbers, with substitutes for those that fail."""

    def __init__(self, collator: Collator, samples: Samples, numbers: range) -> None:
        """numbers: the part of the data set that substitutes come from."""
        self.collator, self.samples, self.numbers = collator, samples, numbers

    def __call__(self, wanted: Sequence[int]) -> Collated:
        """Raises DataError when `MOST_TRIES` samples in a row cannot be read."""
        try:
            return self.collator([self.samples[number] for number in wanted])
        except FAILURES:
            chosen = [self._readable(number) for number in wanted]
        found = self.collator([self.samples[number] for number, _ in chosen])
        names = [
            {"id": self.samples.name(number), "by": self.samples.name(taken), "why": why}
            for number, (taken, why) in zip(wanted, chosen, strict=True)
            if why
        ]
        return replace(found, replaced=names)

    def _readable(self, number: int) -> tuple[int, str]:
        """(the number itself or the next that can be read, why not itself)"""
        first, count = self.numbers.start, len(self.numbers)
        why = ""
        for step in range(min(count, MOST_TRIES)):
            tried = first + (number - first + step) % count
            try:
                self.collator([self.samples[tried]])
            except FAILURES as error:
                why = why or str(error)
                if self._is_clip(tried):
                    raise no_substitute(self.samples.name(tried), why) from None
            else:
                return tried, why
        raise DataError(
            f"sample {self.samples.name(number)} and the {min(count, MOST_TRIES) - 1} after it cannot be read ({why}); "
            "see whether the picture folder is still there, then retry the job"
        )

    def _is_clip(self, number: int) -> bool:
        try:
            return bool(self.samples[number].spans)
        except FAILURES:
            return False
