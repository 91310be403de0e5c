"""The ordinary user's uplinks: programs that carry packets between a tap device and the user's own sockets.

Both are told not to lead to the host's loopback and to forward no ports. They die with us, and hold the namespace as long as
they live, so they are ended before it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from netpolicy.clock import Clock, SystemClock
from netpolicy.errors import Exit, UserError
from netpolicy.kernel import netns
from netpolicy.kernel.links import Links
from netpolicy.run import networks
from netpolicy.run.uplink import INTERFACE, Kind, Reach

_READY_SECONDS = 10.0
_LOOK_SECONDS = 0.01
#: slirp4netns(1): its own address and the gateway's, of the IPv6 network that cannot be configured.
_SLIRP_V6 = ("fd00::100/64", "fd00::2")


def arguments(kind: Kind, router: int, *, as_root: bool) -> list[str]:
    """The command line of the program; `as_root`: we are the machine's own root, not that of a user namespace of ours."""
    namespace = f"/proc/self/fd/{router}"
    if kind == "pasta":
        # As root pasta would become "nobody" first and could not enter the namespace. It locks itself in later all the same.
        stay = ("--runas", "0:0") if as_root else ()
        return [
            *("pasta", *stay, "--foreground", "--quiet", "--config-net", "--ns-ifname", INTERFACE),
            *("--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"),
            *("--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra", "--no-netns-quit", "--netns", namespace),
        ]
    return [
        *("slirp4netns", "--configure", "--mtu=1500", "--enable-ipv6", "--disable-dns", "--disable-host-loopback"),
        *("--enable-seccomp", "--netns-type=path", namespace, INTERFACE),
    ]


class UserUplink:
    """pasta(1) or slirp4netns(1) on a router namespace."""

    def __init__(self, kind: Kind, *, as_root: bool, clock: Clock | None = None) -> None:
        self.kind = kind
        self._as_root = as_root
        self._clock = clock or SystemClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None

    def connect(self, router: int) -> Reach:
        """See `Uplink`. Raises UserError ``uplink-failed`` with the program's last words."""
        v4, v6 = networks.default_routes()
        if not (v4 or v6):
            return Reach(False, False)
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        # The parent-death signal is asked for by the child itself, in a fresh interpreter: nothing may run between fork and
        # exec in a process with threads.
        words = arguments(self.kind, router, as_root=self._as_root)
        launcher = str(Path(__file__).with_name("diewith.py"))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", launcher, str(os.getpid()), *words],
            stdin=subprocess.DEVNULL,
            stdout=self._words,
            stderr=self._words,
            pass_fds=[router],
            start_new_session=True,
        )
        self._wait(router, v4=v4)
        if self.kind == "slirp4netns" and v6:
            with Links(router) as links:
                links.address(INTERFACE, _SLIRP_V6[0])
                links.route("::/0", via=_SLIRP_V6[1])
        return Reach(v4, v6)

    def close(self) -> None:
        """See `Uplink`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._words is not None:
            self._words.close()
            self._words = None

    def _wait(self, router: int, *, v4: bool) -> None:
        """Until there is a default route in the namespace: neither program says when it is ready without being the parent."""
        assert self._process is not None
        deadline = self._clock.monotonic() + _READY_SECONDS
        while self._clock.monotonic() < deadline:
            if netns.call(router, networks.default_routes)[0 if v4 else 1]:
                return
            try:
                self._process.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            break
        raise self._failed()

    def _failed(self) -> UserError:
        assert self._words is not None
        self._words.seek(0)
        lines = [text for text in self._words.read().decode(errors="replace").splitlines() if "syslog" not in text]
        hint = None
        tun = Path("/dev/net/tun")
        if not tun.exists() or any("tun" in line for line in lines):
            hint = f"It needs to open {tun}: the kernel module tun, and read and write permission for your user."
        return UserError(
            "uplink-failed",
            f"{self.kind} could not connect the router: {lines[-1] if lines else 'it did not get ready in time'}",
            hint=hint,
            exit_status=Exit.MISSING,
        )
