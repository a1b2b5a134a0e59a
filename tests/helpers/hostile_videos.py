"""Files that name other files or addresses, and a watch on who follows them."""

import ctypes
import os
import select
import shutil
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

_IN_OPEN = 0x20


class Watch:
    """What was opened and asked for while it was on."""

    def __init__(self) -> None:
        self.port = 0
        self.followed: list[str] = []


@contextmanager
def watched(*files: Path) -> Iterator[Watch]:
    """Note each opening of some files (Linux's inotify) and each connection to a local port."""
    watch, libc = Watch(), ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_NONBLOCK)
    names = {libc.inotify_add_watch(events, os.fsencode(f), _IN_OPEN): f.name for f in files}
    assert min(events, *names) >= 0, os.strerror(ctypes.get_errno())
    with socket.create_server(('127.0.0.1', 0)) as tcp:
        watch.port = tcp.getsockname()[1]
        try:
            yield watch
        finally:
            if select.select([tcp], [], [], 0)[0]:
                watch.followed.append('the address')
            if select.select([events], [], [], 0)[0]:
                data = os.read(events, 65536)
                while data:
                    number, _, _, length = struct.unpack_from('iIII', data)
                    watch.followed.append(names[number])
                    data = data[16 + length :]
            os.close(events)


def m3u8(target: str) -> str:
    return f'#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n'


def ffconcat(target: str) -> str:
    return f"ffconcat version 1.0\nfile '{target}'\nduration 4\n"


def mpd(target: str) -> str:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT4S">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
        f'<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>\n'
    )


def sdp(target: str) -> str:
    return (
        'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n'
        f'm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\na=control:{target}\n'
    )


def svg(target: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="64" height="48"><image width="64" height="48" xlink:href="{target}"/></svg>\n'
    )


def vobsub(target: str) -> str:
    return f'# VobSub index file, v7 (do not modify this line!)\n# {target}\nid: en, index: 0\n'


def postscript(target: str) -> str:
    return f'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n({target}) run\n'


PLAYLISTS = {
    'm3u8': m3u8,
    'ffconcat': ffconcat,
    'mpd': mpd,
    'sdp': sdp,
    'svg': svg,
    'idx': vobsub,
    'eps': postscript,
}
"""Text that names another file or address, by the ending it usually has."""


def with_data_reference(source: Path, path: Path, target: Path) -> None:
    """Write a MOV whose frames are in another file, which it names as macOS does (``alis``)."""
    data = source.read_bytes()
    start = data.index(b'dref') - 4
    size = int.from_bytes(data[start : start + 4], 'big')
    name = os.fsencode(target)
    record = bytearray(150)
    record[2:4] = (150 + 4 + len(name) + len(name) % 2 + 4).to_bytes(2, 'big')
    record[4:6] = (2).to_bytes(2, 'big')
    record[10:11] = b'\x03'
    record[11:14] = b'vol'
    record[50:51] = bytes([min(63, len(target.name))])
    record[51 : 51 + min(63, len(target.name))] = os.fsencode(target.name)[:63]
    record[130:132] = (1).to_bytes(2, 'big')  # from the folder to the file
    record[132:134] = (1).to_bytes(2, 'big')
    path_tag = struct.pack('>HH', 2, len(name)) + name + b'\0' * (len(name) % 2)
    alias = bytes(record) + path_tag + struct.pack('>HH', 0xFFFF, 0)
    entry = struct.pack('>I4sI', 12 + len(alias), b'alis', 0) + alias
    dref = struct.pack('>I4sII', 16 + len(entry), b'dref', 0, 1) + entry
    grown = len(dref) - size
    data = data[:start] + dref + data[start + size :]
    for box in (b'dinf', b'minf', b'mdia', b'trak', b'moov'):
        place = data.rindex(box, 0, start) - 4
        length = int.from_bytes(data[place : place + 4], 'big') + grown
        data = data[:place] + length.to_bytes(4, 'big') + data[place + 4 :]
    path.write_bytes(data)


def write_hostile_files(folder: Path, video: Path, port: int) -> list[Path]:
    """Write files that name ``canary.mp4`` of their folder, which must exist, or a local address.

    Playlists come as text, and with a byte that makes them look like data.
    """
    canary = folder / 'canary.mp4'
    targets = (canary.name, str(canary), f'file:{canary}', f'http://127.0.0.1:{port}/x.ts')
    files = []
    for kind, text_of in PLAYLISTS.items():
        for number, target in enumerate(targets):
            for mark in (b'', b'#\0'):
                for ending in (kind, 'mp4', 'mkv', 'jpg', 'tar'):
                    file = folder / f'{kind}{number}{len(mark)}.{ending}'
                    file.write_bytes(text_of(target).encode() + mark)
                    files.append(file)
    frames = folder / 'frames'
    frames.mkdir()
    for kind in ('svg', 'eps', 'm3u8'):
        (frames / f'{kind}.png').write_text(PLAYLISTS[kind](str(canary)))
    for ending in ('mov', 'mp4'):
        with_data_reference(video, folder / f'reference.{ending}', canary)
        files.append(folder / f'reference.{ending}')
    return [*files, frames]


def followed(folder: Path, video: Path, read: Callable[[Path], None]) -> list[str]:
    """Files that were read without an error, and what they made a reader open."""
    from vito_mm.videos import VideoReadError

    canary = folder / 'canary.mp4'
    shutil.copy(video, canary)
    problems = []
    with watched(canary) as watch:
        for file in write_hostile_files(folder, video, watch.port):
            try:
                read(file)
                problems.append(f'{file.name} was read')
            except VideoReadError as error:
                if not error.reason or '\n' in error.reason:
                    problems.append(f'{file.name}: {error.reason!r}')
    return problems + watch.followed


if __name__ == '__main__':  # in a process of its own: folder, video, backend
    from vito_mm.videos import decode_frames

    place, source, backend = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    print('\n'.join(followed(place, source, lambda f: decode_frames(f, np.zeros_like, backend))))
