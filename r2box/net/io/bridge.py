"""Joins a device to the descriptors of a tunnel, by copying: where the device itself cannot be given away.

A terminal cannot end one direction alone, its end looks like an error, and what does not block is nothing for other
programs.  (For datagrams there is `whole.Crossing`.)
"""

from __future__ import annotations

import errno
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .channel import Buffer, Channel
    from .loop import Loop, Timer

SIZE = 1 << 16  # bytes read at once
LOOK = 1.0  # seconds between looks at whether anybody is left to read what the device says
_GONE = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ECONNRESET)  # of a terminal whose other side is closed


class Bridge:
    """Copies both ways between `device` and `stream`, which it owns.  `ended(why)` is called once: "" in good order.

    The end of the stream's input is passed on as far as the device can have one; then what the device still says is,
    until nobody reads that.
    """

    def __init__(self, loop: Loop, device: Channel, stream: Channel, ended: Callable[[str], None]) -> None:
        self._loop = loop
        self._device = device
        self._stream = stream
        self._ended: Callable[[str], None] | None = ended
        self._is_socket = device.sock is not None or device.read_fd != device.write_fd  # can end one direction alone
        self._room = memoryview(bytearray(SIZE))
        self._to_device: list[Buffer] = []
        self._to_stream: list[Buffer] = []
        self._heard_end = [False, False]  # of the device, of the stream
        self._timer: Timer | None = None
        self._watch()

    # -- from the device to the stream -----------------------------------------------------------------------------

    def _device_readable(self) -> None:
        try:
            at_end = self._read_device()
        except OSError as error:
            if self._device.is_inet:
                self._break()
                return
            if error.errno not in _GONE:
                self._end(f"reading failed: {error.strerror}")
                return
            at_end = True
        if at_end:
            self._heard_end[0] = True
        self._write_stream()

    def _read_device(self) -> bool:
        size = self._device.read_into(self._room)
        if size > 0:
            self._to_stream.append(bytes(self._room[:size]))
        return not size

    def _write_stream(self) -> None:
        while self._to_stream:
            try:
                written = self._stream.write(self._to_stream[:_MAX_BUFFERS])
            except OSError:
                (self._break if self._stream.is_inet else self._unread)()
                return
            if not written:
                break
            _drop(self._to_stream, written)
        if self._heard_end[0] and not self._to_stream:
            self._part(self._stream, self._stream.write_fd)
            self._stream.close_write()
            if not self._is_socket or self._heard_end[1]:
                self._end("")
                return
        self._watch()

    def _unread(self) -> None:
        """Nobody reads what the device says."""
        self._to_stream = []
        if not self._is_socket or self._heard_end[1]:
            self._end("")
            return
        self._heard_end[0] = True
        self._part(self._device, self._device.read_fd)
        self._device.close_read()
        self._watch()

    # -- from the stream to the device -----------------------------------------------------------------------------

    def _stream_readable(self) -> None:
        try:
            size = self._stream.read_into(self._room)
        except ConnectionResetError:
            if self._stream.is_inet:
                self._break()
                return
            size = 0  # a UNIX socket whose other end was closed with bytes unread
        except OSError as error:
            self._end(f"reading failed: {error.strerror}")
            return
        if size > 0:
            self._to_device.append(bytes(self._room[:size]))
        elif not size:
            self._heard_end[1] = True
        self._write_device()

    def _write_device(self) -> None:
        while self._to_device:
            try:
                written = self._device.write(self._to_device[:1])
            except OSError as error:
                if self._device.is_inet:
                    self._break()
                    return
                self._end("" if error.errno in (*_GONE, errno.EPIPE) else f"writing failed: {error.strerror}")
                return
            if not written:
                break
            _drop(self._to_device, written)
        if self._heard_end[1] and not self._to_device:
            if self._heard_end[0]:
                self._end("")
                return
            if self._is_socket and self._device.write_fd >= 0:
                self._part(self._device, self._device.write_fd)
                self._device.close_write()
            self._look()
        self._watch()

    def _look(self) -> None:
        """Nothing more comes from the stream.  Whether somebody is left there who reads, nothing else would tell."""
        if self._ended is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        poll = select.poll()
        if self._stream.write_fd >= 0:
            poll.register(self._stream.write_fd, 0)
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
                self._unread()
                return
        self._timer = self._loop.later(LOOK, self._look)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if self._ended is None:
            return
        device, stream = self._device, self._stream
        reads_device = self._device_readable if not self._to_stream and not self._heard_end[0] else None
        reads_stream = self._stream_readable if not self._to_device and not self._heard_end[1] else None
        writes_device = self._write_device if self._to_device else None
        writes_stream = self._write_stream if self._to_stream else None
        for channel, read, write in ((device, reads_device, writes_device), (stream, reads_stream, writes_stream)):
            channel.watch(self._loop, read, write)

    def _part(self, channel: Channel, fd: int) -> None:
        """One direction of `channel` is about to be closed, and its descriptor too, if it has one of its own."""
        if channel.read_fd != channel.write_fd:
            self._loop.watch(fd)

    def _end(self, why: str) -> None:
        ended = self._ended
        if ended is not None:
            self.close()
            ended(why)

    def _break(self) -> None:
        """A connection at one side has failed, which the other side is to see as what it is."""
        ended = self._ended
        if ended is not None:
            self.close(broken=True)
            ended("")

    def close(self, broken: bool = False) -> None:
        """Copy nothing more; nothing is called any more.  If it is `broken`, connections over TCP are reset."""
        if self._ended is None:
            return
        self._ended = None
        if self._timer is not None:
            self._timer.cancel()
        for channel in (self._device, self._stream):
            channel.watch(self._loop, None, None)
            (channel.reset if broken else channel.close)()


_MAX_BUFFERS = min(os.sysconf("SC_IOV_MAX"), 1024) if "SC_IOV_MAX" in os.sysconf_names else 16  # of one writev(2)


def _drop(buffers: list[Buffer], written: int) -> None:
    """Remove what was written from the front of `buffers`."""
    while buffers and written >= len(buffers[0]):
        written -= len(buffers.pop(0))
    if written:
        buffers[0] = memoryview(buffers[0])[written:]
