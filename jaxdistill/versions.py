"""Installed versions of the packages that a run's bits may depend on."""

import importlib.metadata
import platform

from jaxdistill import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "tokenizers", "safetensors")


def version(package: str) -> str | None:
    """The installed version of a package, None when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """The versions of this package, of Python and of `PACKAGES`."""
    own = {"jaxdistill": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in PACKAGES}
