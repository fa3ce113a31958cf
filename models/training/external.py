"""A training set that exists already: looked through once, every picture decoded, indexed, and referred to in place."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from models.backbone.clips import MISSING, MOST_DRIFT, examine, is_clip
from models.backbone.pictures import Facts, Unreadable, facts_of
from models.config import ExternalTraining, TrainingSet
from models.schema import Clips
from models.training.data import DataError, Samples, Summary, counted, meta_file, read_sources
from models.training.index import sha256, write_index
from models.training.parse import REASONS, UNSTATED, Rejected, Source
from models.training.survey import Survey, survey, writing

_SHA256 = re.compile(r"[0-9a-f]{64}")
_AHEAD = 8
"""Pictures for each thread that wait to be decoded: the results of a failed one are not far behind."""
TURNED = "turned as its EXIF tag says"
UNEVEN = {
    "rate": "variable frame rate: spans are read by the mean rate",
    "stamps": "variable frame rate: frames are read by their own times",
}
"""`Clips.times` -> what is said of a clip whose frames' own times lie more than `MOST_DRIFT` from those of its rate."""
ROTATED = {
    "stored": "clip marked as rotated: seen unrotated",
    "upright": "rotated as its clip's container says",
}
"""`Clips.orientation` -> what is said of a clip whose container marks it as rotated."""
LOOKED_AT = 64
"""Pictures that are decoded before any job runs."""
NAMED = 5
"""Sources that get a line of their own in a message; a set may have hundreds."""


def manifest_digest(meta: Path) -> str:
    """sha256 over the meta file's data set names and the content of their annotation files, as 64 hex digits.

    Paths and image folders are left out: the same data in another place is the same data.
    """
    return _manifest(read_sources(meta))


def _manifest(sources: list[Source]) -> str:
    total = hashlib.sha256()
    for source in sources:
        total.update(f"{source.name}\0{source.kind}\0".encode())
        for file in source.form.files:
            total.update(bytes.fromhex(sha256(file)))
    return total.hexdigest()


@dataclass(frozen=True)
class Look:
    """A pass over the annotations and the pictures' names; no picture is decoded."""

    digest: str
    """Of the manifest, and of the name and size of every picture of a usable row: other annotations, or a picture that
    comes or goes, give another."""
    manifest: str
    summary: Summary
    lacking: str
    """What `lacking` says of it; "" where enough is usable."""
    some: tuple[str, ...]
    """Paths of pictures and clips, evenly spread over the usable rows ..."""
    films: tuple[str, ...]
    """... and which of them are clips."""
    clip: str
    """The first clip of a usable row; "" where there is none."""
    files: tuple[str, ...]
    """What the digest depends on: the meta file and annotations ..."""
    folders: tuple[str, ...]
    """... and the folders in which pictures were looked for."""


