"""Ranks find modules in the order in which their task does, after the standard library."""

from __future__ import annotations

from llutil.agent_process.search_path import ranks_path

AGENTS = ["/pythonpath", "/lib/python3.11", "/venv/site-packages", "/mine", "/dags", "/cwd"]


def test_a_folder_that_the_task_had_inserted_comes_between_the_library_and_the_packages() -> None:
    assert ranks_path(AGENTS, ["/mine"]) == (
        "/pythonpath",
        "/lib/python3.11",
        "/mine",
        "/venv/site-packages",
        "/dags",
        "/cwd",
    )


def test_without_such_folders_it_is_the_agents() -> None:
    assert ranks_path(AGENTS, []) == tuple(AGENTS)


def test_an_interpreter_without_site_packages_has_them_last() -> None:
    assert ranks_path(["/lib", "/mine", "/dags"], ["/mine"]) == ("/lib", "/dags", "/mine")
