"""Which evidence of an alliance speaks to which legal duty, and what it leaves open.

A table for readers, not advice: no row says that a duty is met. Articles as in force in 2025.

Source:
    Personal Information Protection Law of the People's Republic of China (2021); Regulation (EU)
    2016/679; GB/T 35273-2020, Information security technology, Personal information security
    specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["OBLIGATIONS", "Obligation"]


@dataclass(frozen=True, slots=True)
class Obligation:
    """One row; every text in English and in Chinese.

    Args:
        law: and article or item.
        duty: what it asks.
        evidence: what in the bundle speaks to it.
        open_: what the bundle does not show.
    """

    law: tuple[str, str]
    duty: tuple[str, str]
    evidence: tuple[str, str]
    open_: tuple[str, str]


OBLIGATIONS: Final = (
    Obligation(
        ("PIPL Art. 6", "《个人信息保护法》第六条"),
        (
            "clear and reasonable purpose; least impact; only what the purpose needs",
            "目的明确、合理；影响最小；限于实现目的的最小范围",
        ),
        (
            (
                "the signed terms fix one purpose, the columns and the rows per consumer; every "
                "masked contribution was logged before it left"
            ),
            "签名条款固定目的、字段与每人行数；每份带掩码的贡献在离开前已入账",
        ),
        (
            "whether purpose and columns are justified and necessary; that nothing else left",
            "目的是否正当、字段是否必需，以及是否无其他内容外传",
        ),
    ),
    Obligation(
        ("PIPL Art. 13", "《个人信息保护法》第十三条"),
        (
            "a legal basis for processing, such as consent or a contract",
            "处理须有合法性基础，如同意或订立、履行合同所必需",
        ),
        (
            (
                "each member's own recorded decision to take part, by study: consent here means "
                "the institution's, never the consumer's"
            ),
            "各成员对每项研究的参与决定；此处“同意”指机构，不指消费者本人",
        ),
        (
            "the consumers' consent, or any other basis that a member relies on",
            "消费者的同意或成员所依据的其他合法性基础",
        ),
    ),
    Obligation(
        ("PIPL Art. 23", "《个人信息保护法》第二十三条"),
        (
            (
                "informing consumers and separate consent where personal information is provided "
                "to another handler"
            ),
            "向其他处理者提供个人信息的，须告知并取得单独同意",
        ),
        (
            (
                "what left each member, when, and how strongly it is masked and noised: an "
                "assessment whether personal information was provided can start from it"
            ),
            "离开成员的内容、时间及掩码与噪声强度，可作为判断是否构成“提供”的依据",
        ),
        (
            "whether what left is personal information in law: that is for counsel to decide",
            "所离开内容在法律上是否属于个人信息，须由法律人员判断",
        ),
    ),
    Obligation(
        ("PIPL Art. 24", "《个人信息保护法》第二十四条"),
        (
            (
                "transparent and fair automated decisions; no unreasonable differences in terms; "
                "a way to decline"
            ),
            "自动化决策透明、公平公正；不得实行不合理的差别待遇；提供拒绝方式",
        ),
        (
            "the passport: which data contract, recipe and members a model comes from",
            "护照：模型所据的数据约定、方法与成员",
        ),
        (
            "how a member uses the model, and whether its outcomes are fair",
            "成员如何使用模型、结果是否公平",
        ),
    ),
    Obligation(
        ("PIPL Art. 51", "《个人信息保护法》第五十一条"),
        (
            "internal rules, classification, encryption, de-identification and other measures",
            "内部制度、分类管理、加密与去标识化等技术措施",
        ),
        (
            (
                "secure aggregation and noise of known size, recomputed here; budgets with "
                "limits that each member sets, folded again here"
            ),
            "安全聚合与已知强度的噪声（本次重算）；成员自设额度的预算（本次重演）",
        ),
        (
            "organisation, access rights, training and plans for incidents at each member",
            "各成员的组织、权限、培训与应急预案",
        ),
    ),
    Obligation(
        ("PIPL Art. 54", "《个人信息保护法》第五十四条"),
        ("regular audits of compliance", "定期合规审计"),
        (
            "this audit can be repeated by anybody who has the folder, at any time, offline",
            "持有该文件夹者可随时离线重复本次审计",
        ),
        (
            "everything outside of the alliance's computations",
            "联盟计算以外的一切处理活动",
        ),
    ),
    Obligation(
        ("PIPL Art. 55, 56", "《个人信息保护法》第五十五、五十六条"),
        (
            (
                "an impact assessment before certain processing; its report and records of "
                "processing kept for at least three years"
            ),
            "特定处理前进行影响评估；评估报告与处理情况记录至少保存三年",
        ),
        (
            (
                "the risk to one consumer as a number, before (projection at consent) and after "
                "(what was spent); append-only records"
            ),
            "以数字表示的单个消费者风险：事前（同意时的预估）与事后（实际花费）；只增记录",
        ),
        (
            "the assessment itself, and that records are kept long enough",
            "评估本身，以及记录是否保存足够期限",
        ),
    ),
    Obligation(
        ("GDPR Art. 5(1)(b), (c)", "GDPR 第5条第1款(b)(c)项"),
        ("purpose limitation and data minimisation", "目的限制与数据最小化"),
        (
            "as for PIPL Art. 6; releases are sums, and post-processing of them",
            "同《个人信息保护法》第六条；发布的仅为总和及其后处理",
        ),
        (
            "compatibility of the purpose with that of collection",
            "目的与收集时目的是否相容",
        ),
    ),
    Obligation(
        ("GDPR Art. 5(1)(f), 32", "GDPR 第5条第1款(f)项、第32条"),
        (
            "integrity, confidentiality and security, tested regularly",
            "完整性、保密性与处理安全，并定期测试",
        ),
        (
            (
                "signed, append-only logs that members witness; masked contributions; drawn "
                "rounds added again"
            ),
            "签名、只增且由成员见证的账本；带掩码的贡献；抽轮重加",
        ),
        ("the security of hosts, networks and people", "主机、网络与人员的安全"),
    ),
    Obligation(
        ("GDPR Art. 5(2)", "GDPR 第5条第2款"),
        ("accountability: to be able to demonstrate", "问责：能够证明"),
        ("the bundle and this report", "本证据包与本报告"),
        ("principles that no computation shows", "无法由计算体现的原则"),
    ),
    Obligation(
        ("GDPR Art. 25", "GDPR 第25条"),
        ("data protection by design and by default", "通过设计与默认方式保护数据"),
        (
            (
                "guarantees fixed in terms before data is touched; a member refuses what its "
                "policy and budget do not cover, and refusals are logged"
            ),
            "接触数据之前即以条款固定保证；超出政策与预算的请求被拒并入账",
        ),
        ("whether the measures are appropriate to the risk", "措施是否与风险相称"),
    ),
    Obligation(
        ("GDPR Art. 30", "GDPR 第30条"),
        ("records of processing activities", "处理活动记录"),
        (
            "purposes, parties, categories of data (columns) and measures, by study",
            "按研究列明目的、参与方、数据类别（字段）与措施",
        ),
        (
            "contacts, retention periods, transfers and processing outside of the alliance",
            "联系人、保存期限、跨境传输与联盟之外的处理",
        ),
    ),
    Obligation(
        ("GDPR Art. 35", "GDPR 第35条"),
        ("a data protection impact assessment", "数据保护影响评估"),
        (
            "the figures for its description of risk: epsilon by members that know a consumer",
            "可用于风险描述的数字：按知悉消费者的成员数列出的 epsilon",
        ),
        ("necessity, proportionality and consultation", "必要性、相称性与征询意见"),
    ),
    Obligation(
        ("GB/T 35273-2020, 5.2", "GB/T 35273-2020 第5.2条"),
        ("minimum necessary collection", "收集个人信息的最小必要"),
        (
            "the data contract in the terms: the columns, and a bound on rows per consumer",
            "条款中的数据约定：字段范围与每人行数上限",
        ),
        (
            "how the data was collected, and that a member read no more",
            "数据最初如何收集，以及成员是否未读取更多",
        ),
    ),
    Obligation(
        ("GB/T 35273-2020, 6.2", "GB/T 35273-2020 第6.2条"),
        ("de-identification after collection", "收集后的去标识化处理"),
        (
            "what is recorded as leaving a member are masked vectors without identifiers",
            "记录在案的外传内容为不含标识的带掩码向量",
        ),
        ("de-identification in a member's own storage", "成员自身存储中的去标识化"),
    ),
    Obligation(
        ("GB/T 35273-2020, 7.3", "GB/T 35273-2020 第7.3条"),
        ("use limited to the purpose", "使用目的限制"),
        ("terms bind every contribution to one study", "条款将每份贡献限于一项研究"),
        ("use of published models", "已发布模型的使用"),
    ),
    Obligation(
        ("GB/T 35273-2020, 9.1, 9.2, 9.6", "GB/T 35273-2020 第9.1、9.2、9.6条"),
        (
            "entrusted processing, sharing, joint controllers: assessment, agreement, records",
            "委托处理、共享、共同控制者：评估、约定与记录",
        ),
        (
            "signed acceptances of the same terms by all members; records of every attempt",
            "全体成员对同一条款的签名接受书；每次尝试的记录",
        ),
        (
            "contracts between the parties, and which of these roles each of them has",
            "各方合同及其在法律上的角色",
        ),
    ),
    Obligation(
        ("GB/T 35273-2020, 11.3, 11.7", "GB/T 35273-2020 第11.3、11.7条"),
        (
            "records of processing; security audits whose records resist tampering",
            "处理活动记录；安全审计，防止审计记录被篡改",
        ),
        (
            "any entry dropped, inserted, moved or edited is found; heads are cosigned",
            "任何记录的删除、插入、移动或修改均可发现；账本头由多方共签",
        ),
        ("processing that is in no log of the alliance", "联盟账本之外的处理"),
    ),
)
