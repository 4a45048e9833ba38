"""What an audit says: the numbered checks, what was found, and what bytes cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

__all__ = ["CHECKS", "Check", "Finding", "Findings"]

MOST_FINDINGS: Final = 1000
"""Kept; more of them say nothing new, and are counted."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the auditor's list.

    Args:
        title: what is checked.
        title_zh: the same in Chinese.
        meaning: what it means if it does not hold.
        meaning_zh: the same in Chinese.
        unit: what is counted.
    """

    title: str
    title_zh: str
    meaning: str
    meaning_zh: str
    unit: str


# The auditor's list. The numbers stand in findings, and beside the code that makes the check.
CHECKS: Final[Mapping[int, Check]] = MappingProxyType(
    {
        1: Check(
            "every file is the one the manifest names, none is missing, none was added",
            "每个文件与清单一致，无缺失、无增添",
            "the folder was changed after it was exported",
            "导出之后文件夹被改动过",
            "files",
        ),
        2: Check(
            "the manifest is signed by the ledger key of a log in the folder",
            "清单由文件夹内某一账本的密钥签名",
            "nobody known vouches for the folder",
            "没有已知的一方为该文件夹担保",
            "signatures",
        ),
        3: Check(
            "every entry is canonical, of a known kind and version; `opened` comes first and once",
            "每条记录均为规范编码、已知类型与版本；“opened”仅在首条",
            "the log holds what no program of the alliance writes",
            "账本含有联盟程序不会写入的内容",
            "entries",
        ),
        4: Check(
            "each log's signed head covers exactly its entries",
            "每本账本的签名头恰好覆盖其全部记录",
            "an entry was dropped, inserted, moved or edited, or the head is another log's",
            "有记录被删除、插入、移动或修改，或签名头属于另一账本",
            "heads",
        ),
        5: Check(
            "every other head of a log, in receipts, cosignatures, conflicts, papers, lies on it",
            "凭据、共签、冲突、护照中出现的其他签名头都位于该账本之上",
            "the log has two histories: it was rolled back, forked or rewritten",
            "该账本有两份历史：被回滚、分叉或改写",
            "heads",
        ),
        6: Check(
            "terms have the hash they are named by; acceptances are signed by roster identities",
            "条款与其哈希相符；接受书由名册身份密钥签名",
            "a member did not agree to these terms, or its ledger key is not its own",
            "成员并未同意该条款，或账本密钥并非其本人所有",
            "signatures",
        ),
        7: Check(
            "a quorum of the roster cosigned the coordinator's head, and members' reservations",
            "名册法定多数共签了协调方账本头与成员的预留",
            "too few witnesses saw this history before it was acted upon",
            "行动之前见证该历史的成员不足",
            "cosignatures",
        ),
        8: Check(
            "the coordinator's log is in order: proposal, acceptances, attempts, publications",
            "协调方账本次序正确：提案、接受、尝试、发布",
            "something happened before what must come before it, or twice",
            "某事发生在其前提之前，或发生了两次",
            "entries",
        ),
        9: Check(
            "contributions are signed by the members' identities, for that attempt and model",
            "每份贡献由成员身份密钥针对该尝试与模型签名",
            "the coordinator recorded what a member did not send",
            "协调方记录了成员并未发送的内容",
            "signatures",
        ),
        10: Check(
            "each member's log keeps to its own rule: consent before reservation before "
            "contribution, every limit kept, every cost recomputed, no spend after it left",
            "每个成员账本遵守自身规则：同意先于预留，预留先于贡献，额度不超，费用重算，退出后不再花费",
            "a member spent what its budget did not allow, or after it left",
            "成员超出了其预算，或在退出后仍有花费",
            "entries",
        ),
        11: Check(
            "every recorded epsilon is recomputed from its mechanism, by privacy loss "
            "distributions, and a second accountant is not below it",
            "每个记录的 epsilon 由机制重算（PLD），第二会计方法不低于它",
            "a guarantee was stated that the noise does not give",
            "所声明的保证并非噪声所能给出",
            "figures",
        ),
        12: Check(
            "every receipt proves that what left the member stands in the coordinator's log",
            "每张凭据证明离开成员的内容确在协调方账本中",
            "the coordinator told this member another history",
            "协调方向该成员讲述了另一份历史",
            "receipts",
        ),
        13: Check(
            "coordinator and members record the same contributions, and the same attempts",
            "协调方与成员记录了相同的贡献与尝试",
            "coordinator and member disagree on what was spent",
            "协调方与成员对花费的记录不一致",
            "contributions",
        ),
        14: Check(
            "published models and their passports are those that the log names",
            "已发布模型及其护照与账本所载一致",
            "a model is in use that the alliance did not publish, or under other papers",
            "正在使用的模型并非联盟发布，或证件不符",
            "models",
        ),
        15: Check(
            "rounds drawn at random are added again from their masked contributions",
            "随机抽取的轮次由带掩码的贡献重新求和",
            "the published sum is not the sum of the contributions",
            "发布的总和不是各贡献之和",
            "rounds",
        ),
        16: Check(
            "every release of a study is folded again, from the initial model to the published one",
            "从初始模型到发布模型，逐次重放每次发布",
            "a model does not follow from what was released: it holds something else",
            "模型并非由所发布的总和得出，含有其他内容",
            "releases",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold.

    Args:
        check: its number in `CHECKS`.
        file: in the folder.
        entry: index in a log, or line in another file, from 0; None where it is about all of it.
        what: one sentence.
    """

    check: int
    file: str
    entry: int | None
    what: str

    @property
    def meaning(self) -> str:
        """What follows if it is so."""
        return CHECKS[self.check].meaning

    def sentence(self) -> str:
        """File, entry, what was found and what it means."""
        where = self.file if self.entry is None else f"{self.file} entry {self.entry}"
        return f"{where}: {self.what} [check {self.check}: {self.meaning}]"

    def document(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {
            "check": self.check,
            "file": self.file,
            "entry": self.entry,
            "what": self.what,
            "meaning": self.meaning,
        }


class Findings:
    """Collects what the checks say."""

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.more = 0
        self.counts: dict[int, int] = {}
        self._unchecked: dict[str, None] = {}

    def add(self, check: int, file: str, what: str, *, entry: int | None = None) -> None:
        """Something does not hold."""
        finding = Finding(check, file, entry, what[:600])
        if len(self.found) < MOST_FINDINGS:
            self.found.append(finding)
        else:
            self.more += 1

    def count(self, check: int, number: int = 1) -> None:
        """So many were looked at, whether they hold or not."""
        self.counts[check] = self.counts.get(check, 0) + number

    def cannot(self, sentence: str) -> None:
        """Something that these bytes do not show."""
        self._unchecked[sentence] = None

    @property
    def unchecked(self) -> tuple[str, ...]:
        """What these bytes do not show."""
        return tuple(self._unchecked)
