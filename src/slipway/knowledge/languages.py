"""Know the small words of languages that put spaces between words: those that ask, join or point.

A question in another language than English is recognised by them, and what is left of it is what it
is about. German and its neighbours join nouns ("Urlaubsanspruch"), and most languages bend words.
"""

import re
import unicodedata
from functools import lru_cache

_ENGLISH = """
    a an and any are as at be by can do does for from get has have how i if in is it me my no not of
    on or our should that the their there they this to was we what when where which who why will
    with you your
"""
_GERMAN = """
    ab aber alle als am an auch auf aus bei beim bin bis bitte da dafur damit darf das dass dazu dem
    den denn der des die dies diese diesen dieser doch du durch durfen ein eine einem einen einer
    eines er es euch fur gibt haben habe hat hatte hatten hoch ich ihnen ihr ihre im in ins ist ja
    jede jeden jeder kann kein keine konnen konnte lange man mein meine meinem meinen meiner mich mit
    muss mussen mir nach nicht noch nur ob oder oft ohne sein sich sie sind so soll sollen sollte uber
    um und uns unser unsere unter viel viele vom von vor wann war waren warum was weil welche welchem
    welchen welcher welches wem wen wenn wer werden weshalb wessen wie wieso will wir wird wo woher
    wohin womit wurde zu zum zur
"""
_DUTCH = """
    aan als bij dan dat de deze die dit een en er geen had heb hebben heeft hem het hij hoe
    hoeveel ik in is je kan kunnen lang maar me met mijn moet moeten naar niet of om onze ons op over
    te tot uit van veel voor waar waarom wanneer wat we welk welke wie word worden wordt zijn ze
"""
_SWEDISH = """
    alla att av bara de den det dig din du efter eller en er ett fran for far ha har hur i inte jag
    kan med men mig min mycket manga nar och om oss pa sa ska som till under ut vad vara var varfor
    vem vi vid vilka vilken vilket vill ar
"""
_FRENCH = """
    a ai ai-je aux au avec avoir avons c ce ces cet cette combien comment d dans de des doit dois dont
    du elle en est et etre faire faut il ils j je l la le les leur lui m ma mes mon n ne nos notre
    nous on ont ou par pas peut peux pour pourquoi puis qu quand que quel quelle quelles quels qui
    quoi s sa sans se ses si son sont sur t ta tes ton tu un une vers vos votre vous y
"""
_SPANISH = """
    a al algun alguna como con cual cuales cuando cuanta cuantas cuanto cuantos de debe debo deben del
    desde donde durante el ella en entre es esa ese esta estan estar este estos hacer hago hasta hay
    la las le les lo los mas me mi mis muy necesita necesito no nos nuestra nuestro o para pero por
    porque puede pueden puedo que quien quienes se ser si sin sobre son su sus tambien tener tengo
    tiene tienen tu tus u un una unas uno unos y ya
"""
_PORTUGUESE = """
    a ao aos as com como da das de deve devo do dos e ela ele em entre essa esse esta este eu ha isso
    mais mas me meu minha muito na nao nas no nos nossa nosso o onde os ou para pela pelo pode podem
    por porque posso preciso qual quais quando quanta quantas quanto quantos que quem se sem ser seu
    sobre sua sao tem tenho ter um uma voce
"""
_ITALIAN = """
    a al alla alle anche che chi ci come con cosa da dal dalla degli dei del della delle deve devo di
    dopo dove e gli ha hanno ho i il in io la le lo ma mi mia mio nei nel nella non o ogni per perche
    piu posso puo quale quali quando quanta quante quanti quanto se sia si sono su sua suo tra un una
    uno
"""
_ARABIC = """
    أن أو أي أين إلى إن التي الذي ذلك عن على عند في كان كل كم كيف لا لم لماذا لنا له لها لي ما ماذا متى مع من
    منذ هذا هذه هل هناك هو هي و يتم يجب يكون يمكن يمكنني
"""
_RUSSIAN = """
    а бы быть в вам вас во вы где для до если есть еще же за и из или их к как какая какие какой какое
    когда кому кто куда ли мне можно мой моя мы на надо нас наш не нет но нужно о об он она они от по
    почему при с сколько со так то у что чтобы это я
"""
_LISTS = {
    "english": _ENGLISH,
    "german": _GERMAN,
    "dutch": _DUTCH,
    "swedish": _SWEDISH,
    "french": _FRENCH,
    "spanish": _SPANISH,
    "portuguese": _PORTUGUESE,
    "italian": _ITALIAN,
    "arabic": _ARABIC,
    "russian": _RUSSIAN,
}
# Words that only a question begins with: one is enough to know its language, of others two
_ASKING_LIST = """
    wie wann wo wer wem warum wieso weshalb welche welchem welchen welcher welches wohin woher womit
    wanneer waar waarom hoeveel varfor vilken vilket vilka que cual cuales cuando donde como quien
    quienes cuanto cuanta cuantos cuantas quel quelle quels quelles quand comment pourquoi combien
    quando dove perche quale quali quanto quante quanti onde quem qual quais
"""
_ASKING = frozenset(_ASKING_LIST.split())
_NO_LATIN = frozenset(["arabic", "russian"])
_CLEAR = 2  # hits
_LONGEST = 1000  # characters of a question that are looked at
# Languages that write joined nouns as one word
JOINING = frozenset(["german", "dutch", "swedish"])
_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?!\w)")  # not the letters of a code such as `zq72d3`
_MARKS = re.compile("[\u0300-\u036f\u064b-\u0655\u0670]")
SHORTEST_PART, _SHORTEST_BENT = 4, 5  # letters of a noun in a joined one; of a word with an ending
_LONGEST_ENDING = 3


