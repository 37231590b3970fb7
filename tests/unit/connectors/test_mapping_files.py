"""Mapping files of generic webhooks: their features, errors of a file, and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import law

from streams.connectors.hooks.hooks_file import HooksError, HooksFile, load_hooks
from streams.connectors.mappings.expressions import (
    BUDGET,
    EvaluationCost,
    Evaluator,
    ExpressionError,
    compile_expression,
)
from streams.connectors.mappings.generic import MAX_EVENTS, events_of
from streams.connectors.mappings.mapped import MappingError
from streams.connectors.mappings.mapping_file import MappingFileError, parse_mapping

RULE = """
[[event]]
type = "message.posted"
subject = "{{ payload.id }}"
time = "2026-05-20T08:14:22Z"
"""


def mapped(text: str, payload: Any, **more: Any) -> dict[str, Any]:
    result = events_of(payload, parse_mapping(text), **more)
    assert result.problems == []
    [event] = result.events
    return event


def value(expression: str, payload: Any) -> Any:
    return Evaluator({"t": {"a": 1, "1": "one", "true": "yes"}}, EvaluationCost()).evaluate(
        compile_expression(expression), payload)


@pytest.mark.parametrize(("template", "expected"), [
    ("{{ payload.n }}", 7), ("{{ payload.list }}", [1, None]), ("{{ payload.none }}", None), ("{{payload.yes}}", True),
    ("a {{ payload.n }} b", "a 7 b"), ("{{ payload.n }}{{ payload.yes }}", "7true"), ("x{{ payload.none }}", "x"),
    ("x{{ payload.list }}", "x"), ("{{ {a: payload.n} }}", {"a": 7}), ("plain", "plain"), ("}} {", "}} {"),
    ("{{ payload.text }}", "{{ payload.n }}"), ("{{ index }}", 0), ("{{ headers.x }}", "h"),
    ("{{ received }}", "1970-01-01T00:00:01Z"), ("{{ lower('AB') }}", "ab"), ("{{ replace('a-b', '-', '+') }}", "a+b"),
])
def test_a_template(template: str, expected: Any) -> None:
    payload = {"id": "s", "n": 7, "list": [1, None], "yes": True, "text": "{{ payload.n }}"}
    event = mapped(f"{RULE}data = {{ x = '''{template}''', always = 1 }}", payload, headers={"x": "h"},
                   received=1_000_000)
    assert event["data"].get("x") == expected
    assert ("x" in event["data"]) == (expected is not None)


@pytest.mark.parametrize(("sent", "expected"), [
    (1779264862, "2026-05-20T08:14:22Z"), ("1779264862", "2026-05-20T08:14:22Z"),
    (1779264862.5, "2026-05-20T08:14:22.500000Z"), (1779264862000, "2026-05-20T08:14:22Z"),
    ("1779264862.25", "2026-05-20T08:14:22.250000Z"),
    ("2026-05-20T10:14:22+02:00", "2026-05-20T08:14:22Z"), (0, "1970-01-01T00:00:00Z"),
])
def test_a_time_may_be_a_number(sent: Any, expected: str) -> None:
    text = RULE.replace('"2026-05-20T08:14:22Z"', '"{{ payload.at }}"')
    assert mapped(text, {"id": "s", "at": sent})["time"] == expected


@pytest.mark.parametrize("sent", [-1, 1e20, float("inf"), float("nan"), True, None, "", "yesterday", [], 10**400,
                                  "0001-01-01T00:00:00Z", "2026-05-20 08:14:22"])
def test_a_wrong_time_names_the_field(sent: Any) -> None:
    text = RULE.replace('"2026-05-20T08:14:22Z"', '"{{ payload.at }}"')
    [problem] = events_of({"id": "s", "at": sent}, parse_mapping(text)).problems
    assert problem.field == "event.0.time"
    assert "{{ payload.at }}" in str(problem)


def test_each_makes_an_event_per_element_and_names_the_one_that_fails() -> None:
    mapping = parse_mapping("""
