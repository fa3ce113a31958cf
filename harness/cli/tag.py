"""`run.py tag [NAME KEY…]`: give jobs a name and a note, list the names, or remove one."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import datetime

from harness.cli.main import add_json, add_results
from harness.cli.stored import open_store, selected
from harness.cli.words import as_json, columns, command, listed, plural
from harness.spec.errors import SpecError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="the tag; without one, list all tags")
    parser.add_argument("keys", nargs="*", metavar="KEY", help="jobs, by the beginning of their key or by name")
    parser.add_argument("--note", default="", metavar="TEXT", help="a note about what the tag marks")
    parser.add_argument("--remove", action="store_true", help="remove the tag; its jobs stay")
    add_json(parser)
    add_results(parser)


def main(options: argparse.Namespace) -> int:
    from harness.store import tags

    store = open_store(options.results, reads=True)
    if options.json and options.name is not None:
        raise SpecError("--json: works for the list of tags only; leave out the name")
    if options.name is None:
        found = tags.tags(store.root)
        if options.json:
            print(as_json([asdict(tag) for tag in found]))
            return 0
        rows = [(t.name, plural(len(t.keys), "job"), f"{datetime.fromtimestamp(t.time):%Y-%m-%d}", t.note) for t in found]
        print(columns(rows) or f"{options.results}: no tags yet; {command('tag', 'NAME', 'KEY…', results=store.root)} makes one")
    elif options.remove:
        tags.remove(store.root, options.name)
        print(f"tag {options.name} was removed; its jobs are still there")
    elif not options.keys and not options.note:
        again, every = (command(*words, results=store.root) for words in (("tag", options.name, "KEY…"), ("status", "--all")))
        raise SpecError(f"{options.name}: no job was named; {again} ({every} lists the jobs)")
    else:
        jobs = selected(store, options.keys)
        tag = tags.write(store.root, options.name, [job.key for job in jobs], options.note)
        print(f"{tag.name}: {plural(len(tag.keys), 'job')}" + (f" ({listed([job.name for job in jobs])})" if jobs else ""))
    return 0