def look(spec: ExternalTraining) -> Look:
    """Raises DataError when the data are not there, cannot be read, or are not what the profile pins."""
    meta = meta_file(Path(spec.meta).expanduser().absolute())
    sources = read_sources(meta)
    manifest = _manifest(sources)
    if _SHA256.fullmatch(spec.revision) and manifest != spec.revision:
        raise DataError(
            f"{meta}: its content has sha256 {manifest}, the profile pins {spec.revision}; "
            "restore that data, or write the new digest as its revision"
        )
    with writing(None) as lines:
        found = survey(sources, lines=lines, surplus=spec.surplus_boxes)
    columns = found.columns()
    total = hashlib.sha256(manifest.encode())
    finders = list(found.finders.values())
    for path, _ in found.pictures:
        finder = next((f for f in finders if path.startswith(f.root)), finders[0])
        name = path.removeprefix(finder.root)
        total.update(f"{name}\0{finder.size(path)}\n".encode("utf-8", "surrogateescape"))
    total.update(columns.rows[:, :2].tobytes())  # which rows are usable
    step = max(1, len(columns) // LOOKED_AT)
    some = tuple(columns.pictures(k)[0][0] for k in range(0, len(columns), step))[:LOOKED_AT]
    films = tuple(path for path in some if (path, True) in found.pictures)
    clip = next((path for path, film in found.pictures if film), "")
    folders = tuple(folder for finder in finders for folder in finder.listed)
    files = (str(meta), *(str(file) for s in sources for file in s.form.files))
    summary = found.summary(columns)
    said = found.nothing(meta) if not len(columns) else lacking(meta, found, summary, spec.min_usable)
    return Look(total.hexdigest(), manifest, summary, said, some, films, clip, files, folders)


def check_pictures(paths: Sequence[str], films: Sequence[str] | None, meta: str, min_usable: float) -> None:
    """Decode a few pictures and clips. films: those that are clips; None where a look of an earlier version did not say, so their
    names do. Raises DataError when more of them than the profile allows cannot be used."""
    films = set(filter(is_clip, paths) if films is None else films)
    bad = [str(found) for path in paths if isinstance(found := _facts((path, path in films)), Unreadable)]
    if len(bad) > (1 - min_usable) * len(paths):
        things = "clips" if films.issuperset(paths) else "pictures"
        raise DataError(f"{meta}: {len(bad)} of {len(paths)} {things} looked at cannot be used; the first: {bad[0]}")


def lacking(meta: Path, found: Survey, summary: Summary, least: float) -> str:
    """One line, one for each of the `NAMED` sources that lack most: how many of their rows cannot be used, and why; and one for each of
    the most frequent reasons, with the first entry that has it. "" where the share of usable rows is at least `least`."""
    if summary.samples >= least * summary.rows:
        return ""
    share = f"{summary.samples:,} of {summary.rows:,} rows are usable ({summary.samples / summary.rows:.1%})"
    reasons = sorted(summary.rejected, key=lambda reason: -summary.rejected[reason])
    remedy = f"complete what is missing ({summary.rejected[reasons[0]]:,} {reasons[0]}), or set a lower min_usable beside this file in the profile"
    lines = [f"{meta}: {share}, min_usable asks for {least:.0%}; {remedy}"]
    named, more = worst_sources(summary.sources)
    for group in named:
        counts = summary.sources[group]
        looked = ", ".join(found.looked[group])
        where = f"; looked in {looked} of {', '.join(found.finders)}" if looked else ""
        lines.append(f"  {group}: {_said({reason: counts[reason] for reason in REASONS if counts.get(reason)}, counts['rows'])}{where}")
    return "\n".join([*lines, *([f"  {more}"] if more else []), *(f"  the first: {found.first[reason]}" for reason in reasons[:NAMED])])


def worst_sources(sources: Mapping[str, Mapping[str, int]], least: float = 1.0) -> tuple[list[str], str]:
    """Sources with a smaller share of usable rows than `least`: the `NAMED` that lack most rows, and words for the others."""
    lack = {name: counts["rows"] - counts.get("usable", 0) for name, counts in sources.items()}
    short = sorted((name for name in lack if lack[name] > (1 - least) * sources[name]["rows"]), key=lambda name: -lack[name])
    others = short[NAMED:]
    more = f"and {len(others):,} more sources, which lack {sum(lack[name] for name in others):,} rows together"
    return short[:NAMED], more if others else ""


_THINGS = {"missing image": "pictures", MISSING: "clips"}


def _said(reasons: dict[str, int], rows: int) -> str:
    """812 of 900 pictures missing, 3 of 900 rows bad box"""
    words = []
    for reason, count in reasons.items():
        what = f"{_THINGS[reason]} missing" if reason in _THINGS else f"rows {reason}"
        words.append(f"{count:,} of {rows:,} {what}")
    return ", ".join(words)


def prepare(
    out: Path,
    meta: Path,
    spec: TrainingSet,
    base: Path,
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda step, total: None,
) -> dict[str, Any]:
    """Look through a whole data set, decode each of its pictures once, and write what training reads.

    out: gets meta.json with absolute paths, the index, rejected.jsonl and mended.jsonl that name every row, and
    summary.json with the counts by reason and by source, which are returned. base: a checkpoint folder, for its tokenizer
    and image processor: a text may hold none of its tokens, and a row no more than spec.max_tokens. Raises DataError when
    fewer rows than spec.min_usable are usable.
    """
    from transformers import AutoTokenizer

    from models.backbone.images import load_image_processor
    from models.backbone.tokens import add_tokens
    from models.training.lengths import literal_tokens, over_long

    began = time.perf_counter()
    tokenizer, processor = AutoTokenizer.from_pretrained(base), load_image_processor(base, spec.images)
    add_tokens(tokenizer)
    meta = meta_file(meta)
    sources = read_sources(meta, spec.clips)
    with writing(out) as lines:
        found = survey(sources, lines=lines, surplus=spec.surplus_boxes, literals=literal_tokens(tokenizer))
        sizes = _decode(found, threads, progress, spec)
        columns = found.columns()
        columns.sizes = sizes
        if len(columns):
            samples = Samples(
                sources, columns, Summary(), orientation=spec.images.orientation, surplus=spec.surplus_boxes
            )
            long = over_long(samples, tokenizer, processor, latent_steps=None, max_tokens=spec.max_tokens)
            rows = found.kept()
            for number, tokens in long.items():
                found.drop(rows[number], Rejected("too long", f"{tokens:,} tokens, more than max_tokens {spec.max_tokens:,}"))
            columns = found.columns()
            columns.sizes = sizes
    summary = found.summary(columns)
    written = summary.counts() | {"manifest_sha256": _manifest(sources), "pictures": len(sizes)}
    (out / "summary.json").write_text(json.dumps(written, indent=1) + "\n")
    print(f"{summary.samples:,} of {summary.rows:,} rows usable; rejected: {counted(summary.rejected) or 'none'}; "
          f"mended: {counted(summary.mended) or 'none'}; {time.perf_counter() - began:.1f} s", flush=True)  # fmt: skip
    if not len(columns):
        raise DataError(found.nothing(meta))
    if said := lacking(meta, found, summary, spec.min_usable):
        raise DataError(said)
    listed = [
        {"ds_name": s.name, "data_path": str(s.annotations), "image_folder": str(s.images), "ds_type": s.kind}
        for s in sources
    ]
    (out / "meta.json").write_text(json.dumps(listed, indent=1) + "\n")
    write_index(out, columns, sources, summary, spec.surplus_boxes)
    return written


def _decode(found: Survey, threads: int, progress: Callable[[int, int], None], spec: TrainingSet) -> np.ndarray:
    """Decode every picture once; rows of those that fail are dropped. Returns [P, 3] int32: width, height, EXIF orientation."""
    turn, facts_of_each = spec.images.orientation == "upright", partial(_facts, clips=spec.clips)
    sizes = np.ones((len(found.pictures), 3), dtype=np.int32)
    failed: dict[int, Unreadable] = {}
    mends: dict[int, tuple[str, ...]] = {}
    last = time.monotonic()
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for number, facts in enumerate(_mapped(pool, facts_of_each, iter(found.pictures), _AHEAD * max(1, threads))):
            if isinstance(facts, Unreadable):
                failed[number] = facts
            else:
                sizes[number] = facts.width, facts.height, facts.tag
                if changes := facts.mends + (TURNED,) * (turn and facts.tag > 1):
                    mends[number] = changes
            if time.monotonic() - last > 5:
                last = time.monotonic()
                progress(number + 1, len(sizes))
    if failed or mends:
        for row, pictures in enumerate(found.references()):
            if (bad := next((k for k in pictures if k in failed), None)) is not None:
                found.drop(row, Rejected(failed[bad].reason, str(failed[bad])))
            elif mended := [mend for k in pictures for mend in mends.get(k, ())]:
                found.mend(row, list(dict.fromkeys(mended)))
    return sizes


def _facts(shown: tuple[str, bool], clips: Clips = UNSTATED) -> Facts | Unreadable:
    """shown: a path, and whether it is a clip's, which has no EXIF orientation: 0."""
    path, film = shown
    try:
        if film:
            facts, size = examine(path, clips)
            said = (UNEVEN[clips.times],) * (facts.drift > MOST_DRIFT) + (ROTATED[clips.orientation],) * (facts.turn != 0)
            return Facts(*size, 0, said)
        return facts_of(path)
    except Unreadable as why:
        return why


def _mapped(pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: Iterator[Any], ahead: int) -> Iterator[Any]:
    """`pool.map` that does not queue everything at once."""
    waiting = [pool.submit(function, item) for item in islice(items, ahead)]
    while waiting:
        first = waiting.pop(0)
        waiting += [pool.submit(function, item) for item in islice(items, 1)]
        yield first.result()
