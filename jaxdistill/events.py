"""TensorBoard event files: scalars written a whole step at a time, and cut back to a step.

A file is a sequence of TFRecords: length (uint64), its masked CRC-32C, an `Event` protocol buffer, its masked CRC-32C
(tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto). The few fields used here are encoded by
hand: wall_time = 1 (double), step = 2 (varint), file_version = 3 (string), summary = 5 {value = 1 {tag = 1 (string),
simple_value = 2 (float)}}.
"""

import math
import os
import struct
import time
from collections.abc import Iterator, Mapping

from jaxdistill import files
from jaxdistill.places import make_folder, place

PATTERN = "events.out.tfevents.*"
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


def open_events(folder: str | os.PathLike) -> files.Growing:
    """Starts a new event file, after those that are there."""
    folder = place(folder)
    make_folder(folder)
    numbers = [int(path.suffix[1:]) for path in folder.glob(PATTERN) if path.suffix[1:].isdigit()]
    file = files.Growing(folder / f"events.out.tfevents.{max(numbers, default=0) + 1:010d}", new=True)
    version = b"brain.Event:2"
    file.append(_record(_double(1, time.time()) + _bytes(3, version)))
    return file


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """The record of one step's scalars, ready to be appended to an event file."""
    summary = b"".join(_bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in values.items())
    return _record(_double(1, time.time()) + _varint(2, step) + _bytes(5, summary))


def cut_events(folder: str | os.PathLike, step: int) -> None:
    """Drops what comes after a step, and torn ends, from every event file; each file is replaced atomically.

    A file's first record, its version, always stays.
    """
    for path in sorted(place(folder).glob(PATTERN)):
        data = path.read_bytes()
        kept = [record for number, (record, at) in enumerate(_records(data)) if number == 0 or at <= step]
        if sum(map(len, kept)) == len(data):
            continue
        with files.atomic(path) as temporary:
            temporary.write_bytes(b"".join(kept))


def _records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Whole records and their steps, up to the first that is torn."""
    start = 0
    while start + _HEADER.size <= len(data):
        length, crc = _HEADER.unpack_from(data, start)
        end = start + _HEADER.size + length + _CRC.size
        if crc != _masked(data[start : start + 8]) or end > len(data):
            return
        event = data[start + _HEADER.size : end - _CRC.size]
        if _CRC.unpack_from(data, end - _CRC.size)[0] != _masked(event):
            return
        yield data[start:end], _step(event)
        start = end


def _step(event: bytes) -> int:
    place = 0
    while place < len(event):
        key, place = _read_varint(event, place)
        kind = key & 7
        if kind == 0:
            value, place = _read_varint(event, place)
            if key >> 3 == 2:
                return value
        elif kind == 2:
            size, place = _read_varint(event, place)
            place += size
        else:
            place += 8 if kind == 1 else 4
    return 0


def _read_varint(data, place):
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + _CRC.pack(_masked(length)) + event + _CRC.pack(_masked(event))


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(value)) + value


def _double(field: int, value: float) -> bytes:
    return _number(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    try:
        packed = struct.pack("<f", value)
    except OverflowError:
        packed = struct.pack("<f", math.copysign(math.inf, value))
    return _number(field << 3 | 5) + packed


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc_table()


def _masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
