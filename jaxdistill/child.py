"""One of several processes: joins the others, runs its command, and tells its parent why it ends."""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from jaxdistill import cli, distributed, signals
from jaxdistill.errors import UserError


def main(arguments: Sequence[str]) -> NoReturn:
    """Runs a command line whose first word are the settings of `parent`."""
    settings, *command = arguments
    settings = json.loads(settings)
    box = settings.pop("box")
    os.set_inheritable(box, False)
    distributed.follow(settings.pop("parent"))
    code = 0
    try:
        distributed.join(**settings, preemptible=command[0] in ("train", "finetune"))
        cli.run(command)
        sys.stdout.flush()
        distributed.leave()
    except (UserError, OSError) as error:
        os.write(box, str(error).encode())
        code = 2
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if code == signals.TERMINATED:
            distributed.leave()
    except BaseException:
        traceback.print_exc()
        code = 1
    # Not by sys.exit: its clean-up would wait for processes that may be gone.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
