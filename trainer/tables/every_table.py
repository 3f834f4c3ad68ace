"""Lists every table. Their modules import training libraries only inside functions, so that `--help` is fast."""

from __future__ import annotations

from trainer.tables.cmc_categories import CMC_CATEGORIES
from trainer.tables.ddt import DDT
from trainer.tables.hdcl import HDCL_HARDEST, HDCL_RECOGNITION, HDCL_RETRIEVAL
from trainer.tables.mffg import MFFG_HEADS
from trainer.tables.retrieval_protocol import RETRIEVAL_PROTOCOL
from trainer.tables.rpc_checkout import RPC_CHECKOUT
from trainer.tables.scda import SCDA
from trainer.tables.table import Table
from trainer.tables.veri import VERI

TABLES: tuple[Table, ...] = (
    CMC_CATEGORIES,
    RPC_CHECKOUT,
    HDCL_RETRIEVAL,
    HDCL_HARDEST,
    HDCL_RECOGNITION,
    MFFG_HEADS,
    RETRIEVAL_PROTOCOL,
    VERI,
    SCDA,
    DDT,
)
