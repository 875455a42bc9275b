"""Write the options of a network as the engine's create request."""

from typing import Any

import pytest

from dockertest import InvalidOptionError, _validation
from dockertest._network import network_request

HUGE = 10**5000  # more digits than Python prints


def request(**options: Any) -> "dict[str, Any]":
    """Return the request for a network with these options."""
    return network_request("back", {"dockertest.session": "s"}, options)  # type: ignore[arg-type]


def test_a_network_is_by_default_a_bridge_with_our_labels() -> None:
    """All other options are left at the engine's defaults."""
    assert request() == {
        "Name": "back",
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Internal": False,
        "Labels": {"dockertest.session": "s"},
        "Options": {},
    }


@pytest.mark.parametrize(
    ("option", "value", "key", "written"),
    [
        ("driver", "macvlan", "Driver", "macvlan"),
        ("driver_options", {"a": "b"}, "Options", {"a": "b"}),
        ("internal", True, "Internal", True),
        ("labels", {"a": "b"}, "Labels", {"a": "b", "dockertest.session": "s"}),
        ("subnet", "10.20.30.0/24", "IPAM", {"Config": [{"Subnet": "10.20.30.0/24"}]}),
        ("subnet", "fd00::/64", "IPAM", {"Config": [{"Subnet": "fd00::/64"}]}),
        ("subnet", "fd00::/64", "EnableIPv6", True),
    ],
)
def test_an_option_is_written_to_the_request(option: str, value: object, key: str, written: object) -> None:
    """It has the engine's key."""
    assert request(**{option: value})[key] == written


@pytest.mark.parametrize("subnet", ["", None])
def test_without_a_subnet_the_engine_chooses_one(subnet: "str | None") -> None:
    """An empty string and `None` are equivalent."""
    assert "IPAM" not in request(subnet=subnet)


INVALID: "dict[str, list[Any]]" = {
    "driver": [5, None, b"bridge", "a\0b", HUGE],
    "driver_options": [5, None, "a=b", {"a": 1}, {5: "a"}, {"a": "\0"}, {HUGE: HUGE}, HUGE],
    "internal": [1, None, "yes", HUGE],
    "labels": [None, [], {"a": 1}, {"dockertest.mine": "1"}, HUGE],
    "subnet": ["x", "10.0.0.1/24", "10.0.0.0/33", 5, b"10.0.0.0/24", "fe80::%eth0/64", ["10.0.0.0/24"], HUGE],
}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        pytest.param(option, value, id=f"{option}-{number}")
        for option, values in INVALID.items()
        for number, value in enumerate(values)
    ],
)
def test_an_invalid_value_is_rejected_by_the_name_of_its_option(option: str, value: Any) -> None:
    """
    No other exception is raised.

    The message shows the value or its invalid part.
    """
    with pytest.raises(InvalidOptionError) as caught:
        request(**{option: value})
    assert str(caught.value).startswith(option)
    parts = [value, *value.keys(), *value.values()] if isinstance(value, dict) else [value]
    assert any(_validation.format_value(part) in str(caught.value) for part in parts) or "NUL" in str(
        caught.value
    )


def test_a_misspelled_option_is_rejected() -> None:
    """The message lists the valid options."""
    with pytest.raises(
        InvalidOptionError, match="intrenal is not an option of a network; use one of: driver, "
    ):
        request(intrenal=True)
