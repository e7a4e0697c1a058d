"""A service on a port, until it is told to end."""

import logging
import signal
import socket

from dualasr_lib.serving.access import Access
from dualasr_lib.serving.app import Service
from dualasr_lib.serving.http import WebServer, configured
from dualasr_lib.serving.limits import Limits
from dualasr_lib.serving.worker import Load

__all__ = ["serve"]


def serve(
    load: Load, access: Access, limits: Limits, host: str, port: int, behind_proxy: bool = False
) -> None:
    """Serves until SIGINT or SIGTERM, then lets live streams come to their ends.

    Raises:
        ValueError: the model cannot be loaded.
        OSError: the port is taken.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # says much of what is harmless
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=128) as listening:
        service = Service(load, access, limits)
        config = configured(
            service.app, host, port, limits,
            proxy_headers=behind_proxy, forwarded_allow_ips="127.0.0.1,::1",
        )  # fmt: skip
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        server = WebServer(config, address, service.drain)
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn's own, while it runs;
            signal.signal(number, signal.SIG_IGN)  # it raises them again when all is done
        try:
            server.run(sockets=[listening])
        except SystemExit:  # how uvicorn ends if the service could not be started
            if service.failure is None:
                raise
    if service.failure is not None:
        raise service.failure
