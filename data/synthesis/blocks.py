# SPDX-License-Identifier: MIT
"""What our stages are built from of datatrove, and the logger that it writes to, in one place."""

try:
    from datatrove.data import Document, DocumentsPipeline
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.filters.base_filter import BaseFilter
    from datatrove.pipeline.writers.disk_base import DiskWriter
    from loguru import logger
except ImportError as error:
    raise ImportError('synthesis needs datatrove: pip install -c constraints.txt -e ".[synthesis]"') from error

__all__ = ["BaseFilter", "DiskWriter", "Document", "DocumentsPipeline", "PipelineExecutor", "PipelineStep", "logger"]
