"""The `edge-console` command: the web page for people who label, curate, train and operate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from console.administration import run
from console.options import build_parser, demo_settings, settings_of
from edge.errors import ConfigError, FinesightError
from edge.extras import require_extra
from edge.telemetry.known_secrets import hide, set_up_logging

if TYPE_CHECKING:
    from console.services import Services


def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, 1 on an error (one line, no traceback), 2 on wrong usage."""
    arguments = build_parser().parse_args(argv)
    set_up_logging("INFO" if arguments.verbose else "WARNING", "%(levelname)s %(name)s: %(message)s")
    try:
        require_extra("console")
        if arguments.verb in ("serve", "demo"):
            _serve(arguments)
        else:
            run(arguments)
    except FinesightError as error:
        print(f"edge-console: {hide(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    from console.web.serve import Listen, serve

    prepare: Callable[[Services], None] | None = None
    if arguments.verb == "demo":
        from console.demo.build import build_demo

        settings = demo_settings(arguments)
        prepare = partial(build_demo, say=lambda text: print(f"demo: {text}", flush=True))
    else:
        settings = settings_of(arguments)
        for one in settings.folders:
            if not one.is_dir():  # perhaps it is mounted later
                print(f"edge-console: --folder {one}: there is no such folder now", file=sys.stderr)
    host, _, port = arguments.listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--listen: found {arguments.listen!r}, expected HOST:PORT")
    names = tuple(arguments.host_name)
    listen = Listen(
        host.strip("[]"), int(port), names, arguments.tls_certificate, arguments.tls_key, arguments.proxy_https
    )
    serve(settings, listen, prepare)


if __name__ == "__main__":
    sys.exit(main())
