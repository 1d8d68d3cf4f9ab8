"""The JVM's archive of classes it has loaded before: a broker's start takes two thirds of the processor time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class ClassArchive:
    """Lies beside the jars, and is renewed with them; one that doesn't fit them is ignored by the JVM."""

    path: Path

    @classmethod
    def of(cls, java: str, jars: Path) -> Self:
        """Return the archive of this JVM for these jars."""
        program = Path(java).resolve()
        digest = sha256(f"{program} {program.stat().st_mtime_ns}".encode()).hexdigest()
        return cls(jars / f"classes-{digest[:12]}.jsa")

    @property
    def options(self) -> list[str]:
        """What makes a JVM use it, if it is there."""
        return [f"-XX:SharedArchiveFile={self.path}"] if self.path.exists() else []

    @contextmanager
    def making(self) -> Iterator[list[str]]:
        """Give options to a JVM that ends within the block: it uses the archive, or makes it if it isn't there.

        Where the folder can't be written nothing is made, and brokers start as slowly as before.
        """
        if self.path.exists() or not os.access(self.path.parent, os.W_OK):
            yield self.options
            return
        # Beside and renamed: several stacks may start at once, and none of them may read a half of it.
        scratch = self.path.with_name(f"{self.path.stem}-{os.getpid()}.new")
        try:
            # Other JVMs than HotSpot don't know it.
            yield ["-XX:+IgnoreUnrecognizedVMOptions", f"-XX:ArchiveClassesAtExit={scratch}"]
            if scratch.exists():
                scratch.rename(self.path)
        finally:
            scratch.unlink(missing_ok=True)
