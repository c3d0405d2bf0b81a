"""The report of a run as one HTML file: python -m grpo.tools.report RUN [--out=FILE]

    python -m grpo.tools.report runs/tiny
    python -m grpo.tools.report runs/tiny_no_kl --against=runs/tiny --out=no_kl.html

RUN is the directory of any run: finished, failed, stopped or still going. The file is report.html
in it, or --out. --against is another run, or a config.json, whose config is compared with this
one's.
"""

import pathlib
from collections.abc import Sequence

from grpo.checks.arguments import command_line, end
from grpo.reporting.html.report import FILE, report
from grpo.reporting.html.run_files import NoRunError, read_object
from grpo.storage.whole import put


def main(arguments: Sequence[str] | None = None) -> None:
    """From the command line."""
    parser = command_line("report", __doc__)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path)
    flags = parser.parse_args(arguments)
    out, against, unread = flags.out or flags.run / FILE, None, []
    if flags.against:
        file = flags.against / "config.json" if flags.against.is_dir() else flags.against
        against = read_object(file, unread)
    if unread:
        end(f"--against={flags.against}: {unread[0]}")
    try:
        put(out, report(flags.run, against, str(flags.against)).encode())
    except (NoRunError, OSError) as error:
        end(str(error))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
