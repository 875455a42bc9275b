"""The former home of `ExecResult`, which pickles of earlier versions name."""

from dockertest._containers.exec import ExecResult as ExecResult
