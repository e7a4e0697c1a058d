"""The narrow domain of preset `demo`: outings, appointments, transport, weather, small errands.

A grammar of our own (see grammar.py for the notation). `$` is the tense (P past, F present or
future) in clauses, the macro of the last verb (FIN_P, FIN_F, TE) in VP, and the verb in those
macros. Four pairs are true homophones, with the same pitch accent too, that only the words AFTER
them decide: 公園 (walk) / 講演 (listen), 川 (cross) / 皮 (peel), 紙 (read, buy) / 髪 (wash),
早い (hour) / 速い (vehicle). A day is followed by a particle: Open JTalk misreads bare
neighbours such as 明日家 or 朝店. Avoided because it reads them otherwise: 十分 (ジューブン),
五分 (ゴブ), 降り (オリ).
"""

from __future__ import annotations

from collections.abc import Sequence

from open_corpus.grammar import Alternative, Grammar

__all__ = ["HOMOPHONES", "demo_grammar"]

HOMOPHONES = (("公園", "講演"), ("川", "皮"), ("紙", "髪"), ("早い", "速い"))
"""Written pairs of one sound; each is decided by a later word only."""

# Verb: conjunctive (I), te-form (E), past (A), dictionary (D), negative (N).
_VERBS = {
    "GO": ("[行|い]き", "[行|い]って", "[行|い]った", "[行|い]く", "[行|い]かない"),
    "RETURN": ("[帰|かえ]り", "[帰|かえ]って", "[帰|かえ]った", "[帰|かえ]る", "[帰|かえ]らない"),
    "MEET": ("[会|あ]い", "[会|あ]って", "[会|あ]った", "[会|あ]う", "[会|あ]わない"),
    "WAIT": ("[待|ま]ち", "[待|ま]って", "[待|ま]った", "[待|ま]つ", "[待|ま]たない"),
    "BUY": ("[買|か]い", "[買|か]って", "[買|か]った", "[買|か]う", "[買|か]わない"),
    "EAT": ("[食|た]べ", "[食|た]べて", "[食|た]べた", "[食|た]べる", "[食|た]べない"),
    "READ": ("[読|よ]み", "[読|よ]んで", "[読|よ]んだ", "[読|よ]む", "[読|よ]まない"),
    "SEE": ("[見|み]", "[見|み]て", "[見|み]た", "[見|み]る", "[見|み]ない"),
    "RIDE": ("[乗|の]り", "[乗|の]って", "[乗|の]った", "[乗|の]る", "[乗|の]らない"),
    "WALK": ("[歩|ある]き", "[歩|ある]いて", "[歩|ある]いた", "[歩|ある]く", "[歩|ある]かない"),
    "LISTEN": ("[聞|き]き", "[聞|き]いて", "[聞|き]いた", "[聞|き]く", "[聞|き]かない"),
    "CROSS": ("[渡|わた]り", "[渡|わた]って", "[渡|わた]った", "[渡|わた]る", "[渡|わた]らない"),
    "PEEL": ("むき", "むいて", "むいた", "むく", "むかない"),
    "WASH": ("[洗|あら]い", "[洗|あら]って", "[洗|あら]った", "[洗|あら]う", "[洗|あら]わない"),
}

_ENDINGS: dict[str, Sequence[Alternative]] = {
    "FIN_P": [
        (7, "{$.I}ました"),
        (2, "{$.I}ませんでした"),
        (1, "{$.D}ことにしました"),
        (1, "{$.I}たかったです"),
        (1, "{$.A}と[思|おも]います"),
        (1, "{$.I}ましたか"),
        (1.5, "{$.I}ましたよ"),
    ],
    "FIN_F": [
        (4, "{$.I}ます"),
        (1.5, "{$.I}ますよ"),
        (1.5, "{$.I}ません"),
        (1, "{$.I}ませんか"),
        (1.5, "{$.I}ましょう"),
        (2, "{$.I}たいです"),
        (1, "{$.I}たいと[思|おも]います"),
        (1.5, "{$.D}つもりです"),
        (1, "{$.N}つもりです"),
        (1, "{$.D}と[思|おも]います"),
        (1, "{$.N}と[思|おも]います"),
        (2.5, "{$.E}ください"),
    ],
    "TE": ["{$.E}"],
}

