"""TCP of this kernel whose packets travel in datagrams: by a tun device in a network namespace of its own.

    far PORT CONTROL COMMAND...    take packets at a port of UDP; run COMMAND on every connection
    near PORT CONTROL COMMAND...   send packets to that port; run COMMAND on one connection

Run by path, with the standard library only.  CONTROL is the congestion control.  The socket of UDP is made before the
namespace is entered, and stays where it was made; so does what COMMAND has besides its stdin and stdout.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
import time

NEWNET, NEWUSER = 0x40000000, 0x10000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8922, 0x8914
UP = 1
MTU = 1252  # 1200 bytes of data, a timestamp, the headers of IP and TCP
NEAR, FAR, MASK = "10.0.0.1", "10.0.0.2", "255.255.255.252"
PORT = 5000
LEAVE = 0.3  # seconds for the last packets to leave


def enter() -> None:
    """A network of our own; where we may not have one, as the root of a user namespace of our own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEWNET if os.geteuid() == 0 else NEWNET | NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
    try:
        with open("/proc/sys/net/ipv4/tcp_no_metrics_save", "w", encoding="ascii") as file:
            file.write("1")  # each connection is to find out for itself
    except OSError:
        pass


def make_tun(address: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("=16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, text in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, MASK)):
            place = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))
            fcntl.ioctl(control, request, struct.pack("=16s16s8x", b"tun0", place))
        fcntl.ioctl(control, SIOCSIFMTU, struct.pack("=16si20x", b"tun0", MTU))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("=16sH22x", b"tun0", UP))
    return file


class Ferry:
    """Packets between the tun device and whoever was the last to send one, or `peer`."""

    def __init__(self, tun: int, sock: socket.socket, peer: tuple[str, int] | None) -> None:
        self._tun, self._sock, self._peer = tun, sock, peer
        for target in (self._out, self._in):
            threading.Thread(target=target, daemon=True).start()

    def _out(self) -> None:
        while True:
            data = os.read(self._tun, 2048)
            if self._peer:
                self._sock.sendto(data, self._peer)

    def _in(self) -> None:
        while True:
            data, self._peer = self._sock.recvfrom(2048)
            try:
                os.write(self._tun, data)
            except OSError:
                pass  # no packet


def carry(address: str, port: int, is_far: bool) -> Ferry:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", port if is_far else 0))
    enter()
    return Ferry(make_tun(address), sock, None if is_far else ("127.0.0.1", port))


def make_socket(control: str) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def far(port: str, control: str, *command: str) -> None:
    carry(FAR, int(port), True)
    listener = make_socket(control)
    listener.bind((FAR, PORT))
    listener.listen()
    print("listening", flush=True)
    running: list[subprocess.Popen[bytes]] = []
    while True:
        sock, _ = listener.accept()
        with sock:
            child = subprocess.Popen(command, stdin=sock.fileno(), stdout=sock.fileno())
        running = [child for child in running if child.poll() is None] + [child]


def near(port: str, control: str, *command: str) -> None:
    carry(NEAR, int(port), False)
    with make_socket(control) as sock:
        sock.connect((FAR, PORT))
        status = subprocess.call(command, stdin=sock.fileno(), stdout=sock.fileno())
    time.sleep(LEAVE)
    sys.exit(status)


if __name__ == "__main__":
    {"far": far, "near": near}[sys.argv[1]](*sys.argv[2:])