[[event]]
each = "payload.list"
when = "item.open"
type = "message.posted"
subject = "{{ item.id }}-{{ index }}"
time = "{{ payload.at }}"
[event.data]
title = "{{ item.id }}"
""")
    elements = [{"id": "a", "open": True}, {"id": "b"}, {"open": True, "id": {}}, 7, {"id": "c", "open": 1}]
    result = events_of({"list": elements, "at": 1779264862}, mapping)
    assert [event["subject"] for event in result.events] == ["a-0", "-2", "c-4"]
    assert result.indexes == [0, 2, 4]
    assert events_of({"list": None}, mapping).ignored
    with pytest.raises(MappingError, match=r"event\.0\.each: must give an array"):
        events_of({"list": {}}, mapping)
    with pytest.raises(MappingError, match=f"at most {MAX_EVENTS}"):
        events_of({"list": [{}] * (MAX_EVENTS + 1)}, mapping)


def test_the_id_does_not_change_with_the_delivery() -> None:
    first = mapped(RULE, {"id": "s", "n": 1}, received=1)
    assert first == mapped(RULE, {"id": "s", "n": 2}, received=2)
    assert first["id"] == "s/message.posted/2026-05-20T08:14:22Z"


@pytest.mark.parametrize(("text", "error"), [
    ("", "event: at least one"), ("x = 1", "x: is not known"), ("[[event", "not TOML"),
    ("event = 1", "event: at least"),
    ("[[event]]\n", "event.0.type: is missing"), (RULE + "title = 'x'", "event.0.title: is not known"),
    (RULE.replace("message.posted", "message.sent"), "event.0.type: 'message.sent' is not an event type"),
    (RULE.replace("payload.id", "payload."), "event.0.subject: is not JMESPath"),
    (RULE.replace("payload.id", "body.id"), "event.0.subject: 'body' is not known"),
    (RULE.replace("payload.id", "nope(payload)"), "event.0.subject: calls nope()"),
    (RULE.replace("}}", ""), "event.0.subject: {{ without }}"), (RULE + "when = 1", "event.0.when: must be text"),
    (RULE + "data = 1", "event.0.data: must be a table"), (RULE + "each = 'x.y'", "event.0.each: 'x' is not known"),
    (RULE.replace("2026-05-20T08:14:22Z", "{{ received }}"), "event.0.id: is needed"),
    (RULE + "data = { a = '{{ a }}' }", "event.0.data.a: 'a' is not known"), ("[lookup]\nx = 1\n" + RULE, "lookup"),
    (RULE * 51, "51 rules"), (RULE + f"when = '''{'payload.' * 300}x'''", "2401 characters"),
    (RULE + "when = '" + "[" * 1500 + "'", "event.0.when: is not JMESPath"),
    (RULE + "data = " + "{a=" * 13 + "1" + "}" * 13, "nested deeper"), ("#" * 300_000, "larger than"),
], ids=range(22))
def test_an_error_of_the_file_names_its_place(text: str, error: str) -> None:
    with pytest.raises(MappingFileError) as raised:
        parse_mapping(text)
    assert error in str(raised.value)


BIG = {"s": "a" * 100_000, "list": ["x" * 20] * 100_000}
EXPLOSIONS = {
    "doubles": "|".join(["[@,@]"] * 100), "doubles-text": "|".join(["[@,@]"] * 60) + "|to_string(@)",
    "objects": "|".join(["{a:@,b:@}"] * 100), "join": "join(s, list)", "map": "map(&to_string(@), list)",
    "escapes": "|".join(["to_string([@])"] * 100), "replace": f"replace(s, 'a', '{'b' * 1500}')",
    "sort": "sort_by(list, &to_string(@))", "filter": "list[?@==@].[@,@]",
    "equals": "|".join(["[@,@]"] * 60) + "|@==@", "contains": "map(&contains(`[1,2,3]`, @), list) | map(&[@,@], @)",
    "flatten": "|".join(["[@,@][]"] * 100), "nested-map": "map(&map(&@, `[1,2]`), list)",
    "lower": "map(&lower(@), list)",
}


@pytest.mark.parametrize("name", EXPLOSIONS)
def test_an_expression_that_explodes_exceeds_the_budget(name: str) -> None:
    with pytest.raises(ExpressionError, match="costs too much"):
        Evaluator({}, EvaluationCost()).evaluate(compile_expression(EXPLOSIONS[name]), BIG)


def test_the_rules_of_a_file_share_the_budget() -> None:
    text = (RULE + "data = { title = '{{ to_string(payload) }}' }\n") * 20
    result = events_of({"id": "s", "l": [1] * 40_000}, parse_mapping(text))
    assert 0 < len(result.events) < 20
    assert all("costs too much" in str(problem) for problem in result.problems)
    assert 40_000 * len(result.events) <= BUDGET


TREES = st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", ""]),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                         st.sampled_from("ab"), inner, max_size=2), max_leaves=8)
EXPRESSIONS = [
    "a", "a.b", "[0]", "[-1]", "[]", "[][]", "*", "a[*].b", "[?a]", "[?a==b]", "[?@=='a']", "[?@>`1`]", "a||b", "a&&b",
    "!a", "[a,b]", "{x:a,y:@}", "a|[0]", "[1:]", "[::-1]", "length(a)", "keys(@)", "values(@)", "type(@)", "sort(@)",
    "max(@)", "to_string(@)", "to_number(a)", "to_array(a)", "not_null(a,b)", "reverse(@)", "join('-',@)", "sum(@)",
    "merge(@,@)", "map(&a,@)", "sort_by(@,&a)", "max_by(@,&a)", "contains(@,'a')", "starts_with(a,'a')", "`[1]`",
    "abs(a)", "ceil(a)", "avg(@)",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@law(25)
@given(tree=TREES)
def test_expressions_have_the_results_of_jmespath(expression: str, tree: Any) -> None:
    try:
        expected = jmespath.search(expression, tree)
    except Exception:
        with pytest.raises(ExpressionError):
            value(expression, tree)
    else:
        result = value(expression, tree)
        assert result == expected
        assert type(result) is type(expected)


@pytest.mark.parametrize(("key", "expected"), [
    ("a", 1), ("b", None), (1, "one"), (True, "yes"), (None, None), ([], None)])
def test_lookup(key: Any, expected: Any) -> None:
    assert value("lookup('t', @)", key) == expected
    assert value("lookup('other', @)", key) is None


HOOK = '[[hook]]\nname = "x"\nmapping = "github"\n'


@pytest.mark.parametrize(("text", "error"), [
    ("[[hook", "is no valid TOML"), ("x = 1", "x: Extra inputs"), (HOOK + HOOK, "hook x: another hook has this name"),
    (HOOK.replace("github", "gitlab"), "hook x: mapping"),
    (HOOK + 'secrets = ["hunter2-hunter2"]', "workspace: is needed"),
    (HOOK + 'workspace = "w"\nsecrets = ["hunter2"]', "at least 8 characters"),
    (HOOK + "options = { nope = 1 }", "options.nope"),
    (HOOK + 'options = { branches = "main" }', "options.branches"), (HOOK + 'file = "a.toml"', "file: is for mapping"),
    (HOOK.replace("github", "generic"), "file: is needed"), (HOOK.replace('"x"', '"a/b"'), "hook a/b: name"),
    (HOOK.replace("github", "generic") + 'file = "none.toml"', "cannot read"), ("hook = 1", "hook: Input should be"),
    (HOOK + 'secret = "hunter2-hunter2"', "hook x: secret: Extra inputs"),
    (HOOK.replace("github", "generic") + 'file = "bad.toml"', "bad.toml: event.0.type: is missing"),
    (HOOK + 'secrets = ["hunter2', "is no valid TOML"), (HOOK + "workspace = ''", "workspace"),
], ids=range(17))
def test_an_error_of_the_file_of_hooks_names_the_hook_and_no_secret(text: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[event]]\n")
    path = tmp_path / "hooks.toml"
    path.write_text(text)
    with pytest.raises(HooksError) as raised:
        load_hooks(path)
    assert error in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_secret_is_in_no_repr(tmp_path: Path) -> None:
    path = tmp_path / "hooks.toml"
    path.write_text(HOOK + 'workspace = "w"\nsecrets = ["hunter2-hunter2"]')
    hooks = load_hooks(path)
    assert "hunter2" not in repr(hooks["x"])
    assert set(hooks) == {"alertmanager", "grafana", "github", "x"}


def test_a_changed_mapping_file_is_read_again(tmp_path: Path) -> None:
    path, mapping, now = tmp_path / "hooks.toml", tmp_path / "m.toml", 0.0
    mapping.write_text(RULE)
    path.write_text(HOOK.replace("github", "generic") + 'file = "m.toml"')
    file = HooksFile(path, lambda: now)
    first = file.current()["x"].options
    mapping.write_text(RULE + "data = { title = 'new' }\n")
    assert file.current()["x"].options is first, "the file is not read again within 2 s"
    now = 3.0
    assert file.current()["x"].options != first
    mapping.unlink()
    now = 6.0
    assert file.current()["x"].options != first, "the earlier mapping stays in use"
