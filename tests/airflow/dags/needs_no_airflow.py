"""A training script that knows nothing of Airflow, and fails where there is one."""

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", required=True)
    text = parser.parse_args().text
    try:
        import airflow  # noqa: F401 - whether it can be imported is the question
    except ImportError:
        print(f"no Airflow here, but {text!r}")
    else:
        sys.exit("there is an Airflow here")


if __name__ == "__main__":
    main()