_DIGITS = {
    "一": "いち",
    "二": "に",
    "三": "さん",
    "四": "よん",
    "五": "ご",
    "六": "ろく",
    "七": "なな",
    "八": "はち",
    "九": "きゅう",
    "十": "じゅう",
}


def _counted(counter: str, reading: str, digits: str, **special: str) -> list[Alternative]:
    """Numbers with a counter; `special` readings of a digit before it."""
    readings = _DIGITS | special
    return [f"[{digit}{counter}|{readings[digit]}{reading}]" for digit in digits]


_NUMBERS: dict[str, Sequence[Alternative]] = {
    "WEEK": [
        *("[月曜日|げつようび]", "[火曜日|かようび]", "[水曜日|すいようび]", "[木曜日|もくようび]"),
        *("[金曜日|きんようび]", "[土曜日|どようび]", "[日曜日|にちようび]"),
    ],
    "HOUR": _counted("時", "じ", "一二三四五六七八九十", 四="よ", 七="しち", 九="く"),
    "TIME": [(2, "{HOUR}"), (1, "{HOUR}[半|はん]")],
    "DURATION": [
        # Fewer hours than minutes, so that 分 is not rare.
        *("[二十分|にじゅっぷん]", "[三十分|さんじゅっぷん]", "[四十分|よんじゅっぷん]"),
        *("[五十分|ごじゅっぷん]", "[一時間|いちじかん]", "[二時間|にじかん]", "[四時間|よじかん]"),
    ],
    "PEOPLE": _counted("人", "にん", "三四五六七八九", 四="よ", 七="しち"),
    "SHEETS": _counted("枚", "まい", "一二三四五六七八九十"),
}

_NOUNS: dict[str, Sequence[Alternative]] = {
    "TODAY_P": ["[昨日|きのう]", "{WEEK}"],
    "TODAY_F": ["[明日|あした]", "[今日|きょう]", (1.5, "{WEEK}")],
    "WHEN_P": [
        (2, "[昨日|きのう][は|わ]"),
        (1, "{TODAY_P}の[朝|あさ][は|わ]"),
        (1, "{TODAY_P}の[夜|よる][は|わ]"),
        (3.5, "{TODAY_P}の{TIME}に"),
        (1, "{WEEK}に"),
        (1, "[今日|きょう]の[朝|あさ][は|わ]"),
    ],
    "WHEN_F": [
        (2, "[明日|あした][は|わ]"),
        (1, "{TODAY_F}の[朝|あさ][は|わ]"),
        (1, "{TODAY_F}の[夜|よる][は|わ]"),
        (3.5, "{TODAY_F}の{TIME}に"),
        (1, "{WEEK}に"),
    ],
    "NEAR": ["[駅|えき]", "[家|いえ]", "ホテル"],
    "FAR": ["[海|うみ]", "[山|やま]", "[店|みせ]"],
    "PLACE": ["{NEAR}", "{FAR}"],
    "PERSON": ["[友達|ともだち]", "[母|はは]", "[先生|せんせい]"],
    "WITH": [
        (4, ""),
        (2, "{PERSON}と"),
        (2.5, "{PEOPLE}で"),
        (0.5, "[一人|ひとり]で"),
        (0.5, "みんなで"),
    ],
    "VIEW": ["[海|うみ]", "[山|やま]", "[雪|ゆき]"],
    "VEHICLE": ["[電車|でんしゃ]", "バス", "[車|くるま]"],
    "FOOD": ["パン", "[魚|さかな]"],
    "CONNECTIVE": ["でも", "だから", (3.3, "それから"), "そして", (3.5, "わたし[は|わ]")],
    # What stands between a homophone and the verb that decides it.
    "MID": [
        (1.5, ""),
        (2, "ゆっくり"),
        (1.5, "{PERSON}と"),
        (1, "みんなで"),
        (1.9, "すこしだけ"),
        (1, "{PERSON}とゆっくり"),
    ],
}

