"""Checks the statements of readers of embedded ClickHouse before they run, on the syntax tree of ClickHouse's parser.

Statements, functions, tables, table functions, settings, and output formats must be on an allow-list. Additions of a
later chdb are refused until they are listed here. No list has a name that can open a file, a connection, or a program.
The check covers each form of a name: a call, a lambda, the bare name of a function or of a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from schemas.settings import DATABASE
from streams.history.embedded.http_protocol import BadRequest

__all__ = ["SETTINGS", "Guard", "Statement", "check_settings", "query"]

# Settings in the URL that are ignored: clients always send them, and they have no effect on a query.
_IGNORED = frozenset({"readonly", "allow_ddl", "date_time_input_format", "log_queries", "async_insert"})
# Settings that readers may set: limits (up to those of the server), and how values are computed and formatted. None has
# a value that names a file, an address, a schema, a program, or another dialect.
SETTINGS = frozenset({
    "max_execution_time", "max_result_rows", "max_result_bytes", "max_memory_usage", "max_threads", "max_block_size",
    "max_rows_to_read", "max_bytes_to_read", "max_rows_to_group_by", "max_rows_in_join", "max_bytes_in_join",
    "max_rows_in_set", "max_rows_to_sort", "limit", "offset", "session_timezone", "log_comment", "extremes",
    "join_use_nulls", "join_algorithm", "group_by_use_nulls", "totals_mode", "final", "use_query_cache",
    "optimize_read_in_order", "optimize_aggregation_in_order", "optimize_use_projections",
    "optimize_move_to_prewhere", "optimize_trivial_count_query", "prefer_column_name_to_alias",
    "transform_null_in", "cast_keep_nullable", "aggregate_functions_null_for_empty", "describe_compact_output",
    "date_time_output_format", "bool_true_representation", "bool_false_representation",
    "output_format_write_statistics", "output_format_decimal_trailing_zeros",
    "output_format_json_quote_64bit_integers", "output_format_json_quote_64bit_floats",
    "output_format_json_quote_decimals", "output_format_json_quote_denormals", "output_format_json_array_of_rows",
    "output_format_json_named_tuples_as_objects", "output_format_json_escape_forward_slashes",
    "output_format_json_validate_utf8", "output_format_pretty_color", "output_format_pretty_max_rows",
    "output_format_pretty_max_value_width", "output_format_pretty_row_numbers",
    "output_format_csv_crlf_end_of_line", "output_format_tsv_crlf_end_of_line",
    "output_format_arrow_string_as_string", "output_format_arrow_low_cardinality_as_dictionary",
    "output_format_arrow_compression_method", "output_format_parquet_string_as_string",
    "output_format_parquet_compression_method", "output_format_parquet_row_group_size",
    "output_format_native_write_json_as_string", "output_format_native_use_flattened_dynamic_and_json_serialization",
    "output_format_binary_write_json_as_string", "low_cardinality_allow_in_native_format",
})
# Output formats without a schema file, a template, or a registry, in lower case.
_FORMATS = frozenset(
    f"{base}{names}".lower()
    for base in ("TabSeparated", "TSV", "TabSeparatedRaw", "TSVRaw", "CSV", "JSONCompactEachRow",
                 "JSONCompactStringsEachRow", "RowBinary", "LineAsString", "Raw")
    for names in ("", "WithNames", "WithNamesAndTypes")
) | frozenset(
    name.lower() for name in (
        "JSON", "JSONCompact", "JSONStrings", "JSONCompactStrings", "JSONColumns", "JSONCompactColumns",
        "JSONColumnsWithMetadata", "JSONEachRow", "JSONStringsEachRow", "JSONObjectEachRow", "JSONLines", "NDJSON",
        "JSONL", "PrettyJSONEachRow", "JSONEachRowWithProgress", "Pretty", "PrettyCompact", "PrettySpace",
        "PrettyNoEscapes", "PrettyCompactNoEscapes", "PrettySpaceNoEscapes", "PrettyMonoBlock",
        "PrettyCompactMonoBlock", "Vertical", "Markdown", "MD", "Values", "XML", "TSKV", "Null", "Native", "Arrow",
        "ArrowStream", "Parquet", "ORC", "MsgPack", "BSONEachRow", "Prometheus", "SQLInsert", "RawBLOB", "Npy", "Hash",
    )
)
# Categories of system.functions whose functions only compute a value from their arguments.
_CATEGORIES = frozenset({
    "Aggregate Functions", "Arithmetic", "Arrays", "Bit", "Bitmap", "Comparison", "Conditional", "Dates and Times",
    "Distance", "Encoding", "Encryption", "Financial", "Geo", "Geo Polygon", "Hash", "IP Address", "JSON", "Logical",
    "Map", "Mathematical", "Null", "Nullable", "NumericIndexedVector", "QBit", "Random Number", "Rounding", "String",
    "String Replacement", "String Search", "String Splitting", "Time Series", "Time Window", "Tuple", "Type Conversion",
    "URL", "UUID",
})
# Allowed functions of the other categories, which also have functions that read the process, files, or the network.
_FUNCTIONS = frozenset({
    "lambda", "untuple", "grouping", "exists", "arrayjoin", "caseWithExpression", "bar", "blockNumber", "blockSize",
    "byteSize", "countDigits", "currentDatabase", "currentQueryID", "queryID", "initialQueryID", "currentSchemas",
    "currentUser", "authenticatedUser", "defaultValueOfArgumentType", "defaultValueOfTypeName", "digits", "displayName",
    "dumpColumnStructure", "dynamicType", "errorCodeToName", "finalizeAggregation", "flipCoordinates", "formatQuery",
    "formatQueryOrNull", "formatQuerySingleLine", "formatQuerySingleLineOrNull", "formatReadableDecimalSize",
    "formatReadableQuantity", "formatReadableSize", "formatReadableTimeDelta", "getSetting", "getSettingOrDefault",
    "getSizeOfEnumType", "getSubcolumn", "globalVariable", "hasThreadFuzzer", "hostName", "identity", "ignore",
    "indexHint", "initializeAggregation", "isConstant", "isDecimalOverflow", "lowCardinalityIndices",
    "lowCardinalityKeys", "MACNumToString", "MACStringToNum", "MACStringToOUI", "materialize",
    "minSampleSizeContinuous", "minSampleSizeConversion", "neighbor", "normalizeQuery", "normalizeQueryKeepNames",
    "normalizedQueryHash", "normalizedQueryHashKeepNames", "parseISO8601Duration", "parseReadableSize",
    "parseReadableSizeOrNull", "parseReadableSizeOrZero", "parseTimeDelta", "partitionID", "partitionId",
    "replicate", "revision", "rowNumberInAllBlocks", "rowNumberInBlock", "runningAccumulate", "runningConcurrency",
    "runningDifference", "runningDifferenceStartingWithFirstValue", "sleep", "sleepEachRow", "throwIf",
    "toColumnTypeName", "toTypeName", "transform", "uptime", "variantElement", "variantType", "version", "visibleWidth",
    "tokenizeQuery", "highlightQuery", "chdb",
})
_NO_AGGREGATES = frozenset({"flamegraph", "aggthrow"})  # they read the process
_TABLE_FUNCTIONS = frozenset({
    "numbers", "numbers_mt", "zeros", "zeros_mt", "generateseries", "generate_series", "primes", "values", "view",
})
_SYSTEM_TABLES = frozenset({
    "aggregate_function_combinators", "asynchronous_metrics", "build_options", "collations", "columns", "contributors",
    "data_skipping_indices", "data_type_families", "databases", "errors", "events", "formats", "functions", "keywords",
    "licenses", "merges", "metrics", "mutations", "numbers", "numbers_mt", "one", "parts", "parts_columns", "processes",
    "projection_parts", "projections", "settings", "table_engines", "table_functions", "tables", "time_zones", "zeros",
    "zeros_mt",
})
_SCHEMATA = frozenset({"information_schema", "INFORMATION_SCHEMA"})
_NODES = frozenset({
    "SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery", "ExpressionList", "Function", "Identifier",
    "TableIdentifier", "Literal", "Asterisk", "QualifiedAsterisk", "ColumnsRegexpMatcher", "ColumnsListMatcher",
    "QualifiedColumnsRegexpMatcher", "QualifiedColumnsListMatcher", "ColumnsTransformerList",
    "ColumnsApplyTransformer", "ColumnsExceptTransformer", "ColumnsReplaceTransformer",
    "ColumnsReplaceTransformerReplacement", "TablesInSelectQuery", "TablesInSelectQueryElement", "TableExpression",
    "TableJoin", "ArrayJoin", "SampleRatio", "Subquery", "WithElement", "WindowDefinition", "WindowListElement",
    "OrderByElement", "InterpolateElement", "QueryParameter", "SetQuery", "ExplainQuery", "ShowTablesQuery",
    "ShowColumnsQuery", "ShowIndexesQuery",
})
_SELECTS = frozenset({"SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery"})
_ROOTS = _SELECTS | {"ExplainQuery", "ShowTablesQuery", "ShowColumnsQuery", "ShowIndexesQuery"}
_EXPLAINS = frozenset({
    "EXPLAIN", "EXPLAIN PLAN", "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE", "EXPLAIN PIPELINE",
    "EXPLAIN ESTIMATE",
})
# Functions whose second argument may be the name of a table, or the call of a table function.
_IN = re.compile(r"(global)?(not)?(null)?in(ignoreset)?")
# Statements that parseQueryToJSON does not support. In ClickHouse's own formatting they have only plain names.
_NAME = r"(?:[A-Za-z_]\w*|`\w+`)"
_PLAIN = re.compile(
    rf"(?:(?:DESCRIBE TABLE|EXISTS TABLE|SHOW CREATE TABLE|SHOW CREATE VIEW) (?P<name>{_NAME}(?:\.{_NAME})?)"
    rf"|SHOW CREATE DATABASE {DATABASE}|SHOW PROCESSLIST|SHOW FUNCTIONS|SHOW ENGINES)"
    r"(?: SETTINGS describe_compact_output = [01])?(?: FORMAT (?P<format>\w+))?", re.ASCII)
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\0": "\\0"})  # encoding of a parameter's value
# At its start clickhouse-connect queries which settings are not read-only; it sends only those.
_MAY_SEND = re.compile(r"(SELECT name, value, )readonly( FROM system\.settings LIMIT \d+)(?: FORMAT Native)?")
_MAY_NOT = "NOT has([" + ", ".join(f"'{name}'" for name in sorted(SETTINGS)) + "], name) AS readonly"

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may run. `canonical`: in ClickHouse's formatting, on one line. `format`: output format that the
    statement names, or an empty string."""

    sql: str
    canonical: str
    format: str = field(default="")


