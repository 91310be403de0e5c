"""A program for an ordinary user: sends a word in every way that its sockets allow. Arguments: way=word, and the targets."""

import contextlib
import socket
import struct
import sys

BINDTODEVICE, FASTOPEN = 25, 0x20000000
UDPLITE, SCTP = 136, 132


def family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def datagram(address: str, port: int, word: bytes, *options: tuple[int, int, bytes], proto: int = 0) -> None:
    with socket.socket(family(address), socket.SOCK_DGRAM, proto) as sock:
        for option in options:
            sock.setsockopt(*option)
        sock.sendto(word, (address, port))


def through(device: str) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, BINDTODEVICE, device.encode()


def udp(target: str, near: str, word: bytes) -> None:
    datagram(target, 443, word)


def udp_to_a_query_port(target: str, near: str, word: bytes) -> None:
    datagram(target, 53, word)


def udplite(target: str, near: str, word: bytes) -> None:
    datagram(target, 443, word, proto=UDPLITE)


def ping(target: str, near: str, word: bytes) -> None:
    v4 = family(target) == socket.AF_INET
    head = struct.pack(">BBHHH", 8 if v4 else 128, 0, 0, 0, 1)
    datagram(target, 0, head + word, proto=1 if v4 else 58)


def fast_open(target: str, near: str, word: bytes) -> None:
    with socket.socket(family(target), socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.sendto(word, FASTOPEN, (target, 443))


def by_loopback(target: str, near: str, word: bytes) -> None:
    datagram(target, 443, word, through("lo"))


def loopback_by_wire(target: str, near: str, word: bytes) -> None:
    datagram("127.0.0.5" if family(target) == socket.AF_INET else "::1", 443, word, through("eth0"))


def to_the_group(target: str, near: str, word: bytes) -> None:
    v4 = family(target) == socket.AF_INET
    datagram("224.0.0.251" if v4 else "ff02::fb", 5353, word, through("eth0"))


def to_everybody(target: str, near: str, word: bytes) -> None:
    everybody = (socket.SOL_SOCKET, socket.SO_BROADCAST, struct.pack("i", 1))
    datagram(
        "255.255.255.255" if family(target) == socket.AF_INET else "ff02::1", 9999, word, everybody, through("eth0")
    )


def to_a_neighbour(target: str, near: str, word: bytes) -> None:
    datagram(near, 9999, word)


def by_a_source_route(target: str, near: str, word: bytes) -> None:
    if family(target) == socket.AF_INET:
        route = struct.pack(">BBB4sB", 131, 7, 4, socket.inet_aton(target), 0)
        datagram(near, 9, word, (socket.IPPROTO_IP, socket.IP_OPTIONS, route))


def mapped(target: str, near: str, word: bytes) -> None:
    if family(target) == socket.AF_INET:
        datagram(f"::ffff:{target}", 443, word)


def urgent_priority(target: str, near: str, word: bytes) -> None:
    datagram(target, 443, word, (socket.SOL_SOCKET, socket.SO_PRIORITY, struct.pack("i", 6)))


WAYS = (
    udp,
    udp_to_a_query_port,
    udplite,
    ping,
    fast_open,
    by_loopback,
    loopback_by_wire,
    to_the_group,
    to_everybody,
    to_a_neighbour,
    by_a_source_route,
    mapped,
    urgent_priority,
)

if __name__ == "__main__":
    words = dict(pair.split("=") for pair in sys.argv[3:])
    for way in WAYS:
        with contextlib.suppress(OSError):
            way(sys.argv[1], sys.argv[2], words[way.__name__].encode())
