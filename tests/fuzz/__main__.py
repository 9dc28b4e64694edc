"""Job files, JSONL, OpenAI lines, Parquet, tokenizers and journals, drawn anew for so many minutes:
`python -m tests.fuzz --minutes 10`.

The tests are those of the suite, with other seeds over and over. Ends with 1 at the first input
that crashes, or hangs, what reads it; hypothesis prints the smallest such input.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter

TARGETS = {
    "job file": ["tests/io/test_job_fuzz.py"],
    "JSONL": ["tests/io/test_inputs_bad.py", "tests/io/test_jsonl_in.py", "tests/io/test_rows.py"],
    "OpenAI lines": ["tests/io/test_openai_fuzz.py"],
    "Parquet": ["tests/io/test_parquet_fuzz.py"],
    "tokenizer files": ["tests/runtime/test_tokenizer_fuzz.py"],
    "journal": [
        *("tests/io/test_journal.py", "tests/io/test_token_journal.py"),
        *("tests/io/test_row_record.py", "tests/io/test_resume.py", "tests/io/test_read_back.py"),
    ],
}
# A round that takes longer has hung: it is over in a fraction of that.
LONGEST_S = 600.0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    told = parser.parse_args()
    end_s, seed, rounds = time.monotonic() + 60 * told.minutes, told.seed, Counter[str]()
    while time.monotonic() < end_s:
        for name, files in TARGETS.items():
            if time.monotonic() >= end_s:
                break
            if not passes(files, seed):
                print(f"{name}: a failing input with seed {seed}", flush=True)
                return 1
            rounds[name] += 1
        seed += 1
    print(f"nothing found in {dict(rounds)} rounds", flush=True)
    return 0


def passes(files: list[str], seed: int) -> bool:
    """Whether the drawn tests of the files hold for this seed; what they say is printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider"]
    command += ["-n", "0", "-m", "hypothesis", f"--hypothesis-seed={seed}", *files]
    ended = subprocess.run(command, timeout=LONGEST_S, capture_output=True, text=True, check=False)
    if ended.returncode:
        print(ended.stdout, ended.stderr, sep="\n", file=sys.stderr)
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