class Guard:
    """Decides which statements may run. Reads the lists of functions from `connection` once."""

    def __init__(self, connection: Any) -> None:
        rows = _rows(connection, "SELECT name, alias_to, categories FROM system.functions")
        category = {name: kind for name, _, kind in rows}
        allowed = {name.lower() for name in _FUNCTIONS}
        names = set()
        for name, alias, _ in rows:
            names.add(name.lower())
            if (category.get(alias or name) or "") in _CATEGORIES or (alias or name).lower() in allowed:
                allowed.add(name.lower())
        aggregates = _rows(connection, "SELECT name FROM system.functions WHERE is_aggregate")
        self._aggregates = {name.lower() for name, in aggregates} - _NO_AGGREGATES
        self._allowed = allowed - _NO_AGGREGATES
        self._refused = names - self._allowed
        combinators = _rows(connection, "SELECT name FROM system.aggregate_function_combinators")
        self._combinators = tuple(name.lower() for name, in combinators)
        self._tables = {name.lower() for name, in _rows(connection, "SELECT name FROM system.table_functions")}

    def check(self, connection: Any, sql: str, format_of_url: str) -> Statement:
        """Returns the statement to run. Raises BadRequest if it is not allowed. Raises RuntimeError with the parser's
        message if it is invalid."""
        canonical = _ask(connection, "formatQuerySingleLine", sql)
        if may_send := _MAY_SEND.fullmatch(canonical):
            statement = Statement(f"{may_send[1]}{_MAY_NOT}{may_send[2]}", canonical)
        elif plain := _PLAIN.fullmatch(canonical):
            if plain["name"]:
                self._check_table(plain["name"].replace("`", "").split("."))
            statement = Statement(sql, canonical, plain["format"] or "")
        else:
            statement = Statement(sql, canonical, self._check_tree(_tree(connection, sql)))
        for name in (statement.format, format_of_url):
            if name and name.lower() not in _FORMATS:
                raise _refused(f"format {name}")
        return statement

    def _check_tree(self, root: Node) -> str:
        """Checks all nodes. Returns the output format that the statement names, or an empty string."""
        inner = root.get("query") or {}
        if root.get("type") not in _ROOTS or (
            root["type"] == "ExplainQuery" and (root.get("kind") not in _EXPLAINS or inner.get("type") not in _SELECTS)
        ):
            raise BadRequest("Code: 164. DB::Exception: only queries are answered here (READONLY)", 403)
        for node, role in _nodes(root):
            self._check_node(node, role, explained=root["type"] == "ExplainQuery")
        named = [node["format_ast"]["name"] for node in (root, inner) if "format_ast" in node]
        return str(named[0]) if named else ""

    def _check_node(self, node: Node, role: str, explained: bool) -> None:
        kind = node.get("type")
        if kind not in _NODES or "out_file" in node:
            raise _refused(f"{kind} into a file" if kind in _NODES else str(kind))
        if kind == "Function":
            self._check_function(node, role)
        elif kind == "ColumnsApplyTransformer":
            if "lambda" not in node:
                self._check_name(str(node.get("func_name")))
        elif kind == "TableIdentifier":
            self._check_table(node.get("name_parts") or [node.get("name")])
        elif kind == "Identifier":
            self._check_identifier(node)
        elif kind == "QueryParameter":
            if "identifier" in str(node.get("param_type")).lower():
                raise _refused("a parameter that is an identifier")
        elif kind == "SetQuery" and not (explained and role == "settings"):
            check_settings({str(change["name"]): "" for change in node.get("changes", ())})
        elif kind in ("ShowColumnsQuery", "ShowIndexesQuery"):
            database = node.get("database") or node.get("from_database")
            self._check_table([database, node.get("table")] if database else [node.get("table")])

    def _check_function(self, node: Node, role: str) -> None:
        name = str(node.get("name"))
        if role == "table_function":
            if name.lower() not in _TABLE_FUNCTIONS:
                raise _refused(f"table function {name}")
            return
        self._check_name(name)
        if _IN.fullmatch(name.lower()):
            for argument in node.get("arguments", {}).get("children", ())[1:]:
                if argument.get("type") == "Identifier":
                    self._check_table(argument.get("name_parts") or [argument.get("name")])
                if argument.get("type") == "Function" and str(argument.get("name")).lower() in self._tables:
                    raise _refused(f"table function {argument['name']}")

    def _check_name(self, name: str) -> None:
        """Checks the name of a function. An aggregate function may have combinators, such as -If and -State."""
        if name.lower() in self._allowed:
            return
        todo = [name.lower()]
        while todo:
            base = todo.pop()
            if base in self._aggregates:
                return
            todo += {base.removesuffix(suffix) for suffix in self._combinators if base.endswith(suffix)} - {""}
        raise _refused(f"function {name}")

    def _check_identifier(self, node: Node) -> None:
        """Checks a bare name. It may be a function (arrayMap(file, ...)) or refer to another database."""
        parts = node.get("name_parts") or [node.get("name")]
        if len(parts) == 1 and str(parts[0]).lower() in self._refused:
            raise _refused(f"function {parts[0]} as a name")
        if len(parts) > 1 and parts[0] in ("default", "_temporary_and_external_tables"):
            raise _refused(f"database {parts[0]}")

    def _check_table(self, parts: list[Any]) -> None:
        if len(parts) == 1:
            return  # in database attn, or of a WITH clause: names without a database never refer to another one
        database, name = parts[0], str(parts[-1])
        if len(parts) > 2 or not (
            database == DATABASE or database in _SCHEMATA or (database == "system" and name in _SYSTEM_TABLES)
        ):
            raise _refused(f"table {'.'.join(map(str, parts))}")


