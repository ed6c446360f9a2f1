"""The command line: `python -m cuvee.flows` and the script `cuvee`."""

import os
import signal
import sys


def main() -> None:
    """Run the command that was typed; what takes time to import can be stopped meanwhile."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_early)
    from cuvee.flows.cli import main as program

    program.main()


def stop_early(_number: int, _frame: object) -> None:
    """Ends the process at once, before a command has begun, for there is nothing to clean up.

    No exception does it: an import that is interrupted may catch it, or tell another error.
    """
    import json

    text = "stopped before anything was begun; run the same command again."
    os.write(2, f"\ncuvee: {text}\n".encode())
    if "--json" in sys.argv:
        typed = [word for word in sys.argv[1:] if not word.startswith("-")]
        told = {"error": text, "kind": "Interrupted"}
        answer = {"command": typed[0] if typed else "cuvee", "exit": 130, **told}
        os.write(1, (json.dumps(answer, indent=1) + "\n").encode())
    os._exit(130)  # 128 + SIGINT; the codes stand in `cuvee.flows.cli.app`, which takes time


if __name__ == "__main__":
    main()
