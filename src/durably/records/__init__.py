"""What the ledger knows, as frozen records: runs, calls, what people decide, who works.

Pure data; the ledger makes them from rows, everything above reads them.
"""

from durably.records.calls import (
    WAIT_KINDS,
    CallPosition,
    Effect,
    Signal,
)
from durably.records.operating import (
    DueRecord,
    Finding,
    FindingStatus,
    QueueRecord,
    QueueSetting,
    WorkerRecord,
)
from durably.records.people import (
    INBOX_KINDS,
    Decision,
    InboxItem,
    Notice,
    Waiting,
)
from durably.records.runs import (
    LINE_KINDS,
    ON_BUSY,
    Attempt,
    Claim,
    Cost,
    EarlierRun,
    Event,
    HeldRun,
    Json,
    NewRun,
    RunInput,
    RunRecord,
    Steer,
    StoredMessage,
)

__all__ = [
    "INBOX_KINDS",
    "LINE_KINDS",
    "ON_BUSY",
    "WAIT_KINDS",
    "Attempt",
    "CallPosition",
    "Claim",
    "Cost",
    "Decision",
    "DueRecord",
    "EarlierRun",
    "Effect",
    "Event",
    "Finding",
    "FindingStatus",
    "HeldRun",
    "InboxItem",
    "Json",
    "NewRun",
    "Notice",
    "QueueRecord",
    "QueueSetting",
    "RunInput",
    "RunRecord",
    "Signal",
    "Steer",
    "StoredMessage",
    "Waiting",
    "WorkerRecord",
]
