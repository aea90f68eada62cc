"""The words of the command line: commands, flags and their help. Imports nothing of ours, so that
`trimtab --help` is quick.
"""

from __future__ import annotations

import argparse
from importlib import metadata

LISTS = ("models", "targets", "workloads", "techniques")


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="trimtab", description="Apply, run, measure and compare inference optimizations."
    )
    top.add_argument(
        "--version", action="version", version=f"trimtab {metadata.version('trimtab')}"
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    store = argparse.ArgumentParser(add_help=False)
    store.add_argument(
        "--store",
        default=argparse.SUPPRESS,
        help="store file or URL (default: TRIMTAB_STORE, else the user's data folder)",
    )
    top.set_defaults(store=None)

    author = argparse.ArgumentParser(add_help=False)
    author.add_argument(
        "--as",
        dest="who",
        metavar="NAME",
        help="who did it, kept with the study (default: TRIMTAB_USER, else the system's user)",
    )

    def command(
        name: str, help_: str, json: bool = False, acts: bool = False
    ) -> argparse.ArgumentParser:
        parents = [store, author] if acts else [store]
        added = commands.add_parser(name, help=help_, description=help_, parents=parents)
        if json:
            added.add_argument("--json", action="store_true", help="print one JSON document")
        return added

    serve = command("serve", "open the dashboard (the default command)")
    serve.add_argument("--port", type=int, default=8501)
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen on this address of this machine, 0.0.0.0 for all; there is no login: whoever"
        " reaches the port can read and start studies (default: this machine only)",
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer under this name too, as a proxy or the colleagues' browsers use it (repeat)",
    )
    serve.add_argument(
        "--user-header",
        metavar="NAME",
        help="the request header in which your reverse proxy says who is logged in, as"
        " X-Forwarded-User; the proxy must remove it from what browsers send"
        " (default: TRIMTAB_USER_HEADER, else all act as the user that serves)",
    )
    for name in LISTS:
        command(name, f"list the {name} that can be chosen", json=True)
    doctor = command(
        "doctor", "say what this machine is, which kernels run, what is missing", json=True
    )
    doctor.add_argument(
        "--calibrate",
        action="store_true",
        help="measure bandwidth, matrix peaks and overheads first (under a minute)",
    )
    doctor.add_argument(
        "--check-store",
        action="store_true",
        help="read the whole store and all journals, and say what is damaged or lost",
    )
    doctor.add_argument(
        "--rebuild-store",
        action="store_true",
        help="move the store's file aside and make it again from the journals",
    )

    run = command("run", "run a study and print its result", json=True, acts=True)
    _case(run, needed=True)
    command("studies", "list stored studies", json=True)
    command("show", "print a stored study", json=True).add_argument("study")
    command(
        "resume", "go on with an interrupted, paused or cancelled study", json=True, acts=True
    ).add_argument("study")
    again = command(
        "again",
        "measure a study's leading trials again, as a new study",
        json=True,
        acts=True,
    )
    again.add_argument("study")
    again.add_argument("--preset", default=None, help="default: the next more thorough one")
    command(
        "cancel", "cancel a study, also one that a running server works on", acts=True
    ).add_argument("study")

    compare = command("compare", "compare trials side by side")
    compare.add_argument("trials", nargs="+", metavar="TRIAL")
    compare.add_argument("--baseline", default=None)
    compare.add_argument("--format", choices=("table", "json", "csv", "md"), default="table")

    report = command("report", "save, list and export comparison reports")
    actions = report.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="save a comparison of a study", parents=[store, author])
    new.add_argument("study")
    new.add_argument("--title", required=True)
    new.add_argument("--note", default="")
    new.add_argument(
        "--trial", action="append", default=[], help="compare only these trials (repeat)"
    )
    actions.add_parser("list", help="list saved reports", parents=[store]).add_argument(
        "--json", action="store_true"
    )
    export = actions.add_parser("export", help="write a report to a file", parents=[store])
    export.add_argument("report")
    export.add_argument("--format", default="html", help="html, md, csv or json")
    export.add_argument("-o", "--output", required=True, metavar="FILE")

    apply = command("apply", "write the compressed model as a folder to deploy", json=True)
    apply.add_argument("--model", required=True, help="bundled id, folder or hub id")
    apply.add_argument(
        "--technique",
        action="append",
        default=[],
        metavar="NAME[:key=value,...]",
        help="repeat in the order in which they act",
    )
    apply.add_argument(
        "--format",
        default="trimtab",
        help="trimtab (holds everything), compressed-tensors, gptq, awq or gguf",
    )
    apply.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="FILE",
        help="calibrate and train on the part of your data that a study with it does not judge on"
        " (repeat)",
    )
    apply.add_argument("-o", "--output", required=True, metavar="FOLDER", help="a new folder")
    apply.add_argument("--seed", type=int, default=0)

    command("backup", "write the store to one file, also while a dashboard runs").add_argument(
        "file"
    )
    command("restore", "put a backup into an empty store").add_argument("file")
    command("export-parquet", "write every table of the store to a Parquet file").add_argument(
        "folder", help="a new or empty folder"
    )

    bundle = command(
        "bundle", "write the plan of a study to a file, to measure it elsewhere", acts=True
    )
    bundle.add_argument(
        "study", nargs="?", default="", help="a stored study; or give the options of `trimtab run`"
    )
    _case(bundle, needed=False)
    bundle.add_argument(
        "-o", "--output", required=True, metavar="FILE", help=".json, or .zip where files go along"
    )
    bundle.add_argument(
        "--no-model", action="store_true", help="leave the model's files out: they are there"
    )
    ingest = command("ingest", "take in studies measured on another machine", json=True)
    ingest.add_argument(
        "folder",
        nargs="?",
        default="",
        help="what `python -m core.measure.study` or tests/evidence/gpu/run.sh wrote, one study's"
        " folder in it, or its journals.tar.gz",
    )
    ingest.add_argument(
        "--reference", action="store_true", help="what was measured on a GPU and ships with Trimtab"
    )

    bench = command("bench", "benchmark kernels against their alternatives", json=True)
    bench.add_argument("what", choices=("kernels",))
    bench.add_argument("--op", help="only this operation, as linear_lowbit")
    bench.add_argument("--format", nargs="+", default=[], help="only these, as int4-g32 w8a8")
    bench.add_argument("--shape", nargs="+", default=[], metavar="NxK", help="as 4096x4096")
    bench.add_argument("--rows", nargs="+", default=[], metavar="M", help="rows of x, as 1 8")
    bench.add_argument(
        "--full", action="store_true", help="every shape and number of rows; takes hours"
    )
    bench.add_argument("--markdown", action="store_true", help="the summary as a table")
    return top


