"""Stage host: what machine this is. Runs in every `dvc repro`; bench and engine depend on what it writes."""

from pathlib import Path

from framegate.bench.host import host_class
from framegate.contract import digest_of, write_json


def main() -> None:
    """Write work/host.json: the stable class of this machine, without load or temperature."""
    facts = host_class()
    write_json(Path("work/host.json"), facts)
    print(f"host: {facts.get('cpu')}, {facts.get('cores')} cores, class {digest_of(facts)[:12]}")


if __name__ == "__main__":
    main()
