"""Stage host: what machine this is. Runs in every `dvc repro`; bench and engine depend on what it writes."""

from pathlib import Path

from framegate.bench.host import host_class
from framegate.contract import digest_of, write_json
from framegate.promotion.record import read_hold

BROUGHT = (Path("work/hosts"), Path("work/agreement"))  # what people bring to the gate; it depends on both


def main() -> None:
    """Write work/host.json: the stable class of this machine, without load or temperature. Says what is held."""
    facts = host_class()
    write_json(Path("work/host.json"), facts)
    for folder in BROUGHT:
        folder.mkdir(parents=True, exist_ok=True)
    print(f"host: {facts.get('cpu')}, {facts.get('cores')} cores, class {digest_of(facts)[:12]}")
    for exports in (Path("exports"), *sorted(Path("exports").glob("hosts/*"))):
        if hold := read_hold(exports):
            print(f"{exports}: {hold}; what the verdict names is not shipped until `framegate promotions release`")


if __name__ == "__main__":
    main()