def without_accents(text: str) -> str:
    """Return the text as people type it without accents: `café` as `cafe`."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _MARKS.sub("", unicodedata.normalize("NFD", text)))


_SMALL = {language: frozenset(without_accents(words).split()) for language, words in _LISTS.items()}


def language_of(question: str) -> str:
    """Return the language whose small words a question has most of; English if that is unclear. The
    beginning of a long one tells.
    """
    return kept_language(question[:_LONGEST])


def _language_of(question: str) -> str:
    words = _WORD.findall(without_accents(question.lower()))
    hits = {
        name: sum(1 + (word in _ASKING) for word in words if word in small)
        for name, small in _SMALL.items()
    }
    best = max(hits, key=lambda name: (hits[name], name == "english"))
    is_clear = hits[best] >= _CLEAR or (hits[best] and best in _NO_LATIN)
    return best if is_clear else "english"


kept_language = lru_cache(1024)(_language_of)


def without_small_words(question: str, language: str) -> str:
    """Return the question with a space in place of its language's small words. English ones stay:
    the indexes know them.
    """
    if language == "english":
        return question
    small = _SMALL[language]

    def kept(found: re.Match[str]) -> str:
        return " " if without_accents(found[0].lower()) in small else found[0]

    return _WORD.sub(kept, question)


def is_form_of(word: str, term: str, *, joined: bool) -> bool:
    """Tell whether a word of a text is the term with another ending, or if `joined`, a noun that
    has the term at its beginning or end: "Jahresurlaub" for "Urlaub".
    """
    longer = len(term) >= SHORTEST_PART and len(word) >= len(term) + SHORTEST_PART - 1
    if joined and longer and (word.startswith(term) or word.endswith(term)):
        return True
    if len(term) < _SHORTEST_BENT or len(word) < _SHORTEST_BENT:
        return False
    same = next((n for n, (a, b) in enumerate(zip(word, term, strict=False)) if a != b), None)
    same = min(len(word), len(term)) if same is None else same
    return same >= _SHORTEST_BENT and max(len(word), len(term)) - same <= _LONGEST_ENDING
