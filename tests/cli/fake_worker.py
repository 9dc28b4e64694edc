"""A process of `--workers` with an engine that needs no model: PACE and the order it is given."""

from __future__ import annotations

import sys

import orjson

from tests.cli.fake_tightrun import pretend
from tightrun.cli.worker import work

if __name__ == "__main__":
    pretend(sys.argv[1])
    sys.exit(work(orjson.loads(sys.argv[2])))