def check_settings(given: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings that have an effect. Raises BadRequest if readers may not set one."""
    settings = {name: value for name, value in given.items() if name not in _IGNORED}
    for name in settings:
        if name not in SETTINGS:
            raise BadRequest(
                f"Code: 452. DB::Exception: readers may not set {name} here (SETTING_CONSTRAINT_VIOLATION)", 403)
    return settings


def query(connection: Any, sql: str, **parameters: str) -> str:
    """Returns the result of one of our own queries as text."""
    given = {name: value.translate(_ESCAPED) for name, value in parameters.items()}
    return bytes(connection.query(sql, "TSVRaw", params=given).bytes() or b"").decode(errors="replace").rstrip("\n")


def _refused(what: str) -> BadRequest:
    return BadRequest(f"Code: 497. DB::Exception: {what} is not available to readers (ACCESS_DENIED)", 403)


def _ask(connection: Any, function: str, sql: str) -> str:
    return query(connection, f"SELECT {function}({{q:String}})", q=sql)


def _tree(connection: Any, sql: str) -> Node:
    try:
        return msgspec.json.decode(_ask(connection, "parseQueryToJSON", sql), type=dict[str, Any])
    except RuntimeError as error:
        if "does not support JSON serialization" not in str(error):
            raise
        raise BadRequest("Code: 164. DB::Exception: only queries are answered here (READONLY)", 403) from None
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest("Code: 62. DB::Exception: the query is nested too deeply (SYNTAX_ERROR)") from None


def _nodes(root: Node) -> Iterator[tuple[Node, str]]:
    """Yields all nodes of the tree, each with the name of its field in the parent. Literals have values, not nodes."""
    todo: list[tuple[Any, str]] = [(root, "")]
    while todo:
        node, role = todo.pop()
        if isinstance(node, list):
            todo += [(child, role) for child in node]
        elif isinstance(node, dict):
            if "type" in node:
                yield node, role
            if node.get("type") != "Literal":
                todo += [(child, name) for name, child in node.items()]


def _rows(connection: Any, sql: str) -> list[list[str]]:
    return [line.split("\t") for line in query(connection, sql).splitlines()]
