"""Logs: where an interrupted one continues, and the engine's timestamps."""

import pytest

from dockertest._containers.logs import RECENT_MESSAGES, Position, split_terminal_line, split_timestamp

STAMP = b"2026-11-28T18:00:00.000000001Z "
LATER = b"2026-11-28T18:00:00.500000000Z "
NEVER = b"2999-01-01T00:00:00.000000000Z "
EARLIER = b"2026-11-28T17:59:59.999999999Z "
TIME = 1795888800_000000001


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (STAMP + b"line\n", (TIME, b"line\n")),
        (b"2026-11-28T18:00:00Z line\n", (TIME - 1, b"line\n")),
        (b"2026-11-28T19:00:00.000000001+01:00 line\n", (TIME, b"line\n")),
        (STAMP + EARLIER + b"line\n", (TIME, EARLIER + b"line\n")),
        (b"no time\n", (0, b"no time\n")),
        (b"2026-99-28T18:00:00Z line\n", (0, b"2026-99-28T18:00:00Z line\n")),
        (b"", (0, b"")),
    ],
)
def test_the_timestamp_of_a_message_is_removed(message: bytes, expected: tuple[int, bytes]) -> None:
    """
    Docker writes nanoseconds, and Podman seconds.

    A program's own timestamp is part of the message.
    """
    assert split_timestamp(message) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (STAMP + b"line\r\n", [b"line\r\n"]),
        (STAMP + b"x" * 16384 + LATER + b"rest\r\n", [b"x" * 16384, b"rest\r\n"]),
        (STAMP + b"x" * 16384 + LATER + b"y" * 16384 + LATER + b"z", [b"x" * 16384, b"y" * 16384, b"z"]),
        (STAMP + b"valid until " + LATER + b"\r\n", [b"valid until " + LATER + b"\r\n"]),
        (b"no time\r\n", [b"no time\r\n"]),
    ],
)
def test_a_terminals_line_is_split_into_messages(line: bytes, expected: list[bytes]) -> None:
    """The engine writes its timestamps after 16 KiB; others are a program's own."""
    assert [message for _, message in split_terminal_line(line)] == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (STAMP + b"no end" + LATER + b"again\r\n", [b"no end", b"again\r\n"]),
        (STAMP + EARLIER + b"own time\r\n", [EARLIER + b"own time\r\n"]),
        (STAMP + b"until " + NEVER + b"\r\n", [b"until " + NEVER + b"\r\n"]),
    ],
)
def test_a_line_may_be_continued_after_a_restart(line: bytes, expected: list[bytes]) -> None:
    """The engine's timestamp is not earlier than the first one, and has passed."""
    latest, _ = split_timestamp(LATER)
    assert [message for _, message in split_terminal_line(line, latest)] == expected


def new(position: Position, messages: list[tuple[int, int, bytes]]) -> list[bytes]:
    """Return the messages of one response that are new."""
    position.start_again()
    return [message for stream, time, message in messages if position.is_new(stream, time, message)]


def test_messages_received_again_are_not_new() -> None:
    """Each stream has its own position."""
    position, first = Position(), [(1, 10, b"a"), (2, 9, b"b"), (1, 20, b"c")]
    assert new(position, first) == [b"a", b"b", b"c"]
    assert new(position, [*first, (2, 15, b"d"), (1, 30, b"e")]) == [b"d", b"e"]
    assert position.time == 30


def test_equal_messages_of_one_second_are_counted() -> None:
    """Podman's timestamps are whole seconds."""
    position, tick = Position(), (1, 10, b"tick")
    assert new(position, [tick, tick]) == [b"tick", b"tick"]
    assert new(position, [tick, tick, tick, (1, 10, b"tock")]) == [b"tick", b"tock"]
    assert new(position, [tick, tick, tick, (1, 10, b"tock")]) == []


def test_a_long_log_is_received_again_several_times() -> None:
    """The first messages are no longer remembered, but their time is."""
    position = Position()
    lines = [(1, TIME + index, b"%d\n" % index) for index in range(RECENT_MESSAGES + 2)]
    assert len(new(position, lines)) == len(lines)
    for _ in range(3):
        assert new(position, lines) == []


