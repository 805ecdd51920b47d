"""The words that the guards of the semantic cache know, in English and Chinese."""

from collections.abc import Iterator

_FUNCTION = """
    a an the this that these those there here i me my mine we us our you your he him his she her it
    its they them their is are am was were be been being do does did done have has had having can
    could will would shall should may might must of at by for in on to from with about as into and
    or but if so then than what which who whom whose when where why how please hi hello hey thanks
    thank just also too very really some any i'm i've i'd i'll it's what's where's how's that's
    there's you're we're they're let's ok okay tell know want need like get got
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())
_NEGATIONS = """
    not no never none nobody nothing neither nor cannot without unable cant dont doesnt didnt isnt
    wasnt wont wouldnt shouldnt couldnt havent hasnt hardly
"""
NEGATIONS = frozenset(_NEGATIONS.split())

_ONES = "zero . two three four five six seven eight nine ten eleven twelve thirteen fourteen"
_ONES += " fifteen sixteen seventeen eighteen nineteen twenty"
_TENS = "thirty forty fifty sixty seventy eighty ninety hundred"
NUMBER_WORDS = {word: float(n) for n, word in enumerate(_ONES.split()) if word != "."}
NUMBER_WORDS |= {word: 10.0 * n for n, word in enumerate(_TENS.split(), 3)}
NUMBER_WORDS |= {"thousand": 1e3, "million": 1e6, "billion": 1e9, "twice": 2.0, "double": 2.0}
NUMBER_WORDS |= {"half": 0.5, "dozen": 12.0, "triple": 3.0}

_UNITS = """
second: s sec secs second seconds 秒
minute: min mins minute minutes 分
hour: h hr hrs hour hours 时 小时
day: day days 天 日
week: week weeks 周
month: month months 月
year: year years 年 岁
percent: % percent pct
dollar: $ usd dollar dollars 美
euro: € eur euro euros
pound: £ gbp pound pounds quid
yuan: ¥ cny rmb yuan 元
metre: m metre metres meter meters 米
kilometre: km kilometre kilometres kilometer kilometers 里
mile: mile miles
kilogram: kg kilogram kilograms
gram: g gram grams 克
degree: ° degree degrees 度
gigabyte: gb gigabyte gigabytes
megabyte: mb megabyte megabytes
kilobyte: kb kilobyte kilobytes
time: time times 次
"""
UNITS = {
    word: name
    for name, words in (line.split(": ") for line in _UNITS.strip().splitlines())
    for word in words.split()
}

_DATES = """
january jan 一月, february feb 二月, march, april apr, may-, june jun, july jul, august aug,
september sep sept, october oct, november nov, december dec, monday mon 周一 星期一, tuesday tue 周二
星期二, wednesday wed 周三 星期三, thursday thu 周四 星期四, friday fri 周五 星期五, saturday sat 周六 星期六,
sunday sun 周日 星期日 星期天, today tonight 今天 今日, yesterday 昨天 昨日, tomorrow 明天 明日, 后天, 前天,
weekend weekends 周末, weekday weekdays 工作日, 去年, 今年, 明年, 上周, 本周 这周, 下周, 上个月 上月, 本月 这个月,
下个月 下月, midnight 午夜, noon 中午, morning 早上 上午, evening 晚上, afternoon 下午
"""
DATES = {
    word: group.split()[0]
    for group in _DATES.replace("\n", " ").split(",")
    for word in group.split()
}

_OPPOSITES = """
on/off up/down top/bottom in/out more/less,fewer most/least before/after with/without open/close,closed,shut
first/last new/old max/min maximum/minimum increase/decrease,reduce,lower raise/lower high/low higher/lower
highest/lowest buy/sell send/receive sent/received sending/receiving add/remove,delete,subtract adding/removing
added/removed start/stop,end begin/end,finish incoming/outgoing deposit/withdraw,withdrawal
deposits/withdrawals deposited/withdrew,withdrawn win/lose accept/reject,decline,refuse accepted/rejected,declined,refused
allow/forbid,deny,block,prohibit allowed/forbidden,denied,blocked,prohibited can/cannot always/never
upload/download import/export login/logout push/pull early/late earlier/later fast/slow faster/slower
cheap/expensive cheaper/dearer good/bad better/worse best/worst true/false yes/no left/right
inside/outside internal/external domestic/foreign,international arrive/depart,leave arrival/departure
lend/borrow lent/borrowed give/take large/small larger/smaller big/small bigger/smaller long/short
longer/shorter hot/cold full/empty rise/fall enter/exit,leave encrypt/decrypt public/private
debit/credit debited/credited pass/fail passed/failed show/hide above/below over/under success/failure
succeed/fail create/delete,destroy grant/revoke agree/disagree legal/illegal safe/dangerous,unsafe
male/female men/women same/different join/leave include/exclude including/excluding plus/minus
front/back north/south east/west positive/negative profit/loss hire/fire find/lose found/lost
all/none many/few everything/nothing ascending/descending horizontal/vertical wet/dry weak/strong
physical/virtual cash/cheque,check,card single/multiple,double permanent/temporary mandatory/optional required/optional
asked/answered question/answer employer/employee landlord/tenant buyer/seller sender/receiver,recipient
student/teacher parent/child manual/automatic manually/automatically online/offline breakfast/dinner
"""


def _opposites() -> Iterator[tuple[str, str]]:
    for pair in _OPPOSITES.split():
        left, right = pair.split("/")
        for word in right.split(","):
            yield left, word
            yield word, left


OPPOSITES: dict[str, frozenset[str]] = {}
for _word, _other in _opposites():
    OPPOSITES[_word] = OPPOSITES.get(_word, frozenset()) | {_other}
# Words that turn what is asked for into its end: a question with one is not like one without
_REVERSING = "stop cancel disable undo prevent avoid 停止 取消 禁用 撤销 防止 避免"
REVERSING = frozenset(_REVERSING.split())
PREFIXES = ("un", "in", "im", "ir", "il", "dis", "de", "non", "mis", "anti", "in-", "non-")

CHINESE_OPPOSITES = (
    ("开启", "关闭"), ("打开", "关闭"), ("启用", "停用"), ("启用", "禁用"), ("允许", "禁止"),
    ("增加", "减少"), ("提高", "降低"), ("上升", "下降"), ("最大", "最小"), ("最高", "最低"),
    ("最多", "最少"), ("之前", "之后"), ("以前", "以后"), ("收入", "支出"), ("存款", "取款"),
    ("存", "取"), ("买", "卖"), ("借", "还"), ("收", "发"), ("国内", "国外"), ("上传", "下载"),
    ("登录", "退出"), ("开通", "注销"), ("添加", "删除"), ("进口", "出口"), ("左", "右"),
    ("男", "女"), ("新", "旧"), ("大", "小"), ("多", "少"), ("高", "低"), ("快", "慢"),
    ("早", "晚"), ("长", "短"), ("前", "后"), ("上", "下"), ("里", "外"), ("开", "关"),
    ("升", "降"), ("加", "减"), ("赢", "输"), ("安全", "危险"), ("接受", "拒绝"), ("公开", "私密"),
    ("甲", "乙"), ("入", "出"), ("冷", "热"), ("成功", "失败"), ("线上", "线下"), ("在线", "离线"),
)  # fmt: skip

LANGUAGES = {
    name: frozenset(words.split())
    for name, words in {
        "english": "the is are my i to of and how what can do in for it you a why when where not",
        "german": "der die das ist und ich mein meine wie was kann nicht ein eine zu mit für wo",
        "french": "le la les est et je mon ma mes comment que quoi puis pas un une des avec pour où",
        "spanish": "el la los las es y mi mis cómo como qué que puedo no un una con para por dónde",
        "italian": "il la gli è e mio mia come che cosa posso non un una con per dove di",
        "portuguese": "o a os as é e meu minha como que posso não um uma com para por onde",
        "dutch": "de het een is en ik mijn hoe wat kan niet met voor waar van",
    }.items()
}