def _case(parser: argparse.ArgumentParser, needed: bool) -> None:
    """The options that say what is asked; `needed` when there is no other way to say it."""
    parser.add_argument("--model", required=needed, help="bundled id, folder, hub id or shape:NAME")
    parser.add_argument("--target", default="local")
    parser.add_argument(
        "--workload", default=None, help="default: chat, or sensor-frame for images"
    )
    parser.add_argument("--priority", action="append", default=[], metavar="NAME=WEIGHT")
    parser.add_argument("--limit", action="append", default=[], metavar="METRIC<=VALUE")
    parser.add_argument(
        "--margin",
        action="append",
        default=[],
        metavar="METRIC=LOSS",
        help="the loss of quality you accept, as accuracy=0.01 or nats_per_byte=1%%: each trial is"
        " then called non-inferior, inferior or undecided",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="FILE",
        help="judge quality on your own .txt, .jsonl or .npz, or on lm-eval:TASK[:LIMIT] (repeat);"
        " techniques learn from another part of it",
    )
    parser.add_argument(
        "--arrival",
        default="",
        metavar="RATE|trace:FILE",
        help="also serve requests that arrive on their own: so many per second (Poisson), or as a"
        " trace says (CSV or JSON lines: ours, Azure's or Mooncake's columns)",
    )
    parser.add_argument(
        "--technique",
        action="append",
        default=[],
        metavar="NAME[:key=value,...][+NAME...]",
        help="measure this one, or this stack, beside the unchanged model (repeat); where each is"
        " given alone they are also tried together",
    )
    parser.add_argument("--preset", default="quick")
    parser.add_argument(
        "--budget", default=None, metavar="5m", help="start no trial after this time (s, m or h)"
    )
    parser.add_argument("--seed", type=int, default=0)