def test_everything_after_the_last_message_is_new() -> None:
    """If the engine's clock is set back, new messages have earlier timestamps."""
    position = Position()
    assert new(position, [(1, 10, b"a"), (1, 20, b"b")]) == [b"a", b"b"]
    assert new(position, [(1, 10, b"a"), (1, 20, b"b"), (1, 15, b"c")]) == [b"c"]


def test_a_log_that_lost_its_last_message_continues() -> None:
    """Rotation may remove every known message."""
    position = Position()
    assert new(position, [(1, 10, b"a")]) == [b"a"]
    assert new(position, [(1, 20, b"b"), (1, 15, b"c")]) == [b"b", b"c"]


def test_messages_without_timestamps_are_counted() -> None:
    """An engine may ignore the request for timestamps."""
    position = Position()
    assert new(position, [(1, 0, b"a"), (1, 0, b"b"), (1, 0, b"a")]) == [b"a", b"b", b"a"]
    assert new(position, [(1, 0, b"a"), (1, 0, b"b"), (1, 0, b"a"), (1, 0, b"c")]) == [b"c"]
    assert position.time == 0


T = 1_700_000_000_123_456_789  # a precise time


def test_messages_repeated_within_a_response_are_not_new() -> None:
    """
    Docker sends some lines again after it has rotated the log.

    It repeats a block, or only the last line.
    """
    position = Position()
    first = [(1, T + number, b"tick\n") for number in range(5)]
    assert new(position, [*first, *first[2:], *first[3:], (1, T + 9, b"tick\n")]) == [b"tick\n"] * 6
    assert new(Position(), [(1, T, b"a\n"), (1, T, b"a\n"), (2, T, b"a\n")]) == [b"a\n"] * 2


def test_equal_lines_written_at_once_are_all_new() -> None:
    """On Podman 5, they have the same precise time. A new response repeats them."""
    position, tick = Position(has_unique_times=False), (1, T, b"tick\n")
    assert new(position, [tick, tick]) == [b"tick\n"] * 2
    assert new(position, [tick, tick, tick, (1, T + 1, b"tock\n")]) == [b"tick\n", b"tock\n"]


def test_equal_parts_of_a_long_line_are_all_new() -> None:
    """They have the same time. If the line is repeated, all of them are."""
    line = [(1, T, b"x"), (1, T, b"x"), (1, T, b"x\n")]
    parts = [b"x", b"x", b"x\n"]
    assert new(Position(), line) == parts
    last = (1, T + 1, b"y\n")
    assert new(Position(), [*line, last, *line, last]) == [*parts, b"y\n"]
    back = [(1, T + 5, b"z\n"), *line, last]
    assert new(Position(), back) == [b"z\n", *parts, b"y\n"]


def test_only_recent_messages_are_remembered() -> None:
    """A log may have any length."""
    position = Position()
    many = [(1, T + number, b"tick\n") for number in range(RECENT_MESSAGES + 5)]
    assert len(new(position, many)) == len(many)
    assert [position.is_new(*message) for message in many[-10_000::5000]] == [False, False]
    assert position.is_new(*many[0])


def test_a_gap_in_a_response_is_filled_by_the_next_one() -> None:
    """Podman leaves out lines of a container that ends while its log is followed."""
    position, second = Position(), 10**9
    log = [(1, (100 + number // 4) * second, b"%d\n" % number) for number in range(12)]
    assert len(new(position, [*log[:3], *log[7:]])) == 8
    assert new(position, log) == [message for _, _, message in log[3:7]]
    assert new(position, [*log, log[-1]]) == [log[-1][2]]


def test_a_long_overlap_is_not_repeated() -> None:
    """More messages may be received again than are remembered."""
    position = Position()
    many = [(1, T + number, b"tick\n") for number in range(3 * RECENT_MESSAGES)]
    new(position, many)
    assert new(position, [*many, (1, T - 5, b"back\n")]) == [b"back\n"]
