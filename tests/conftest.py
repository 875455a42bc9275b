"""Configuration for all tests."""

import signal

import hypothesis

# For processes of pytest that tests start, without the plugins of tools that only tests of this project use: these cost
# three seconds of CPU time at each start.
NO_UNUSED_PLUGINS = " ".join(
    f"-p no:{name}" for name in ("hypothesispytest", "freezer", "time_machine", "fakefs")
)

# Every run draws the same inputs, so that failures are reproducible; `make soak` draws new ones. A slow machine must not
# make a test fail.
hypothesis.settings.register_profile(
    "pure",
    derandomize=True,
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("pure")

# A shell starts background jobs with SIGINT ignored, and `nohup` ignores SIGHUP. The processes that the tests start would
# inherit this.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
