"""Fed to a python3 somewhere: KIND ADDRESS PORT NONCE. Tries one connection, sends the nonce, prints [outcome, milliseconds]."""

import json
import socket
import struct
import subprocess
import sys
import time

NEXT = {"udp": 17, "udplite": 136, "icmp": 1, "icmpv6": 58, "other": 253}


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(address: str, port: int, nonce: bytes) -> None:
    """A hand-made UDP packet in a hand-made frame, past everything that this host's own stack would say."""
    v6 = ":" in address
    family = socket.AF_INET6 if v6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))
        source = probe.getsockname()[0]
    gateway = subprocess.run(
        ["ip", "-6" if v6 else "-4", "route", "get", address], capture_output=True, text=True, check=True
    )
    via = gateway.stdout.split(" via ")[1].split()[0]
    with socket.socket(family, socket.SOCK_DGRAM) as wake:
        wake.sendto(b"x", (via, 9))
    mac = b""
    deadline = time.monotonic() + 3
    while not mac and time.monotonic() < deadline:
        words = subprocess.run(["ip", "neigh", "show", via], capture_output=True, text=True, check=True).stdout.split()
        if "lladdr" in words:
            mac = bytes.fromhex(words[words.index("lladdr") + 1].replace(":", ""))
    raw_source, raw_target = (socket.inet_pton(family, a) for a in (source, address))
    length = 8 + len(nonce)
    udp = struct.pack("!HHHH", 40000, port, length, 0) + nonce
    pseudo = raw_source + raw_target + (struct.pack("!II", length, 17) if v6 else struct.pack("!BBH", 0, 17, length))
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp)) + udp[8:]
    if v6:
        packet = struct.pack("!IHBB", 6 << 28, length, 17, 64) + raw_source + raw_target + udp
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, 17, 0) + raw_source + raw_target
        packet = head[:10] + struct.pack("!H", checksum(head)) + head[12:] + udp
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("eth0", 0))
        own = out.getsockname()[4]
        out.send(mac + own + struct.pack("!H", 0x86DD if v6 else 0x0800) + packet)


def send(kind: str, address: str, port: int, nonce: bytes) -> None:
    v6 = ":" in address
    family = socket.AF_INET6 if v6 else socket.AF_INET
    if kind == "tcp":
        with socket.create_connection((address, port), 3) as stream:
            stream.sendall(nonce + b"\n")
            stream.recv(100)
    elif kind == "udp":
        with socket.socket(family, socket.SOCK_DGRAM) as datagram:
            datagram.settimeout(1)
            datagram.connect((address, port))
            datagram.send(nonce)
            datagram.recv(1000)
    elif kind == "icmp":
        with socket.socket(family, socket.SOCK_DGRAM, 58 if v6 else 1) as echo:
            echo.settimeout(1)
            echo.connect((address, 0))
            echo.send(bytes([128 if v6 else 8, 0, 0, 0, 0, 0, 0, 1]) + nonce)
            echo.recv(1000)
    elif kind == "raw":
        with socket.socket(family, socket.SOCK_RAW, NEXT["other"]) as raw:
            raw.sendto(nonce, (address, 0))
    elif kind == "frame":
        frame(address, port, nonce)
    else:
        raise ValueError(kind)


begin = time.monotonic()
try:
    send(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode())
    outcome = "sent"
except TimeoutError:
    outcome = "timeout"
except OSError as error:
    outcome = error.strerror or str(error)
print(json.dumps([outcome, (time.monotonic() - begin) * 1000]))
