"""Publishes the page as a Hugging Face Space, which runs deploy/Dockerfile.

    hf auth login
    python deploy/publish.py NAME/captioner

`--list` prints what would be uploaded, and uploads nothing. The Space's front matter is deploy/space.md.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWN_PLACES = {"README.md": "deploy/space.md", "Dockerfile": "deploy/Dockerfile"}
"""Files that a Space wants at its top."""
SPACE_ONLY = """
# A Space is visited under the Hub's names, through the Hub's proxy, in a frame of the Hub's page.
ENV FORWARDED_ALLOW_IPS="*"
CMD ["--allow-host", "*.hf.space", "--embed", "https://huggingface.co"]
"""
"""What a Space's Dockerfile has besides."""


def uploads() -> dict[str, Path]:
    """What the Space holds: where it lies there -> the file."""
    taken = [ROOT / "requirements.txt", ROOT / "LICENSE", ROOT / "app.py"]
    taken += [path for path in sorted((ROOT / "captioner").rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(ROOT).as_posix(): path for path in taken} | {
        place: ROOT / path for place, path in OWN_PLACES.items()
    }


def _content(place: str, path: Path) -> Path | bytes:
    return path.read_bytes() + SPACE_ONLY.encode() if place == "Dockerfile" else path


def main(arguments: list[str] | None = None) -> int:
    """Uploads everything in one commit; 1 where the Hub refuses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("space", help="NAME/SPACE on huggingface.co")
    parser.add_argument("--private", action="store_true", help="a Space that nobody else sees")
    parser.add_argument("--list", action="store_true", help="only print what would be uploaded")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        print("\n".join(f"{place}\t{path.stat().st_size}" for place, path in uploads().items()))
        return 0
    from huggingface_hub import CommitOperationAdd, HfApi

    hub = HfApi()
    try:
        hub.create_repo(chosen.space, repo_type="space", space_sdk="docker", private=chosen.private, exist_ok=True)
        operations = [CommitOperationAdd(place, _content(place, path)) for place, path in uploads().items()]
        hub.create_commit(chosen.space, operations, repo_type="space", commit_message="Publish captioner")
    except Exception as error:  # what the Hub's library raises changes with the one that it speaks HTTP by
        print(f"{chosen.space} could not be published: {error or type(error).__name__}", file=sys.stderr)
        return 1
    print(f"https://huggingface.co/spaces/{chosen.space}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
