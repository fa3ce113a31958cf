"""Where the pictures of Visual CoT lie: the release's folders for its twelve sources, its README's, and flat ones.

A folder is listed once; after that, looking a name up costs no call to the file system.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

PREFIX = "viscot/"
"""What the release's annotations put before every name, and its loader drops."""
PLACES: dict[str, tuple[str, ...]] = {
    "coco": ("coco", "coco/train2017"),
    "cub": ("cub/CUB_200_2011/images",),
    "docvqa": ("docvqa",),
    "dude": ("viscot/dude", "dude", "dude/DUDE_train-val-test_binaries/images/train", "dude/viscot/dude"),
    "flickr30k": ("flickr30k/flickr30k-images",),
    "gqa": ("gqa/images",),
    "infographicsvqa": ("infographicsvqa",),
    "openimages": ("openimages", *(f"openimages/train_{shard}" for shard in range(6))),
    "sroie": ("viscot/sroie", "sroie", "sroie/viscot/sroie"),
    "textcap": ("textvqa/train_images",),
    "textvqa": ("textvqa/train_images",),
    "v7w": ("visual7w/images",),
    "vsr": ("vsr/images",),
}
"""First folder of a name, or else the row's `dataset` -> where under image_folder the rest of the name is looked for, in
this order. From the release's loader; `dude/viscot/dude` and `sroie/viscot/sroie` from its README, which its loader does
not look into; `coco/train2017` is COCO's own folder."""


class NotThere(LookupError):
    """No file under any of the names that were tried; `folders` says in which folders, relative ones under image_folder."""

    def __init__(self, name: str, root: str, folders: list[str]) -> None:
        self.folders = folders
        looked = f"; looked in {', '.join(folders)} of {root}" if set(folders) - {"."} else ""
        super().__init__(posixpath.join(root, name) + looked)


class Finder:
    """Finds pictures under one image_folder."""

    def __init__(self, root: Path | str) -> None:
        self.root = os.path.abspath(root)
        self._folders: dict[tuple[str, str, bool], list[str]] = {}
        """Where pictures of a folder and data set are looked for."""
        self.listed: dict[str, dict[str, int | None] | None] = {}
        """Folder -> its files, with their size once it was asked for; None where it cannot be listed but may be entered."""

    def find(self, name: str, dataset: str = "") -> str:
        """The path of a picture: under its name as it is written, without `viscot/`, or in its source's folders
        (`PLACES`). Raises NotThere, which says where it looked."""
        folder, _, base = name.rpartition("/")
        if not base or "\0" in name:
            raise NotThere(name, self.root, [])
        key = folder, dataset, name[:1] == "/"
        if key not in self._folders:
            tried = (os.path.dirname(candidate) for candidate in candidates(name, dataset))
            self._folders[key] = list(dict.fromkeys(os.path.normpath(os.path.join(self.root, one)) for one in tried))
        for place in self._folders[key]:
            if self._has(place, base):
                return f"{place}/{base}"
        raise NotThere(name, self.root, [os.path.relpath(place, self.root) for place in self._folders[key]])

    def size(self, path: str) -> int:
        """Bytes of a file that `find` found; -1 if it is gone since, or leads nowhere."""
        folder, base = os.path.split(path)
        known = self.listed.get(folder)
        if known is not None and (size := known.get(base)) is not None:
            return size
        try:
            size = os.stat(path).st_size
        except OSError:
            size = -1
        if known is not None:
            known[base] = size
        return size

    def _has(self, folder: str, base: str) -> bool:
        if folder not in self.listed:
            self.listed[folder] = _files(folder)
        known = self.listed[folder]
        return base in known if known is not None else os.path.isfile(os.path.join(folder, base))


def candidates(name: str, dataset: str = "") -> list[str]:
    """Names under image_folder, in the order in which they are tried; of an absolute name itself alone."""
    if name.startswith("/"):
        return [name]
    bare = name.removeprefix(PREFIX)
    source, _, rest = bare.partition("/")
    places = PLACES.get(source) if rest else PLACES.get(dataset)
    return list(dict.fromkeys([name, bare, *(f"{place}/{rest or bare}" for place in places or ())]))


def _files(folder: str) -> dict[str, int | None] | None:
    try:
        with os.scandir(folder) as found:
            return {entry.name: None for entry in found if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError:
        return None