_PHRASES: dict[str, Sequence[Alternative]] = {
    "VP": [(5, "{WITH}{PLAIN:$}"), (5, "{HOMOPHONE:$}")],
    "PLAIN": [
        (1.5, "{PLACE}に{$:GO}"),
        (1, "{VEHICLE}で{FAR}に{$:GO}"),
        (2, "{FAR}から{VEHICLE}で{$:RETURN}"),
        (2.1, "{PLACE}で{PERSON}に{$:MEET}"),
        (2.9, "{PLACE}で{PERSON}を{$:WAIT}"),
        (2, "[店|みせ]で{FOOD}を{$:BUY}"),
        (2, "{NEAR}で{FOOD}を{$:EAT}"),
        (2.1, "{NEAR}で[本|ほん]を{$:READ}"),
        (2.5, "{NEAR}から{VIEW}を{$:SEE}"),
        (1.5, "{TIME}の{VEHICLE}に{$:RIDE}"),
    ],
    "HOMOPHONE": [
        "[公園|こうえん]を{MID}{$:WALK}",
        "[講演|こうえん]を{MID}{$:LISTEN}",
        "[川|かわ]を{MID}{$:CROSS}",
        "[皮|かわ]を{MID}{$:PEEL}",
        (0.5, "[紙|かみ]を{MID}{$:READ}"),
        (1.3, "[紙|かみ]を{SHEETS}{$:BUY}"),
        (1.2, "[髪|かみ]を{MID}{$:WASH}"),
        (1.15, "もっと[早|はや]い[時間|じかん]の{VEHICLE}に{$:RIDE}"),
        (1.15, "もっと[速|はや]い{VEHICLE}に{$:RIDE}"),
    ],
    "RAIN": [(3, "[雨|あめ]"), (1.8, "[雪|ゆき]")],
    "WEATHER_P": [
        "{RAIN}が[降|ふ]っていました",
        "{RAIN}でした",
        "[天気|てんき]がよかったです",
        "とても[寒|さむ]かったです",
        "とても[暑|あつ]かったです",
    ],
    "WEATHER_F": [
        "{RAIN}が[降|ふ]ると[思|おも]います",
        "{RAIN}が[降|ふ]らないでしょう",
        "[天気|てんき]がいいでしょう",
        "とても[寒|さむ]いです",
        "もっと[寒|さむ]くなります",
        "とても[暑|あつ]いです",
        "もっと[暑|あつ]くなります",
    ],
    "REASON_P": [
        "{RAIN}が[降|ふ]っていたので",
        (1.3, "[天気|てんき]がよかったので"),
        "[寒|さむ]かったので",
        "[暑|あつ]かったので",
        (1.6, "{PERSON}が[来|き]たので"),
        (1.6, "{PERSON}が[来|こ]なかったので"),
    ],
    "REASON_F": [
        "{RAIN}が[降|ふ]ったら",
        (1.3, "[天気|てんき]がよかったら"),
        "[寒|さむ]いので",
        "[暑|あつ]いので",
        (1.6, "{PERSON}が[来|き]たら"),
        (1.6, "{PERSON}が[来|く]るので"),
    ],
    "TAKES": ["かかります", "かかりました", "かかると[思|おも]います"],
}

_SENTENCES: dict[str, Sequence[Alternative]] = {
    "CLAUSE": ["{WHEN_$}{VP:FIN_$}"],
    "S_TENSE": [
        (8, "{CLAUSE:$}"),
        (3, "{CONNECTIVE}{CLAUSE:$}"),
        (1.5, "{TODAY_$}[は|わ]{WEATHER_$}"),
        (1, "{TODAY_$}[は|わ]{FAR}で{WEATHER_$}"),
        (2.5, "{TODAY_$}[は|わ]{REASON_$}、{VP:FIN_$}"),
        (1.5, "{WHEN_$}{VP:TE}から、{VP:FIN_$}"),
    ],
    "TRANSIT": [
        "{NEAR}から{FAR}まで{VEHICLE}で{DURATION}{TAKES}",
        "{NEAR}から{FAR}まで[歩|ある]いて{DURATION}{TAKES}",
    ],
    "S": [(9, "{S_TENSE:P}"), (10, "{S_TENSE:F}"), (2.2, "{TRANSIT}")],
}


def demo_grammar() -> Grammar:
    """The grammar of preset `demo`, start symbol `S`."""
    forms = {
        f"{verb}.{form}": [written]
        for verb, written_forms in _VERBS.items()
        for form, written in zip("IEADN", written_forms)
    }
    return Grammar(forms | _ENDINGS | _NUMBERS | _NOUNS | _PHRASES | _SENTENCES)
