"""The connection to a Ray cluster: which one, what of it a trial takes, and the code it is sent."""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
from dataclasses import dataclass
from typing import Any

from search.errors import ConfigurationError, WorkerError

KNOCK_SECONDS = 10.0

LOCAL_STORE_BYTES = 80 * 2**20
"""Ray's shared memory in a cluster of our own: next to nothing goes through it."""


@dataclass(frozen=True, kw_only=True)
class RayWishes:
    """What was asked for.

    Attributes:
        address: Of the cluster; "" for the one of this machine, which is started if there is none.
        cpus: CPU cores of a trial, as Ray counts them.
        gpus: The share of a GPU that a trial takes, 0 to train on CPUs.
    """

    address: str = ""
    cpus: int = 1
    gpus: float = 0.0


class RayCluster:
    """The connection to a cluster, and the packages it was given.

    Attributes:
        ray: The package.
        wishes: What was asked for.
    """

    def __init__(self, wishes: RayWishes, *, hypermodel: Any) -> None:
        """Connect.

        Args:
            wishes: Which cluster, and what a trial takes of it.
            hypermodel: The package of its class is sent to the nodes, with this one.

        Raises:
            ConfigurationError: Ray is not installed.
            WorkerError: No cluster answers.
        """
        if importlib.util.find_spec("ray") is None:
            raise ConfigurationError(
                "--executor ray: the package ray is not installed; pip install "
                "'xray-search[ray]', or leave the option out"
            )
        # It would tell its makers of every cluster; a hospital has not agreed to that.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Imported here: an extra, and slow to load.
        self.ray: Any = importlib.import_module("ray")
        self.wishes = wishes
        packages = {"search", type(hypermodel).__module__.partition(".")[0]} - {"__main__"}
        self._environment = {
            "py_modules": [importlib.import_module(name) for name in sorted(packages)]
        }
        self._connect()

    def _connect(self) -> None:
        address = self.wishes.address
        try:
            _knock(address)
            self._init(address or "auto")
        except (OSError, RuntimeError, ValueError) as error:
            if not address and "find any running" in str(error):  # nobody started one here
                self._init("local", include_dashboard=False, object_store_memory=LOCAL_STORE_BYTES)
                return
            named = f"--address {address}" if address else "--executor ray"
            raise WorkerError(
                f"{named}: no Ray cluster that can be used ({one_line(error)}). This machine must "
                "be a node of it, see search/tuning/RAY.md; if it asks for a token, set "
                "RAY_AUTH_MODE=token and the token here as there"
            ) from None

    def _init(self, address: str, **options: Any) -> None:
        self.ray.init(
            address=address,
            runtime_env=self._environment,
            log_to_driver=False,
            logging_level="ERROR",
            **options,
        )

    @property
    def places(self) -> int:
        """Return how many trials the nodes of now have room for at once."""
        wishes, found = self.wishes, 0
        for node in self.ray.nodes():
            if node["Alive"]:
                resources = node["Resources"]
                room = int(resources.get("CPU", 0) // wishes.cpus)
                if wishes.gpus:
                    # A fifth of a GPU five times is a whole one, whatever floats make of it.
                    room = min(room, int(resources.get("GPU", 0) / wishes.gpus + 1e-6))
                found += room
        return found

    @property
    def nodes(self) -> int:
        """Return how many nodes there are now."""
        return sum(node["Alive"] for node in self.ray.nodes())

    def close(self) -> None:
        """Disconnect; a cluster that was started here ends."""
        self.ray.shutdown()


def _knock(address: str) -> None:
    """See whether anybody answers at all, since Ray tries for ten minutes.

    Raises:
        OSError: Nobody does.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def one_line(error: Exception) -> str:
    """Return what an exception says, in one line."""
    return " ".join(str(error).split())
