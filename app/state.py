"""The only file that names session_state and query_params keys: what the user chose, and how the
URL says it.

A page is entered with its parameters (app/main.py), gives every widget its key by key(), and hands
the widget's value to keep(); a reload of the URL then shows the same screen. Nothing here draws
anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar, cast

import streamlit as st
from streamlit.navigation.page import StreamlitPage

Value = TypeVar("Value")

HOME = "home"
_URL = "trimtab-url"
_PAGE = "trimtab-page"
_PAGES = "trimtab-pages"
_PARAMETERS = "trimtab-parameters"
_WIDGET = "choice-"
_MESSAGE = "trimtab-message"
_GENERATION = "generation-"
_SEEN = "seen-"
_FORM = "form-"


def _memory() -> dict[str, str]:
    return cast("dict[str, str]", st.session_state.setdefault(_URL, {}))


def _default(name: str) -> Any:
    return st.session_state[_PARAMETERS][name]


def enter(page: str, parameters: Mapping[str, Any]) -> None:
    """Start a page with its `parameters`: the words of its URL and their defaults, which the URL
    leaves out; one whose default is None is always written. The URL wins; what it does not say is
    remembered from the last visit of this browser tab.
    """
    arrived = st.session_state.get(_PAGE) != page
    st.session_state[_PAGE] = page
    st.session_state[_PARAMETERS] = parameters
    memory = _memory()
    for name in parameters:
        text = st.query_params.get(name)
        if text is None and arrived and name in memory:
            text = st.query_params[name] = memory[name]
        if arrived or text != memory.get(name):
            _drop_widgets(name)
        if text is None:
            memory.pop(name, None)
        else:
            memory[name] = text


def _drop_widgets(name: str) -> None:
    """Forget what the widgets of `name` show, so that they are set from the URL again."""
    own = _WIDGET + name
    for key_ in [word for word in st.session_state if str(word).startswith(own)]:
        if key_ == own or key_.startswith(own + "-"):
            del st.session_state[key_]


def part_key(name: str, part: str, value: Any) -> str:
    """The key of one of several widgets that make up `name`; `value` is what it shows until the
    user changes it."""
    widget = f"{_WIDGET}{name}-{part}"
    st.session_state.setdefault(widget, value)
    return widget


def chosen(name: str) -> Any:
    """What the URL says for `name`, in the type of its default; the default when it says nothing
    or nonsense."""
    default = _default(name)
    text = _memory().get(name)
    if text is None:
        return default
    if isinstance(default, bool):
        return text == "1" if text in ("0", "1") else default
    if isinstance(default, int):
        return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else default
    if isinstance(default, tuple):
        return tuple(dict.fromkeys(part for part in text.split(",") if part))
    return text


def key(name: str, options: Sequence[Any] | None = None, default: Any = None) -> str:
    """The widget key of `name`, its value set from the URL; values that are not among `options`
    are dropped.

    `default` is used when the URL says nothing usable and the parameter's own default is None or
    not an option.
    """
    widget = _WIDGET + name
    value = st.session_state.get(widget, chosen(name))
    own = _default(name)
    if isinstance(own, tuple):
        value = [part for part in value or () if options is None or part in options]
    elif value is None or (options is not None and value not in options):
        value = own if own is not None and (options is None or own in options) else default
    st.session_state[widget] = value
    return widget


def keep(name: str, value: Value) -> Value:
    """Write a widget's value into the URL and remember it; returns the value."""
    default = _default(name)
    parts = tuple(value) if isinstance(value, list | tuple) else None
    if value is None or (default is not None and (value == default or parts == default)):
        _memory().pop(name, None)
        if name in st.query_params:
            del st.query_params[name]
        return value
    text = (
        ",".join(map(str, parts))
        if parts is not None
        else str(int(value))
        if isinstance(value, bool)
        else str(value)
    )
    _memory()[name] = text
    if st.query_params.get(name) != text:
        st.query_params[name] = text
    return value


def forget(*names: str) -> None:
    """Set choices back to their defaults (call it from a callback)."""
    for name in names:
        _drop_widgets(name)
        keep(name, _default(name))


def choose(name: str, value: Any) -> None:
    """Make a choice for the user (call it from a callback or before the widget is drawn)."""
    _drop_widgets(name)
    keep(name, value)


def flash(text: str) -> None:
    """A sentence for the next page that is drawn."""
    st.session_state[_MESSAGE] = text


def flashed() -> str:
    """The sentence left by flash(), once."""
    return str(st.session_state.pop(_MESSAGE, ""))


def remember_pages(pages: Sequence[StreamlitPage]) -> None:
    """Let go() and page() find the pages of this run."""
    st.session_state[_PAGES] = {page.url_path or HOME: page for page in pages}


def page(name: str) -> StreamlitPage:
    """The page called `name`, for st.page_link."""
    return cast(StreamlitPage, st.session_state[_PAGES][name])


def words(**choices: Any) -> dict[str, str]:
    """Choices as query parameters, for links."""
    query: dict[str, str] = {}
    for name, value in choices.items():
        if value is not None:
            query[name] = ",".join(value) if isinstance(value, list | tuple) else str(value)
    return query


def go(name: str, **choices: Any) -> NoReturn:
    """Open another page with these choices in its URL."""
    st.switch_page(page(name), query_params=words(**choices))


def selection_key(name: str, *context: object) -> str:
    """A key for a table whose selection starts anew when `context` changes or forget_selections()
    was called."""
    generation = st.session_state.get(f"{_GENERATION}{name}", 0)
    digest = hashlib.sha256(repr(context).encode()).hexdigest()[:12]
    return f"table-{name}-{generation}-{digest}"


def forget_selections(name: str) -> None:
    """Untick every row of the table called `name` (call it from a callback)."""
    key_ = f"{_GENERATION}{name}"
    st.session_state[key_] = st.session_state.get(key_, 0) + 1


def form(name: str, usual: str) -> str:
    """The form of the table called `name` in which rows were ticked last."""
    return str(st.session_state.get(f"{_FORM}{name}", usual))


def use_form(name: str, form_: str, other: str) -> None:
    """Rows were ticked in this form: the table called `other` takes its ticks from there (a
    callback)."""
    st.session_state[f"{_FORM}{name}"] = form_
    forget_selections(other)


def changed(name: str, value: object) -> bool:
    """Whether `value` differs from the one of the last drawing; the first drawing counts as
    unchanged."""
    key_ = f"{_SEEN}{name}"
    before = st.session_state.get(key_, value)
    st.session_state[key_] = value
    return bool(before != value)
