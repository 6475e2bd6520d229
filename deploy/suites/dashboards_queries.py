"""Evaluates every query of the dashboards at a Prometheus, as Grafana would, and prints a table. deploy/suites/dashboards runs it.

usage: dashboards_queries.py URL PANELS.YAML DASHBOARD.JSON...
A query must have series with numbers, unless its panel says in panels.yaml why it is `empty`; then it must have none, so that
the list stays true.
"""

import json
import pathlib
import sys
import time
import urllib.parse
import urllib.request

import yaml

# What Grafana puts into a query before it sends it; scraped each second for some ten seconds.
GRAFANA = {"$__rate_interval": "30s", "$__range": "5m", "$job": "countersign", "$instance": ".*", "$endpoint": ".*"}


def ask(server, path, **parameters):
    url = f"{server}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"], None
    except urllib.error.HTTPError as refused:
        return None, json.load(refused).get("error", str(refused))


def evaluate(server, query):
    """The series of one query, or what is wrong with it: over a minute, and at one moment as a table has it."""
    now = time.time()
    data, wrong = ask(server, "query_range", query=query, start=now - 60, end=now, step=1)
    return (data["result"], None) if data else (None, wrong)


def last_number(series):
    """The newest value that is a number: NaN is what 0 / 0 has, and no answer."""
    numbers = [value for _, value in series["values"] if value != "NaN"]
    return numbers[-1] if numbers else None


def main(server, panels, *files):
    excused = {
        (name, panel["title"]): panel["empty"]
        for name, dashboard in yaml.safe_load(pathlib.Path(panels).read_text()).items()
        for row in dashboard["rows"]
        for panel in row["panels"]
        if "empty" in panel
    }
    answered, failures = 0, []
    for file in map(pathlib.Path, files):
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"]
                for name, value in GRAFANA.items():
                    query = query.replace(name, value)
                series, wrong = evaluate(server, query)
                numbers = [number for number in map(last_number, series or []) if number is not None]
                reason = excused.get((file.stem, panel["title"]))
                if wrong:
                    failures.append(f"{file.stem}: {panel['title']}: {wrong}: {query}")
                elif not numbers and not reason:
                    failures.append(f"{file.stem}: {panel['title']}: nothing comes of {query}")
                elif numbers and reason:
                    failures.append(f"{file.stem}: {panel['title']}: is `empty` ({reason}) and has {len(numbers)} series: {query}")
                else:
                    answered += 1
                shown = ", ".join(f"{float(number):.4g}" for number in numbers[:4]) + (", …" if len(numbers) > 4 else "")
                what = wrong or (f"{len(numbers):3} series: {shown}" if numbers else f"      none: {reason or 'NO REASON'}")
                print(f"{file.stem:9} {panel['title'][:44]:44} {target['legendFormat'][:22]:22} {what}")
        for variable in dashboard["templating"]["list"]:
            if variable["type"] != "query":
                continue
            # label_values(metric, label)
            metric, label = variable["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            for name, value in GRAFANA.items():
                metric = metric.replace(name, value)
            values, wrong = ask(server, f"label/{label}/values", **{"match[]": metric})
            if values:
                answered += 1
            else:
                failures.append(f"{file.stem}: variable {variable['name']}: {wrong or 'has no value'}")
            print(f"{file.stem:9} variable {variable['name']:35} {'':22} {wrong or values}")
    for failure in failures:
        print(f"FAILED: {failure}")
    print(f"{answered} answered, {len(failures)} not")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
