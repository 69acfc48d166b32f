from collections.abc import Iterator

import pytest

from workers import cluster


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[cluster.Resources]:
    """A Ray cluster on this machine, shared by the tests of a file."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("RAY_ADDRESS", raising=False)
        with cluster.connected() as resources:
            yield resources
