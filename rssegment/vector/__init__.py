"""Label rasters to polygons: trace each block, join the seams, attribute the regions.

>>> from rssegment.vector.attributes import attributes
>>> traces = [trace_block(read(block.core), block.core) for block in blocks]  # doctest: +SKIP
>>> regions = join(traces)                                                    # doctest: +SKIP
>>> for chunk in regions.chunks():                                            # doctest: +SKIP
...     polygons = chunk.to_shapely(geobox.affine)
...     columns = attributes(chunk, taxonomy, geobox.affine, str(geobox.crs))
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import BlockGrid
from rssegment.vector.join import join
from rssegment.vector.regions import Regions
from rssegment.vector.trace import BlockTrace, trace_block

__all__ = [
    "BlockTrace",
    "Regions",
    "join",
    "trace_block",
    "trace_raster",
]


def trace_raster(
    labels: NDArray[Any],
    block: int = 1024,
    connectivity: int = 4,
    confidence: NDArray[np.uint8] | None = None,
    *,
    valid: bool = True,
) -> Regions:
    """Regions of the array ``labels`` (H, W), uint8 or uint16, 0 for no data, traced in blocks of side ``block`` px.

    The result does not depend on ``block``; see :func:`trace_block` and :func:`join`.
    """
    grid = BlockGrid((labels.shape[0], labels.shape[1]), block)
    cores = [each.core for each in grid]
    traces = [
        trace_block(
            labels[core.slices], core, connectivity, None if confidence is None else confidence[core.slices]
        )
        for core in cores
    ]
    return join(traces, connectivity, valid=valid)
