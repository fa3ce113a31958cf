"""The reader of the authors' training format on a data set of any size: rows a CPU second, memory, against plain `json.loads`.

    python benchmarks/data_reader.py --rows 400000

Writes an annotation file like Visual CoT's (one or two images and boxes a row, one row in a thousand bad) over a few
pictures, reads it in processes of their own, and prints one line for each way.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.page import whole

PICTURES = 1000
OURS = """
import json, resource, sys, time
from pathlib import Path
from models.training.data import counted, read_samples
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
started = time.process_time()
samples = read_samples(Path(sys.argv[1]), report=Path(sys.argv[1]) / "report")
summary = samples.summary
rows = summary.samples + sum(summary.rejected.values())
rate = rows / (time.process_time() - started)
began = time.process_time()
for k in range(0, len(samples), max(1, len(samples) // 5000)):
    samples[k]
each = (time.process_time() - began) / len(range(0, len(samples), max(1, len(samples) // 5000)))
named = sum(1 for _ in open(Path(sys.argv[1]) / "report" / "rejected.jsonl"))
assert named == sum(summary.rejected.values())
print(json.dumps([rate, summary.peak_mib - base, summary.index_mib, len(samples), counted(summary.rejected), each * 1e6]))
"""
PLAIN = """
import json, resource, sys, time
from pathlib import Path
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
began = time.process_time()
rows = json.loads((Path(sys.argv[1]) / "rows.json").read_text())
print(json.dumps([len(rows) / (time.process_time() - began), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - base]))
"""


def write(folder: Path, rows: int) -> int:
    """The data set; returns the annotation file's bytes. Every 1000th row has an inverted box, the next no picture."""
    (folder / "images").mkdir()
    for k in range(PICTURES):
        (folder / "images" / f"{k:06d}.jpg").write_bytes(b"")  # the pass looks for the file, not into it
    with (folder / "rows.json").open("w") as file:
        file.write("[")
        for k in range(rows):
            count = 2 if k % 10 == 0 else 1
            box = [0.1, 0.2, 0.55, 0.6] if k % 1000 else [0.55, 0.2, 0.1, 0.6]
            name = f"{k % PICTURES:06d}.jpg" if k % 1000 != 1 else "gone.jpg"
            row = {
                "dataset": "flickr30k", "image": count * [name], "bboxes": count * [box],
                "conversations": [
                    {"from": "human", "value": "<image>\n" * count + f"What is the person number {k} in the picture holding in the left hand?\nProvide a short and direct response."},
                    {"from": "gpt", "value": "<lvr>\n" * count + "<answer> a blue umbrella with a wooden handle </answer>"},
                ],
            }  # fmt: skip
            file.write(("," if k else "") + json.dumps(row))
        file.write("]")
    meta = [{"ds_name": "made", "data_path": "rows.json", "image_folder": "images", "ds_type": "Q_A"}]
    (folder / "meta.json").write_text(json.dumps(meta))
    return (folder / "rows.json").stat().st_size


def measured(code: str, folder: Path) -> list:
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1])
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=whole(3), default=100_000, metavar="N", help="default: 100000; the first two are bad")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        size = write(folder, options.rows)
        print(f"{options.rows:,} rows, {size / 2**20:.0f} MiB, written in {time.perf_counter() - began:.0f} s")
        rate, memory, index, accepted, rejected, each = measured(OURS, folder)
        plain_rate, plain_memory = measured(PLAIN, folder)
    print(f"reader      {rate:9,.0f} rows per CPU second  {memory:7.0f} MiB more memory ({index:.1f} MiB of index), every row checked")
    print(f"json.loads  {plain_rate:9,.0f} rows per CPU second  {plain_memory:7.0f} MiB more memory, nothing checked")
    print(f"ratio       {rate / plain_rate:9.2f}                      {memory / plain_memory:7.2f}")
    print(f"accepted {accepted:,}; rejected and named: {rejected}; one sample by number: {each:.0f} µs")


if __name__ == "__main__":
    main()
