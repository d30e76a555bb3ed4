"""The language in which the course speaks: French, its own, or one that has catalogues.

What a reader sees stands in the code in French, in `tr` or `trn`. The folder of a language,
`locale/en/`, holds its gettext catalogues: `course_utils.po` for these messages, and one for each
notebook, from which `.ci/translate.py` makes its notebook of that language.
"""

import functools
import gettext
import io
import os
import re
import tokenize
from decimal import Decimal
from pathlib import Path

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import get_decimal_symbol, get_group_symbol

SOURCE = "fr"
CATALOGUES = Path(__file__).parent / "locale"


def languages():
    """Codes of all the languages of the course, French first."""
    return [SOURCE, *sorted(folder.name for folder in CATALOGUES.iterdir() if folder.is_dir())]


def language_name(language):
    """What a language calls itself: English, Français."""
    return Locale.parse(language).get_display_name().capitalize()


def spoken_here():
    """The language of the folder of the notebook that runs (`notebooks/en`), else of COURSE_LANG.

    Raises:
        ValueError: COURSE_LANG names another language than those of the course.
    """
    folder, asked = Path.cwd().name, os.environ.get("COURSE_LANG") or SOURCE
    if asked not in languages():
        raise ValueError(f"COURSE_LANG={asked!r}: expected one of {', '.join(languages())}")
    return folder if folder in languages() else asked


def catalogue(language, name):
    """The messages of a catalogue, as Babel reads them: `name`, of the package or a notebook."""
    with open(CATALOGUES / language / f"{name}.po", "rb") as file:
        return read_po(file, locale=language)


@functools.cache
def translations(language, name="course_utils"):
    """The same, ready to use and read once; French needs no catalogue."""
    if language == SOURCE:
        return gettext.NullTranslations()
    compiled = io.BytesIO()
    write_mo(compiled, catalogue(language, name))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


LANGUAGE = spoken_here()
_locale, _messages = Locale.parse(LANGUAGE), translations(LANGUAGE)
POINT = get_decimal_symbol(_locale)  # 0,5 or 0.5


def tr(message, /, **values):
    """A French message in the language spoken here, with its values, as `str.format` puts them."""
    text = _messages.gettext(message)
    return text.format(**values) if values else text


def N_(message):
    """Marks a message that is a name in the code, French in every language: `tr` shows it."""
    return message


def trn(one, many, count, /, **values):
    """The form of a message for this count, a number or its digits: in French, 1.5 is singular."""
    form = 1 if _locale.plural_form(abs(Decimal(str(count)))) == "one" else 2
    return _messages.ngettext(one, many, form).format(count=count, **values)


def decimal(value, digits=2):
    """A number as the language writes it: 0,25 or 0.25."""
    return f"{value:.{digits}f}".replace(".", POINT)


def thousands(number):
    """A whole number as the language writes it: 1 797, with a no-break space, or 1,797."""
    return f"{number:,}".replace(",", get_group_symbol(_locale).replace("\u202f", "\u00a0"))


# ---------------------------------------------------------------------------------------------
# Python source: its strings and its comments
# ---------------------------------------------------------------------------------------------

STRING = re.compile(r"(?P<open>[a-zA-Z]*('''|\"\"\"|'|\"))(?P<text>.*)(?P<close>\2)", re.DOTALL)
COMMENT = re.compile(r"(?P<open># *)(?P<text>.*)(?P<close>)")
WORD = re.compile(r"[^\W\d_]{2}")
# what French writes in its own way, even where no word is: letters, colours, signs, decimals
FRENCH = re.compile(r"[àâçéèêëîïôùû]|R → V| [:;?!%»]|','|^,$")
FIELD = re.compile(r"\{[^{}]*\}")
CODE = re.compile(r"[\w.]*[\d_][\w.{}]*|fmt: \w+|noqa(: [A-Z]+\d+)?", re.ASCII)  # not for readers


def pieces(source):
    """The strings and comments of Python source that a reader sees: `(start, end, text)` each.

    `start` and `end` are places in `source`; the text is as written between its quotes, with its
    backslashes and braces.
    """
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(position):
        return lines[position[0] - 1] + position[1]

    starts = []  # of the f-strings that are open; Python 3.12 and newer cut these in several tokens
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":
            starts.append(place(token.start))
        start, end = place(token.start), place(token.end)
        if kind == "FSTRING_END":
            start = starts.pop()
        if kind not in ("STRING", "FSTRING_END", "COMMENT") or starts:
            continue
        found = (COMMENT if kind == "COMMENT" else STRING).fullmatch(source[start:end])
        text = found["text"]
        for_readers = WORD.search(FIELD.sub("", text)) or FRENCH.search(text)
        if for_readers and not CODE.fullmatch(text):
            yield start + found.start("text"), start + found.end("text"), text


def translated(source, translate):
    """Python source whose strings and comments are translated by this function."""
    for start, end, text in reversed(list(pieces(source))):
        source = source[:start] + translate(text) + source[end:]
    return source
