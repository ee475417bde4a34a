"""The grading process: reads pairs from standard input and answers on a pipe of its own, one JSON line each.

Started as `python -m egrsd_jax.verify.worker` by `process`, and imports no jax. It answers once when its imports are
done, then once for every pair.
"""

import json
import os
import resource
import signal
import sys
from typing import Any, TextIO

from egrsd_jax.verify.grade import AlgebraMissing, load_algebra, work_out
from egrsd_jax.verify.syntax import Unreadable


def main() -> None:
    """Serve until standard input ends.

    Arguments: the descriptor to answer on, the seconds after which a pair ends this process, its bytes of memory.
    """
    replies = os.fdopen(int(sys.argv[1]), "w", encoding="ascii")
    seconds, memory = float(sys.argv[2]), int(sys.argv[3])
    if sys.platform == "linux":  # elsewhere the limit is not enforced, or refused
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        load_algebra().load()
    except AlgebraMissing as error:
        _send(replies, {"failed": str(error)})
        return
    _send(replies, {"ready": True})
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a parent that ignores it hands that down
    for line in sys.stdin:
        # Should the parent be gone by then, the kernel ends this process; the parent's own deadline is earlier.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        reply = _reply(json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(replies, reply)


def _send(replies: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=replies, flush=True)


def _reply(pair: dict[str, str]) -> dict[str, Any]:
    try:
        return {"correct": work_out(pair["prediction"], pair["answer"])}
    except Unreadable as unreadable:
        return {"error": str(unreadable)[:400]}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}


if __name__ == "__main__":
    main()
