"""What all tests share."""

import signal

import hypothesis

# The same inputs in every run: a test that fails for nobody but the machine that happened to draw one helps nobody.
# The round of `make soak` draws new ones.
# Nor does one that fails because the machine was busy.
hypothesis.settings.register_profile(
    "pure",
    derandomize=True,
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("pure")

# A shell that starts tests in the background has them ignore Ctrl-C, `nohup` the end of a terminal, and so would every
# process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
