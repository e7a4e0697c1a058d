"""`dualasr-serve`: a page and a socket that turn speech into text.

    dualasr-serve [--bundle model.dualasr|DIR] [--port 8000] [--token-file FILE]

Open http://localhost:8000 and speak, or give a recording. Programs use the WebSocket /live and
POST /transcribe; README.md of `dualasr_lib/serving` describes them, and how to put TLS in front:
browsers give the microphone to localhost and https only. Nothing that is heard is stored.
"""

import argparse
import logging
import os
from dataclasses import fields
from functools import partial
from pathlib import Path

from dualasr_lib.core.config import from_options
from dualasr_lib.core.program import run_program
from dualasr_lib.core.text import read_text
from dualasr_lib.decoding.endpoint import EndpointConfig
from dualasr_lib.programs.options import parser
from dualasr_lib.recognition.default import default_bundle
from dualasr_lib.recognition.methods import registry
from dualasr_lib.runtime.layout import is_runtime_set
from dualasr_lib.serving.limits import Limits

__all__ = ["program"]

_TOKEN = "DUALASR_TOKEN"


def program() -> None:
    """The console script."""
    run_program(_main, "serve")


def _arguments() -> argparse.Namespace:
    names = ", ".join(item.name for item in fields(Limits))
    reader = parser(__doc__)
    add = reader.add_argument
    add("--bundle", type=Path, metavar="PATH",
        help="a bundle, or a folder that dualasr-export --format runtime wrote, which needs no\n"
        "torch; default: the model that comes with the package")  # fmt: skip
    add(
        "--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1, this machine"
    )
    add("--port", type=int, default=8000, help="default: 8000; 0: any that is free")
    add("--method", choices=registry.names(lambda method: method.stream is not None),
        help="search of the first pass; default: the best that is installed")  # fmt: skip
    add("--one-pass", action="store_true", help="do not rewrite sentences at their end")
    add("--chunk-ms", type=int, help="chunk of the streaming stacks; default: the model's")
    add("--endpoint", default=[], action="append", metavar="KEY=VALUE",
        help="when a sentence ends, e.g. pause_seconds=0.6; may be repeated")  # fmt: skip
    add("--limit", default=[], action="append", metavar="KEY=VALUE",
        help=f"what clients may do; may be repeated:\n{names}")  # fmt: skip
    add("--token-file", type=Path, metavar="FILE",
        help=f"whoever comes in must know what is in it; or set {_TOKEN}")  # fmt: skip
    add("--allow-host", default=[], action="append", metavar="NAME",
        help="name of this server, as browsers call it; may be repeated")  # fmt: skip
    add("--behind-proxy", action="store_true",
        help="believe a proxy on this machine who its clients are (X-Forwarded-For)")  # fmt: skip
    return reader.parse_args()


def _main() -> None:
    arguments = _arguments()
    limits = from_options(Limits, "--limit", arguments.limit)
    from_options(EndpointConfig, "--endpoint", arguments.endpoint)
    if not 0 <= arguments.port < 65536:
        raise ValueError(f"--port must be from 0 to 65535, but is {arguments.port}")
    bundle = arguments.bundle or default_bundle()
    if not (bundle.is_file() or is_runtime_set(bundle)):
        raise ValueError(
            f"--bundle must be a bundle or a folder that dualasr-export wrote, but {bundle} is none"
        )
    token = os.environ.get(_TOKEN)
    if arguments.token_file is not None:
        token = read_text(arguments.token_file).strip()
    from dualasr_lib.serving.access import Access  # what is heavy, after all options are read
    from dualasr_lib.serving.loading import load_model
    from dualasr_lib.serving.serve import serve

    access = Access(token=token, hosts=tuple(arguments.allow_host))
    load = partial(
        load_model,
        bundle,
        method=arguments.method,
        two_pass=False if arguments.one_pass else None,
        chunk_ms=arguments.chunk_ms,
        endpoint=tuple(arguments.endpoint),
    )
    if arguments.host not in ("127.0.0.1", "::1", "localhost") and token is None:
        logging.warning("whoever reaches %s may use this server: it has no token", arguments.host)
    serve(load, access, limits, arguments.host, arguments.port, arguments.behind_proxy)


if __name__ == "__main__":
    program()
