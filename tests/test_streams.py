"""Multiplexed output: frames are complete and in order for any chunking."""

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockertest._engine.streams import Frame, FrameDecoder, TailBuffer
from dockertest.errors import EngineError

FRAMES = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=300)), max_size=20)


def encode(frames: list[Frame]) -> bytes:
    """Return frames as an engine writes them."""
    return b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in frames)


@given(FRAMES, st.lists(st.integers(1, 700)))
def test_frames_do_not_depend_on_the_chunks(frames: list[Frame], sizes: list[int]) -> None:
    """A chunk may end in a header or payload, or contain several frames."""
    encoded, decoder, decoded = encode(frames), FrameDecoder("read"), []
    start = 0
    for size in itertools.chain(sizes, itertools.repeat(100)):
        if start >= len(encoded):
            break
        decoded += decoder.feed(encoded[start : start + size])
        start += size
    decoder.finish()
    assert decoded == frames


@given(FRAMES)
def test_missing_never_exceeds_the_current_frame(frames: list[Frame]) -> None:
    """
    Only one header or payload is read at a time.

    A connection may block until all requested bytes arrive.
    """
    encoded, decoder, decoded, start = encode(frames), FrameDecoder("read"), [], 0
    while start < len(encoded):
        size = decoder.missing
        assert 0 < size <= len(encoded) - start
        decoded += decoder.feed(encoded[start : start + size])
        start += size
    assert decoder.missing == 8
    assert decoded == frames


@pytest.mark.parametrize("length", range(1, 12))
def test_a_truncated_frame_is_an_error(length: int) -> None:
    """The error names the operation, whether the header or the payload is incomplete."""
    decoder = FrameDecoder("read the log of container 'pg'")
    assert decoder.feed(encode([(1, b"data")])[:length]) == []
    with pytest.raises(
        EngineError, match=r"cannot read the log of container 'pg': .* closed .* in the middle of a frame"
    ):
        decoder.finish()


def test_output_that_is_not_multiplexed_is_an_error() -> None:
    """
    Text parsed as a header would announce gigabytes.

    The reader would wait for them.
    """
    decoder = FrameDecoder("read the log")
    with pytest.raises(EngineError, match="not in Docker's multiplexed format"):
        decoder.feed(b"plain text of a terminal\r\n")


@pytest.mark.parametrize("size", [1, 8, 30, 1000])
@pytest.mark.parametrize(("cause", "status"), [("no such container", 404), ("disk full", 500)])
def test_an_error_in_the_place_of_a_frame(size: int, cause: str, status: int) -> None:
    """
    Podman reports a late error as a line of JSON.

    The error occurs after Podman has sent the status of its response.
    """
    line = f'{{"cause":"{cause}","message":"cannot read \'pg\': {cause}","response":500}}\n'.encode()
    encoded, decoder, decoded = encode([(1, b"data")]) + line, FrameDecoder("read the log"), []

    def decode() -> None:
        start = 0
        while start < len(encoded):
            step = min(size, decoder.missing)
            decoded.extend(decoder.feed(encoded[start : start + step]))
            start += step

    with pytest.raises(EngineError, match=f"cannot read the log: the engine reported: .* {cause}$") as caught:
        decode()
    assert caught.value.status == status
    assert decoded == [(1, b"data")]


def test_an_error_after_a_frame_of_the_same_chunk() -> None:
    """The frame is not lost; the end of the output raises the error."""
    decoder = FrameDecoder("read the log")
    line = b'{"cause":"no such container","message":"gone","response":500}\n'
    assert decoder.feed(encode([(1, b"data")]) + line) == [(1, b"data")]
    with pytest.raises(EngineError, match="the engine reported: gone"):
        decoder.finish()


@given(st.lists(st.binary(max_size=50), max_size=30), st.integers(1, 300))
def test_a_tail_buffer_keeps_the_end(chunks: list[bytes], max_bytes: int) -> None:
    """If the beginning is dropped, the first line reports how many bytes are missing."""
    buffer, everything = TailBuffer(max_bytes), b"".join(chunks)
    for chunk in chunks:
        buffer.write(chunk)
    omitted = len(everything) - max_bytes
    expected = everything
    if omitted > 0:
        note = f"[dockertest omitted {omitted} bytes here; max_bytes is {max_bytes}]\n"
        expected = note.encode() + everything[omitted:]
    assert buffer.getvalue() == buffer.getvalue() == expected
    buffer.write(b"more")
    assert buffer.getvalue().endswith((everything + b"more")[-max_bytes:])


def test_a_tail_buffer_without_a_limit_keeps_everything() -> None:
    """`max_bytes=None` disables the limit."""
    buffer = TailBuffer(None)
    for _ in range(300):
        buffer.write(bytes(10_000))
    assert buffer.getvalue() == bytes(3_000_000)


def test_the_memory_of_a_tail_buffer_is_limited() -> None:
    """The beginning is dropped while more bytes arrive."""
    buffer = TailBuffer(2 << 20)
    tracemalloc.start()
    try:
        for _ in range(1000):
            buffer.write(bytes(65536))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert buffer.getvalue().endswith(bytes(2 << 20))
