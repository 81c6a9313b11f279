"""What an agent inherits from its task."""

from __future__ import annotations

import os
import subprocess
import sys

from airflow_provider.agent_client.environment import (
    agent_environment,
    interpreter_folders,
    python_path_of,
    task_paths,
)

SITE = next(path for path in sys.path if path.endswith("site-packages"))
OWN = frozenset([os.path.realpath(SITE)])


def test_folders_of_the_task_are_handed_on_in_order_and_once():
    path = ["/dags", "", SITE, "/plugins", "/dags/", "rel"]
    assert task_paths(path, [], "/cwd", OWN) == (["/dags", "/cwd"], ["/plugins", "/cwd/rel"])


def test_what_airflow_appends_comes_after_the_site_packages():
    path = ["/venv/bin", "/usr/lib/python3.11", SITE, "/config", "/plugins", "/dags"]
    own = OWN | {"/venv/bin", "/usr/lib/python3.11"}
    assert task_paths(path, [], "/cwd", own) == ([], ["/config", "/plugins", "/dags"])


def test_what_the_agent_gets_as_pythonpath_is_not_handed_on_twice():
    assert task_paths(["/old", SITE, "/dags"], ["/old"], "/cwd", OWN) == ([], ["/dags"])


def test_pythonpath_is_absolute_and_an_empty_entry_is_the_working_directory():
    assert python_path_of({"PYTHONPATH": "/a::rel/"}, "/cwd") == ["/a", "/cwd", "/cwd/rel"]
    assert python_path_of({"PYTHONPATH": ""}, "/cwd") == python_path_of({}, "/cwd") == []


def test_nothing_of_the_interpreter_itself_is_handed_on():
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; print('\\n'.join(sys.path))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    site_packages = [path for path in sys.path if path.endswith("site-packages")]
    assert bare
    assert site_packages
    assert task_paths(bare + site_packages, [], "/", interpreter_folders()) == ([], [])


def test_the_folders_beside_a_dag_are_not_mistaken_for_the_interpreters(tmp_path):
    assert task_paths([str(tmp_path)], [], "/", interpreter_folders()).before == [str(tmp_path)]


def test_an_agent_can_import_airflow_and_prints_at_once():
    environment = agent_environment({"HOME": "/h", "PYTHONPATH": "/lib"}, ["/lib"], {})
    assert environment == {
        "HOME": "/h",
        "_AIRFLOW__AS_LIBRARY": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": "/lib",
    }


def test_a_descriptor_that_only_the_task_has_is_not_named():
    assert "__AIRFLOW_SUPERVISOR_FD" not in agent_environment(
        {"__AIRFLOW_SUPERVISOR_FD": "12"}, [], {}
    )


def test_what_the_user_adds_comes_last_and_wins():
    environment = agent_environment({"A": "base", "B": "base"}, [], {"A": "user"})
    assert (environment["A"], environment["B"]) == ("user", "base")


def test_a_users_pythonpath_is_searched_first_and_hides_nothing():
    environment = agent_environment({"PYTHONPATH": "/old"}, ["/old"], {"PYTHONPATH": "/mine"})
    assert environment["PYTHONPATH"].split(os.pathsep) == ["/mine", "/old"]


def test_an_empty_path_is_not_written_since_it_would_mean_the_current_folder():
    assert "PYTHONPATH" not in agent_environment({"PYTHONPATH": ""}, [], {})


def test_without_a_working_directory_relative_entries_are_left_out():
    assert python_path_of({"PYTHONPATH": "/a::rel/"}, None) == ["/a"]
    assert task_paths(["/dags", "", SITE, "rel"], [], None, OWN) == (["/dags"], [])
